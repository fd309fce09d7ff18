//! Which flows are asked for.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::{Addr, CtState, Proto, Zone};

use super::Flow;

/// What flows must be like. All that is asked must hold; nothing asked is every flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Opened by an endpoint with one of these addresses, or led to it.
    pub endpoint: Option<HashSet<(Zone, Addr)>>,
    /// Of this protocol.
    pub proto: Option<Proto>,
    /// In one of these states, if there are any.
    pub states: Vec<CtState>,
    /// With this port, or identifier of a query, at either end of either side.
    pub port: Option<u16>,
    /// With an address of this prefix at either end of either side.
    pub address: Option<IpNet>,
    /// Opened by a port mapping.
    pub mapping: Option<OfMapping>,
    /// Confirmed, or not.
    pub confirmed: Option<bool>,
}

/// Which port mapping has opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfMapping {
    /// Any.
    Any,
    /// The one of this published port.
    Port(u16),
}

impl Filter {
    /// Whether every flow is asked for.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a flow is asked for.
    #[must_use]
    pub fn selects(&self, flow: &Flow) -> bool {
        let Self { endpoint, proto, states, port, address, mapping, confirmed } = self;
        let (original, translated) = (&flow.original, &flow.translated);
        let tuples = [original, translated];
        let of_endpoint = |own: &HashSet<(Zone, Addr)>| {
            own.contains(&(original.zone, original.src)) || own.contains(&(translated.zone, translated.dst))
        };
        let has_port = |port: u16| {
            tuples.iter().any(|tuple| tuple.sport.number() == port || tuple.dport.number() == port)
        };
        let has_address = |net: &IpNet| {
            let inside = |addr: Addr| net.contains(&IpAddr::from(addr));
            tuples.iter().any(|tuple| inside(tuple.src) || inside(tuple.dst))
        };
        endpoint.as_ref().is_none_or(of_endpoint)
            && proto.is_none_or(|proto| original.proto == proto)
            && (states.is_empty() || states.contains(&flow.state))
            && port.is_none_or(has_port)
            && address.as_ref().is_none_or(has_address)
            && mapping.is_none_or(|mapping| mapping.has_opened(flow))
            && confirmed.is_none_or(|confirmed| flow.confirmed == confirmed)
    }
}

impl OfMapping {
    fn has_opened(self, flow: &Flow) -> bool {
        let port = match self {
            Self::Any => None,
            Self::Port(port) => Some(port),
        };
        // Whoever comes through a published port has asked for that port.
        flow.mapping != 0 && port.is_none_or(|port| flow.original.dport.number() == port)
    }
}
