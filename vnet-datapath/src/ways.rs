//! Where a packet can go, as long as it is still original: to the world by the host's routes, or into an endpoint.

use vnet_common::{Addr, CtState, DatapathConfig, DropReason, EndpointValue, Origin, Tuple, Zone};

use crate::parse::Headers;
use crate::tables::{Route, RouteQuery, Source, Tables};
use crate::verdict::{Delivery, Verdict};

/// The way to the world, `None` if the packet is one for the stack: it looks at options, answers an expired hop limit
/// or what does not fit, and says what is unreachable.
///
/// The destination of a packet to the world is never translated, so that of the packet is the one to route.
#[inline(always)]
pub(crate) fn route<T: Tables>(tables: &T, headers: &Headers, query: RouteQuery<'_>) -> Option<Route> {
    if headers.has_options() || headers.hop_limit <= 1 {
        return None;
    }
    Some(tables.route(&query))
}

/// Into the endpoint with this address, if the packet may go on.
#[inline(always)]
pub(crate) fn deliver<T: Tables>(tables: &T, headers: &Headers, to: &Addr) -> Result<Verdict, DropReason> {
    let receiver = tables.endpoint(to).ok_or(DropReason::NoSuchEndpoint)?;
    if headers.hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    if headers.wire_length > receiver.mtu {
        return Err(DropReason::TooBig);
    }
    let (ifindex, dst, src) = (receiver.ifindex, receiver.mac, receiver.gateway_mac);
    let queued = receiver.has(EndpointValue::FLAG_QUEUED);
    Ok(Verdict::Deliver(Delivery { ifindex, dst, src, routed: true, queued }))
}

/// A question about the way of a packet.
#[inline(always)]
pub(crate) fn query<'a>(headers: &Headers, tuple: &'a Tuple, bridge: u32, source: Source) -> RouteQuery<'a> {
    RouteQuery { tuple, length: headers.wire_length, bridge, source }
}

/// Where the host's firewall is to be respected, the first packets of what the world opens go through its stack. It has
/// not seen what an endpoint opens, and would take the first answer for something new.
#[inline(always)]
pub(crate) fn respect<T: Tables>(
    tables: &T,
    tuple: &Tuple,
    (origin, state): (Origin, CtState),
    verdict: Verdict,
) -> Verdict {
    if tuple.zone != Zone::WORLD || state != CtState::New || origin == Origin::Answer {
        return verdict;
    }
    match tables.config() {
        Some(config) if config.flags & DatapathConfig::FLAG_RESPECT_FIREWALL != 0 => Verdict::Pass,
        _ => verdict,
    }
}
