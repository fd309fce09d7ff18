//! The flow tables: read as one, and cleared of flows that are to end.

use std::collections::HashMap;

use bytemuck::Zeroable;
use vnet_common::{CtEntry, EndpointUse, Origin, Tuple, Zone};

use super::error::Error;
use super::maps::Maps;
use crate::flow::Tables;

/// Both directions of every tracked flow, confirmed or not.
pub(super) type Flows = HashMap<Tuple, CtEntry>;

/// Times that restored halves are looked for. A half is restored once in a second, so the second time it is gone for
/// good.
const PASSES: usize = 4;

/// The flow tables. A flow that is being confirmed meanwhile is in one of them: it is added to the second before it is
/// taken from the first, and that is the one read first.
pub(super) fn tables(maps: &Maps) -> Result<Tables, Error> {
    let unconfirmed = maps.unconfirmed.entries()?;
    let confirmed = maps.conntrack.entries()?;
    Ok(Tables { unconfirmed, confirmed })
}

/// The entries of one flow.
pub(super) fn halves(maps: &Maps, tuple: &Tuple) -> Result<Tables, Error> {
    let mut tables = Tables::default();
    let mut key = *tuple;
    for _ in 0..2 {
        let confirmed = maps.conntrack.get(&key)?;
        let (entry, table) = match confirmed {
            Some(_) => (confirmed, &mut tables.confirmed),
            None => (maps.unconfirmed.get(&key)?, &mut tables.unconfirmed),
        };
        let Some(entry) = entry else { break };
        table.insert(key, entry);
        key = entry.twin();
    }
    Ok(tables)
}

/// The tracked flows.
pub(super) fn all(maps: &Maps) -> Result<Flows, Error> {
    let Tables { unconfirmed: mut flows, confirmed } = tables(maps)?;
    flows.extend(confirmed);
    Ok(flows)
}

/// Forgets the flows for which `doomed` holds, together with their twins; returns how many entries went.
pub(super) fn forget(maps: &Maps, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, Error> {
    let mut forgotten = 0;
    // All are collected first: deleting while walking makes the kernel start over.
    let flows = all(maps)?;
    let mut left: Flows = HashMap::new();
    for (tuple, entry) in &flows {
        if doomed(tuple, entry) {
            left.insert(*tuple, *entry);
            // A twin may have become another flow's, after an eviction.
            let twin = flows.get_key_value(&entry.twin()).filter(|(_, twin)| twin.twin() == *tuple);
            left.extend(twin);
        }
    }
    forget_mappings(maps, doomed)?;
    if left.is_empty() {
        return Ok(0);
    }
    for _ in 0..PASSES {
        for tuple in left.keys() {
            let confirmed = maps.conntrack.remove(tuple)?;
            forgotten += usize::from(maps.unconfirmed.remove(tuple)? || confirmed);
        }
        left = restored(maps, &left)?;
        if left.is_empty() {
            break;
        }
    }
    recount(maps)?;
    Ok(forgotten)
}

/// Forgets the endpoint-independent mappings that are doomed as a flow without a peer would be.
fn forget_mappings(maps: &Maps, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<(), Error> {
    for (key, mapping) in maps.mappings.entries()? {
        let flow = CtEntry { translated: mapping.translated, ..CtEntry::zeroed() };
        if doomed(&key, &flow) {
            maps.mappings.remove(&key)?;
        }
    }
    Ok(())
}

/// Those of the flows that are there again: a packet that met one half while the other one was being forgotten has
/// restored that, or has moved both to the other table. What began anew since is another flow.
fn restored(maps: &Maps, flows: &Flows) -> Result<Flows, Error> {
    let mut restored = HashMap::new();
    for (tuple, entry) in flows {
        for key in [*tuple, entry.twin()] {
            let found = match maps.conntrack.get(&key)? {
                None => maps.unconfirmed.get(&key)?,
                found => found,
            };
            restored.extend(found.filter(|found| found.created == entry.created).map(|found| (key, found)));
        }
    }
    Ok(restored)
}

/// Counts anew how many confirmed flows each endpoint has begun. One that is confirmed or ends meanwhile may be missed
/// or counted twice: the next time corrects it.
fn recount(maps: &Maps) -> Result<(), Error> {
    let endpoints = maps.endpoints.entries()?;
    let mut flows: HashMap<u32, u32> = HashMap::new();
    for (tuple, entry) in maps.conntrack.entries()? {
        if Origin::from_u8(entry.origin) == Origin::Opener
            && tuple.zone != Zone::WORLD
            && let Some(endpoint) = endpoints.get(&tuple.src)
        {
            *flows.entry(endpoint.ifindex).or_default() += 1;
        }
    }
    for (ifindex, used) in maps.endpoint_use.entries()? {
        let flows = flows.get(&ifindex).copied().unwrap_or(0);
        if flows != used.flows {
            maps.endpoint_use.insert(ifindex, EndpointUse { flows, ..used })?;
        }
    }
    Ok(())
}
