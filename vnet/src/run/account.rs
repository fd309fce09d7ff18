//! What things are called, as recorded.

use std::collections::{BTreeMap, HashMap};

use crate::instance::Instance;
use crate::store::{self, Reading};

/// The names of an instance's things.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// Networks by number.
    pub(super) networks: BTreeMap<u16, String>,
    /// The links of endpoints to networks.
    pub(super) endpoints: Vec<Named>,
    /// Mappings by number.
    pub(super) mappings: HashMap<u32, Published>,
}

/// A link of an endpoint to a network.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) network: String,
    /// The host's end of its link.
    pub(super) host_interface: String,
}

impl Named {
    /// What no other link has.
    pub(super) fn key(&self) -> LinkKey {
        (self.name.clone(), self.network.clone())
    }
}

/// An endpoint and a network.
pub(super) type LinkKey = (String, String);

/// What a mapping publishes, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Published {
    pub(super) published: String,
    pub(super) protocol: String,
    pub(super) endpoint: String,
}

impl Account {
    /// Reads it; nothing if a command is changing the instance at the moment.
    pub(super) fn read(instance: &Instance) -> Result<Option<Self>, store::Error> {
        let Some(reading) = Reading::open_if_free(instance)? else { return Ok(None) };
        let networks = reading.networks()?.into_iter();
        let networks = networks.map(|network| (network.number, network.name.to_string())).collect();
        let recorded = reading.endpoints()?;
        let links = recorded.iter().flat_map(|endpoint| {
            endpoint.links.iter().map(|link| Named {
                name: endpoint.name.to_string(),
                network: link.network.to_string(),
                host_interface: link.host_interface.to_string(),
            })
        });
        let endpoints = links.collect();
        let mappings = reading.port_maps()?.into_iter().map(|mapping| {
            let published = Published {
                published: mapping.published.to_string(),
                protocol: mapping.protocol.to_string(),
                endpoint: mapping.endpoint.to_string(),
            };
            (mapping.id, published)
        });
        Ok(Some(Self { networks, endpoints, mappings: mappings.collect() }))
    }
}
