//! What is to be gone.

use serde::{Deserialize, Serialize};

use super::{
    CgroupLimit, Cidr, DirectLink, Endpoint, Floating, InterfaceName, Masquerade, Network, PortMap,
    one_or_many,
};

/// What was recorded, is recorded no more or in another form, and of which something may be left in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Going {
    /// Former uplinks.
    pub uplinks: Vec<InterfaceName>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Endpoints, or links of one that stays, each with the networks it is linked to.
    pub endpoints: Vec<(Endpoint, Networks)>,
    /// Masquerade rules, as they were.
    pub masquerades: Vec<Masquerade>,
    /// Destinations that were left out of masquerade.
    pub unmasqueraded: Vec<Cidr>,
    /// Sources that were denied.
    pub denied: Vec<Cidr>,
    /// Floating addresses, as they were.
    pub floatings: Vec<Floating>,
    /// Direct links.
    pub directs: Vec<DirectLink>,
    /// Mappings, as they were.
    pub port_maps: Vec<PortMap>,
    /// Endpoints with limits, as they were, of which some are no more; each with its networks.
    pub limits: Vec<(Endpoint, Networks)>,
    /// Limits of cgroups, as they were.
    pub cgroup_limits: Vec<CgroupLimit>,
}

/// The networks that an endpoint is linked to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Networks(#[serde(deserialize_with = "one_or_many")] pub Vec<Network>);

impl Going {
    /// The interfaces of the host that were made for it.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        let links = self.endpoints.iter().flat_map(|(endpoint, _)| &endpoint.links);
        let bridges = self.networks.iter().flat_map(Network::interfaces);
        bridges.chain(links.map(|link| &link.host_interface))
    }

    /// Whether there is nothing of the kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_older_versions_name_one_network_or_none() {
        let network = r#"{"name":"blue","number":2,"segments":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"}],
            "bridge":"vnet-blue","mac":"02:00:00:00:00:01","mtu":1500,"internal":false,"isolated":true}"#;
        let endpoint = r#"{"name":"web","namespace":"own","link":null,"created":7}"#;
        let old = format!(
            r#"{{"endpoints":[[{endpoint},{network}],[{endpoint},null]],"limits":[[{endpoint},{network}]]}}"#
        );
        let going: Going = serde_json::from_str(&old).unwrap();
        let networks: Vec<usize> = going.endpoints.iter().map(|(_, networks)| networks.0.len()).collect();
        assert_eq!((networks, going.limits[0].1.0.len()), (vec![1, 0], 1));
        let again: Going = serde_json::from_str(&serde_json::to_string(&going).unwrap()).unwrap();
        assert_eq!(again, going);
    }
}
