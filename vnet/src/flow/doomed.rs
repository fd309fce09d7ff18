//! What has to be forgotten so that some flows end and the others go on.

use std::collections::{HashMap, HashSet};

use vnet_common::{Addr, CtEntry, Port, Tuple, Zone};

use super::{Filter, Flow};

/// Entries of the flow tables, and of the endpoint-independent mappings that only their flows use.
///
/// A mapping that stayed would let its peers begin the flow anew from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doomed {
    /// When each began: what has begun since with the same tuple is another flow.
    flows: HashMap<Tuple, u32>,
    mappings: HashSet<Tuple>,
}

impl Doomed {
    /// The entries of the flows that are asked for.
    #[must_use]
    pub fn among(flows: &[Flow], filter: &Filter) -> Self {
        let (doomed, kept): (Vec<&Flow>, Vec<&Flow>) = flows.iter().partition(|flow| filter.selects(flow));
        let mut mappings: HashSet<Tuple> = doomed.iter().flat_map(|flow| mapping_keys(flow)).collect();
        for key in kept.iter().flat_map(|flow| mapping_keys(flow)) {
            mappings.remove(&key);
        }
        let keys = doomed.iter().flat_map(|flow| flow.keys().map(|key| (key, flow.created)));
        Self { flows: keys.collect(), mappings }
    }

    /// Whether an entry is one of them. A mapping is asked for as a flow without a peer.
    #[must_use]
    pub fn contains(&self, tuple: &Tuple, entry: &CtEntry) -> bool {
        self.flows.get(tuple) == Some(&entry.created) || self.mappings.contains(tuple)
    }
}

/// The keys of the mapping that a flow belongs to, as [`vnet_common::MappingEntry`] has them: from the endpoint, from
/// outside, and from the flow's peer.
fn mapping_keys(flow: &Flow) -> Vec<Tuple> {
    if !flow.mapped {
        return Vec::new();
    }
    // What the endpoint sends, before and after translation. Who opens a flow from outside is answered by it.
    let (inside, outside) = match flow.original.zone {
        Zone::WORLD => (flow.translated.answer(), flow.original.answer()),
        _ => (flow.original, flow.translated),
    };
    let from_endpoint = Tuple { dst: outside.src, dport: Port::new(0), ..inside };
    let from = |peer: Addr| Tuple {
        src: peer,
        sport: Port::new(0),
        dst: outside.src,
        dport: outside.sport,
        zone: Zone::WORLD,
        ..outside
    };
    vec![from_endpoint, from(outside.src.any_of_family()), from(outside.dst)]
}
