//! What holds of the flow tables after every packet.

use std::collections::HashMap;

use vnet_common::{CtEntry, CtState, DatapathConfig, EndpointUse, MappingEntry, Origin, Proto, Tuple, Zone};
use vnet_datapath::conntrack::timeout;
use vnet_datapath::model::Model;

/// Seconds without a packet after which no flow of a protocol is left.
pub(crate) fn longest(config: &DatapathConfig, proto: Proto) -> u32 {
    let timeouts = CtState::ALL.map(|state| timeout(config, proto, state, 0));
    timeouts.into_iter().chain([timeout(config, proto, CtState::New, CtEntry::FLAG_BRIEF)]).max().unwrap_or(0)
}

/// # Panics
/// When something does not hold.
pub(crate) fn check(model: &Model) {
    let confirmed = model.conntrack.borrow();
    let mut flows = model.unconfirmed.borrow().clone();
    let unconfirmed = flows.len();
    flows.extend(confirmed.iter());
    assert_eq!(flows.len(), confirmed.len() + unconfirmed, "a flow is in both tables");
    assert!(confirmed.len() <= 2 * model.slot_count as usize, "{} confirmed halves", confirmed.len());
    for (tuple, entry) in &flows {
        check_pair(&flows, tuple, entry);
        assert_eq!(
            confirmed.contains_key(tuple),
            confirmed.contains_key(&entry.twin()),
            "one half of {tuple:?} is confirmed"
        );
    }
    check_use(model, &confirmed);
    check_mappings(&model.mappings.borrow());
}

/// Every entry has a twin that knows it, of the same flow: so a tuple belongs to one flow.
fn check_pair(flows: &HashMap<Tuple, CtEntry>, tuple: &Tuple, entry: &CtEntry) {
    let Some(twin) = flows.get(&entry.twin()) else {
        panic!("{tuple:?} => {:?} is alone", entry.translated);
    };
    assert_eq!(twin.twin(), *tuple);
    assert_ne!(twin.origin, entry.origin);
    let common = |entry: &CtEntry| (entry.created, entry.last_seen, entry.mapping, entry.state, entry.flags);
    assert_eq!(common(twin), common(entry), "the halves of {tuple:?}");
}

/// What an endpoint is charged for is what it has.
fn check_use(model: &Model, confirmed: &HashMap<Tuple, CtEntry>) {
    let opened = |(tuple, entry): &(&Tuple, &CtEntry)| {
        let by_endpoint = tuple.zone != Zone::WORLD && entry.origin == Origin::Opener as u8;
        by_endpoint.then(|| model.endpoints.get(&tuple.src).map(|endpoint| endpoint.ifindex)).flatten()
    };
    let mut counted: HashMap<u32, u32> = HashMap::new();
    for ifindex in confirmed.iter().filter_map(|flow| opened(&flow)) {
        *counted.entry(ifindex).or_default() += 1;
    }
    for (ifindex, used) in model.endpoint_use.borrow().iter() {
        let has = counted.get(ifindex).copied().unwrap_or(0);
        assert_eq!(used.flows, has, "confirmed flows of the endpoint at interface {ifindex}");
        let DatapathConfig { endpoint_flows, unanswered, .. } = model.config;
        let uncharged = used.credit == EndpointUse::NOTHING.credit;
        assert!(endpoint_flows == 0 || unanswered == 0 || uncharged || used.credit <= unanswered);
    }
}

/// An endpoint's port leads to an external one that leads back.
fn check_mappings(mappings: &HashMap<Tuple, MappingEntry>) {
    for (key, mapping) in mappings.iter().filter(|(key, _)| key.zone != Zone::WORLD) {
        let outside = mapping.translated.answer();
        let back = mappings.get(&outside).map(|outside| outside.translated.answer());
        assert_eq!(back, Some(*key), "{key:?} has the external port {outside:?}, which leads elsewhere");
    }
}
