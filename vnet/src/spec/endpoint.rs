//! An endpoint: a namespace, and its link to a network.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vnet_common::{Mac, Zone};

use super::{InterfaceName, Limits, Name};

/// A network namespace that vnet serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name.
    pub name: Name,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its link to a network; without one it has a loopback interface and nothing else.
    pub link: Option<Link>,
    /// Seconds since 1970 at which it was made.
    pub created: u64,
    /// How much it may send and receive.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

impl Endpoint {
    /// Its addresses, without prefixes.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.link.iter().flat_map(|link| link.addresses.iter().map(IpNet::addr))
    }
}

/// Whose an endpoint's namespace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// Made for the endpoint and removed with it.
    Own,
    /// Somebody else's: left alone when the endpoint goes.
    Foreign {
        /// Where it can be opened.
        path: PathBuf,
    },
}

/// How an endpoint is linked to its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The network.
    pub network: Name,
    /// The network's number.
    pub number: u16,
    /// The endpoint's addresses with the network's prefixes, at most one of each family.
    pub addresses: Vec<IpNet>,
    /// The endpoint's hardware address.
    #[serde(with = "super::mac_text")]
    pub mac: Mac,
    /// Name of its interface in the namespace.
    pub ifname: InterfaceName,
    /// Name of the other end, on the host.
    pub host_interface: InterfaceName,
}

impl Link {
    /// The zone of its flows.
    #[must_use]
    pub fn zone(&self) -> Zone {
        Zone { id: self.number }
    }
}
