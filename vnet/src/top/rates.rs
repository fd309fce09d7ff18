//! From two counts to what goes on between them.

use std::collections::HashMap;

use vnet_common::{Addr, Tuple, Zone};

use super::counts::{Counts, Mapping};
use super::snapshot::{Row, Snapshot, Tab, Table};
use crate::flow::{Flow, Traffic};
use crate::output::{Names, Side, words};

/// Packets and bytes of both directions, and flows that have begun.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    sent: Traffic,
    received: Traffic,
    flows: u64,
    begun: u64,
}

impl Sum {
    fn add(&mut self, [sent, received]: [Traffic; 2], begun: bool) {
        for (sum, more) in [(&mut self.sent, sent), (&mut self.received, received)] {
            sum.packets += more.packets;
            sum.bytes += more.bytes;
        }
        self.flows += 1;
        self.begun += u64::from(begun);
    }
}

/// What goes on: rates since `before`; without that none are known.
#[must_use]
pub fn snapshot(before: Option<&Counts>, after: &Counts) -> Snapshot {
    let seconds = before.map_or(0.0, |before| after.at - before.at);
    let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { f64::NAN };
    let earlier: HashMap<&Tuple, &Flow> =
        before.iter().flat_map(|before| &before.flows).map(|flow| (&flow.original, flow)).collect();
    let mut endpoints: Vec<Sum> = vec![Sum::default(); after.endpoints.len()];
    let places: HashMap<(Zone, Addr), usize> = after
        .endpoints
        .iter()
        .enumerate()
        .flat_map(|(number, endpoint)| endpoint.places.iter().map(move |place| (*place, number)))
        .collect();
    let mut mappings: HashMap<u32, Sum> = HashMap::new();
    let mut begun_in_all = 0;
    let mut flows = Vec::with_capacity(after.flows.len());
    let mut in_order: Vec<&Flow> = after.flows.iter().collect();
    in_order.sort_unstable_by_key(|flow| (flow.original.proto, flow.original));
    for flow in in_order {
        let (meanwhile, begun) = since(earlier.get(&flow.original).copied(), flow);
        begun_in_all += u64::from(begun);
        let [original, translated] = [&flow.original, &flow.translated];
        let opener = places.get(&(original.zone, original.src));
        let target = places.get(&(translated.zone, translated.dst));
        // One that an endpoint opens to itself through its published port is one of its flows all the same.
        for number in opener.into_iter().chain(target.filter(|target| opener != Some(target))) {
            endpoints[*number].add(meanwhile, begun);
        }
        if flow.mapping != 0 {
            mappings.entry(flow.mapping).or_default().add(meanwhile, begun);
        }
        flows.push(flow_row(flow, meanwhile, &after.names, after.now, per_second));
    }
    let traffic = |[sent, received]: [Traffic; 2]| {
        [sent.bytes * 8, sent.packets, received.bytes * 8, received.packets].map(per_second)
    };
    let earlier: HashMap<&str, Option<[Traffic; 2]>> = before
        .iter()
        .flat_map(|before| &before.endpoints)
        .map(|endpoint| (endpoint.name.as_str(), endpoint.traffic))
        .collect();
    let endpoint_rows = after.endpoints.iter().zip(&endpoints).map(|(endpoint, sum)| {
        let counted = endpoint.traffic.zip(earlier.get(endpoint.name.as_str()).copied().flatten());
        let rates =
            counted.and_then(|(after, before)| difference(before, after)).map_or([f64::NAN; 4], traffic);
        let addresses = words(endpoint.places.iter().map(|(_, addr)| std::net::IpAddr::from(*addr)));
        Row {
            words: vec![endpoint.name.clone(), endpoint.network.clone(), addresses],
            numbers: [&rates[..], &[per_second(sum.begun), sum.flows as f64]].concat(),
        }
    });
    let mapping_rows = after.mappings.iter().map(|mapping| {
        let Mapping { id, published, endpoint, target } = mapping;
        let sum = mappings.get(id).copied().unwrap_or_default();
        let rates = traffic([sum.sent, sum.received]);
        Row {
            words: vec![published.clone(), endpoint.clone(), target.clone()],
            numbers: [&rates[..], &[per_second(sum.begun), sum.flows as f64]].concat(),
        }
    });
    let earlier: HashMap<_, u64> = before
        .iter()
        .flat_map(|before| &before.drops)
        .map(|drop| ((&drop.interface, drop.hook, drop.reason), drop.packets))
        .collect();
    let mut dropped_in_all = 0;
    let mut drop_rows = Vec::with_capacity(after.drops.len());
    for drop in &after.drops {
        let earlier = earlier.get(&(&drop.interface, drop.hook, drop.reason)).copied().unwrap_or(0);
        let meanwhile = drop.packets.saturating_sub(earlier);
        dropped_in_all += meanwhile;
        drop_rows.push(Row {
            words: vec![drop.interface.clone(), drop.hook.to_owned(), drop.reason.to_owned()],
            numbers: vec![per_second(meanwhile), drop.packets as f64],
        });
    }
    Snapshot {
        seconds,
        flows: flows.len(),
        new_flows: per_second(begun_in_all),
        drops: per_second(dropped_in_all),
        tables: [
            Table { tab: Tab::Endpoints, rows: endpoint_rows.collect() },
            Table { tab: Tab::Mappings, rows: mapping_rows.collect() },
            Table { tab: Tab::Flows, rows: flows },
            Table { tab: Tab::Drops, rows: drop_rows },
        ],
    }
}

/// What a flow has sent and received since it was looked at before, and whether it has begun since.
fn since(before: Option<&Flow>, flow: &Flow) -> ([Traffic; 2], bool) {
    // Another flow may have had the same ends.
    let before = before.filter(|before| before.created == flow.created);
    let after = [flow.sent, flow.received];
    match before {
        Some(before) => (difference([before.sent, before.received], after).unwrap_or(after), false),
        None => (after, true),
    }
}

/// What was counted between two moments; nothing if it was counted anew from the beginning.
fn difference(before: [Traffic; 2], after: [Traffic; 2]) -> Option<[Traffic; 2]> {
    let difference = |before: Traffic, after: Traffic| {
        Some(Traffic {
            packets: after.packets.checked_sub(before.packets)?,
            bytes: after.bytes.checked_sub(before.bytes)?,
        })
    };
    Some([difference(before[0], after[0])?, difference(before[1], after[1])?])
}

fn flow_row(
    flow: &Flow,
    [sent, received]: [Traffic; 2],
    names: &Names,
    now: u32,
    per_second: impl Fn(u64) -> f64,
) -> Row {
    let Flow { original, translated, .. } = flow;
    let end = |zone: Zone, addr: Addr| {
        let network = names.networks.name(zone);
        match names.endpoint(zone, addr) {
            Some(endpoint) => format!("{network}/{endpoint}"),
            None => network,
        }
    };
    let side = |tuple: &Tuple| Side::new(tuple, &names.networks).to_string();
    let total = flow.sent.bytes + flow.received.bytes;
    let rates = [sent.bytes * 8, sent.packets, received.bytes * 8, received.packets].map(per_second);
    Row {
        words: vec![
            original.proto.to_string(),
            flow.state.name().to_owned(),
            end(original.zone, original.src),
            side(original),
            end(translated.zone, translated.dst),
            side(translated),
        ],
        numbers: [&rates[..], &[total as f64, f64::from(flow.age(now))]].concat(),
    }
}
