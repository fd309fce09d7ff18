//! What is to be gone.

use serde::{Deserialize, Serialize};

use super::{Cidr, Endpoint, Floating, InterfaceName, Masquerade, Network, PortMap};

/// What was recorded, is recorded no more or in another form, and of which something may be left in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Going {
    /// Former uplinks.
    pub uplinks: Vec<InterfaceName>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Endpoints, each with the network it is linked to.
    pub endpoints: Vec<(Endpoint, Option<Network>)>,
    /// Masquerade rules, as they were.
    pub masquerades: Vec<Masquerade>,
    /// Destinations that were left out of masquerade.
    pub unmasqueraded: Vec<Cidr>,
    /// Sources that were denied.
    pub denied: Vec<Cidr>,
    /// Floating addresses, as they were.
    pub floatings: Vec<Floating>,
    /// Mappings, as they were.
    pub port_maps: Vec<PortMap>,
    /// Endpoints with limits, as they were, of which some are no more; each with its network.
    pub limits: Vec<(Endpoint, Network)>,
}

impl Going {
    /// The interfaces of the host that were made for it.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        let links = self.endpoints.iter().filter_map(|(endpoint, _)| endpoint.link.as_ref());
        let bridges = self.networks.iter().map(|network| &network.bridge);
        bridges.chain(links.map(|link| &link.host_interface))
    }

    /// Whether there is nothing of the kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
