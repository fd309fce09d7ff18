//! A floating address: an address of the host that is one endpoint's alone.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vnet_common::Zone;

use super::{InterfaceName, Name};

/// One address of the host for one address of an endpoint: whatever arrives there goes to it, and whatever it sends
/// to the world comes from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floating {
    /// The host's address.
    pub external: IpAddr,
    /// The endpoint.
    pub endpoint: Name,
    /// The endpoint's address.
    pub addr: IpAddr,
    /// Number of the endpoint's network.
    pub number: u16,
    /// The interface that has the host's address for this alone; without one, the host has it anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<InterfaceName>,
}

impl Floating {
    /// The zone of the endpoint's flows.
    #[must_use]
    pub fn zone(&self) -> Zone {
        Zone { id: self.number }
    }
}

impl fmt::Display for Floating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { external, endpoint, addr, .. } = self;
        write!(f, "{external} for {endpoint} ({addr})")
    }
}
