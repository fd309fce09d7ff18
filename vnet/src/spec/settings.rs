//! An instance.

use serde::{Deserialize, Serialize};
use vnet_common::{DatapathConfig, PortRange};

use super::{InterfaceName, Ports};

/// What holds for a whole instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The interfaces that lead to the world.
    pub uplinks: Vec<InterfaceName>,
    /// Source ports kept for masquerade: neither the host's own choice nor published.
    pub nat_ports: Ports,
    /// Which network namespace plays its host.
    pub namespace: u64,
    /// Seconds since 1970 at which it came up.
    pub created: u64,
    /// Where fragments wait for the first of their datagram; nowhere on a kernel that cannot make them.
    #[serde(default)]
    pub hold: Option<Hold>,
}

/// A pair of interfaces of the host between which fragments wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The end that they are sent out of, slowly.
    pub entrance: InterfaceName,
    /// The end where they come out again.
    pub exit: InterfaceName,
}

impl Settings {
    /// An instance without uplinks, with the documented source ports.
    #[must_use]
    pub fn new(namespace: u64, created: u64) -> Self {
        let PortRange { first, last } = DatapathConfig::DEFAULT.nat_ports;
        Self { uplinks: Vec::new(), nat_ports: Ports::reserved(first, last), namespace, created, hold: None }
    }

    /// The data path's configuration; bit n of `port_blocks` says whether blocks of prefix length n exist.
    #[must_use]
    pub fn config(&self, port_blocks: u32) -> DatapathConfig {
        let nat_ports = PortRange { first: self.nat_ports.first(), last: self.nat_ports.last() };
        DatapathConfig { port_blocks, nat_ports, ..DatapathConfig::DEFAULT }
    }
}
