//! What would become of a packet that is only described, and why.
//!
//! ```text
//! Described -- frame --> Buffer --- the very steps of the data path ---> verdict
//!                                    |  each noted (Noted, Overlay)        |
//!                                    v                                     v
//!              Live tables  <--read-- Overlay: what would be changed      facts, in the order taken
//! ```
//!
//! The packet logic is that of `vnet-datapath`, which knows nothing of being watched: it runs over `Overlay`, which
//! reads the live tables and keeps what would be written to itself. What is left to the host's stack is followed
//! through it as far as its routing says where it goes.

mod fact;
mod live;
mod overlay;
mod packet;
mod steps;

use std::net::IpAddr;

use bytemuck::Zeroable as _;
use etherparse::{NetSlice, SlicedPacket};
use vnet_common::{Addr, DropReason, EndpointValue, Hook, Mac, NetworkValue, Port, Proto, Tuple};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::early;
use vnet_datapath::local::{self, Socket};
use vnet_datapath::step;
use vnet_datapath::{
    NextHop, Parsed, Place, Route, RouteQuery, Scratch, Source, Tables as _, Verdict, answer, parse,
};

pub use fact::{Change, Fact, Kind, Target, Tracked};
pub use live::{Forwarding, Live};
pub use packet::{Described, FLAGS, NoPacket, names_of};

use overlay::Overlay;
use steps::Noted;

/// A frame that meets a program.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The program.
    pub hook: Hook,
    /// The interface it is attached to.
    pub ifindex: u32,
    /// The interface on which the host received it; matters to [`Hook::ToUplink`], [`Hook::ToBridge`]
    /// and [`Hook::ToNetwork`].
    pub arrived: u32,
    /// Payload in bytes of each segment of an aggregate, 0 for a plain packet.
    pub segment: u32,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// A stretch of a packet's way: what one program does with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    /// Who it is.
    pub met: Met,
    /// What was asked and decided, in order.
    pub facts: Vec<Fact>,
    /// What becomes of it there.
    pub verdict: Result<Verdict, DropReason>,
    /// Its bytes afterwards.
    pub frame: Vec<u8>,
    /// The ICMP error that is sent instead of it.
    pub answer: Option<Vec<u8>>,
    /// Where it goes on, if that is left to the host's stack.
    pub onward: Option<Onward>,
}

/// Whom a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// A program on an interface.
    Program(Hook, u32),
    /// The programs on the root cgroup, which see a socket dial.
    Dial,
}

/// What the host's stack does with a packet that is left to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// It is the host's own, or for many: a socket gets it, if one listens.
    Host,
    /// A bridge switches it.
    Bridge(u32),
    /// It is forwarded, if the host's firewall lets it.
    Forwarded(NextHop),
    /// It does not fit the way there, and is forwarded in fragments.
    Cut(NextHop),
    /// It does not fit the way there and may not be cut into fragments: its sender is told so.
    TooBig(NextHop),
    /// It is not forwarded: its hop limit has run out.
    HopLimit,
    /// It is not forwarded: there is no route, it is prohibited, or the host is no router there.
    Nowhere,
}

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Its way; there is one stretch at least.
    pub legs: Vec<Leg>,
    /// What it would leave behind.
    pub changes: Vec<Change>,
}

/// How a packet's way ends, as far as vnet and the host's routing can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An endpoint gets it, by this interface or bridge.
    Delivered(u32),
    /// It leaves the host.
    Forwarded(NextHop),
    /// The host gets it.
    Host,
    /// A bridge switches it.
    Bridge(u32),
    /// The host's stack answers that it is too big.
    TooBig,
    /// The host's stack answers that its hop limit has run out.
    HopLimit,
    /// The host's stack does not forward it.
    Nowhere,
    /// It waits for the first fragment of its datagram.
    Held,
    /// vnet has nothing to do with it.
    NotOurs,
    /// It is dropped.
    Dropped(DropReason),
}

impl Trace {
    /// How it ends.
    #[must_use]
    pub fn end(&self) -> End {
        let Some(leg) = self.legs.last() else { return End::NotOurs };
        match (leg.verdict, leg.onward) {
            (Err(reason), _) => End::Dropped(reason),
            (Ok(Verdict::Deliver(delivery)), _) => End::Delivered(delivery.ifindex),
            (Ok(Verdict::Forward(next_hop)), _) => End::Forwarded(next_hop),
            (Ok(Verdict::Hold | Verdict::Return), _) => End::Held,
            (Ok(Verdict::Pass | Verdict::Enter(_)), Some(Onward::Host)) => End::Host,
            (Ok(Verdict::Pass | Verdict::Enter(_)), Some(Onward::Bridge(ifindex)))
                if leg.met == Met::Dial =>
            {
                End::Delivered(ifindex)
            }
            (Ok(Verdict::Pass | Verdict::Enter(_)), Some(Onward::Bridge(ifindex))) => End::Bridge(ifindex),
            (
                Ok(Verdict::Pass | Verdict::Enter(_)),
                Some(Onward::Forwarded(next_hop) | Onward::Cut(next_hop)),
            ) => End::Forwarded(next_hop),
            (Ok(Verdict::Pass | Verdict::Enter(_)), Some(Onward::TooBig(_))) => End::TooBig,
            (Ok(Verdict::Pass | Verdict::Enter(_)), Some(Onward::HopLimit)) => End::HopLimit,
            (Ok(Verdict::Pass | Verdict::Enter(_)), Some(Onward::Nowhere)) => End::Nowhere,
            (Ok(Verdict::Pass | Verdict::Enter(_)), None) => self.end_of_pass(leg.met),
        }
    }

    /// The mappings that it has to do with, by number, each once.
    #[must_use]
    pub fn mappings(&self) -> Vec<u32> {
        let facts = self.legs.iter().flat_map(|leg| &leg.facts);
        let mapping = |fact: &Fact| match fact {
            Fact::Flow(Some(tracked)) => tracked.entry.mapping,
            Fact::Target(Some(target)) => target.mapping,
            Fact::Allowed { mapping, .. } | Fact::Began { mapping, .. } => *mapping,
            _ => 0,
        };
        let mut mappings: Vec<u32> = facts.map(mapping).filter(|id| *id != 0).collect();
        mappings.sort_unstable();
        mappings.dedup();
        mappings
    }

    /// Of a packet that passes the last of vnet's programs on its way.
    fn end_of_pass(&self, met: Met) -> End {
        let before = self.legs.iter().rev().nth(1).and_then(|leg| leg.onward);
        match (met, before) {
            (Met::Program(Hook::ToBridge | Hook::ToNetwork, ifindex), _) => End::Delivered(ifindex),
            (Met::Program(Hook::ToUplink, _), Some(Onward::Forwarded(next_hop) | Onward::Cut(next_hop))) => {
                End::Forwarded(next_hop)
            }
            _ => End::NotOurs,
        }
    }
}

/// Follows a frame that an endpoint sends or an uplink receives; with `early`, past the program that uplinks with XDP
/// have in front of all else.
///
/// # Errors
/// When a table or the kernel cannot be asked.
pub fn follow<L: Live>(live: &L, arrival: &Arrival, early: bool) -> Result<Trace, L::Error> {
    let overlay = Overlay::new(live);
    let mut legs = Vec::new();
    if early && arrival.hook == Hook::FromUplink {
        let leg = meet_early(&overlay, arrival)?;
        let dropped = leg.verdict.is_err();
        legs.push(leg);
        if dropped {
            return Ok(Trace { legs, changes: overlay.changes() });
        }
    }
    let mut leg = meet(&overlay, arrival)?;
    if matches!(leg.verdict, Ok(Verdict::Pass | Verdict::Enter(_))) {
        leg.onward = stack(&overlay, arrival, &leg)?;
    }
    let next = leg.onward.and_then(|onward| next_program(&overlay, arrival, &leg, onward));
    legs.push(leg);
    if let Some(next) = next {
        legs.push(meet(&overlay, &next)?);
    }
    // What was asked to see where it leads is no part of the way.
    let _ = overlay.facts()?;
    Ok(Trace { legs, changes: overlay.changes() })
}

/// One program and no more.
///
/// # Errors
/// When a table or the kernel cannot be asked.
pub fn once<L: Live>(live: &L, arrival: &Arrival) -> Result<Trace, L::Error> {
    let overlay = Overlay::new(live);
    let leg = meet(&overlay, arrival)?;
    Ok(Trace { legs: vec![leg], changes: overlay.changes() })
}

/// What becomes of a socket of the host that dials.
///
/// # Errors
/// When a table cannot be read.
pub fn dial<L: Live>(live: &L, described: &Described) -> Result<Trace, L::Error> {
    let overlay = Overlay::new(live);
    let socket = Socket {
        addr: Addr::from(described.destination.ip()),
        port: Port::new(described.destination.port()),
        proto: described.proto,
    };
    // Of others the kernel shows no program that they dial.
    let dials = [Proto::TCP, Proto::UDP].contains(&described.proto);
    let target = if dials { local::dial(&overlay, &socket) } else { None };
    overlay.note(Fact::Dialled(target));
    let facts = overlay.facts()?;
    let receiver = target.and_then(|(addr, _)| overlay.endpoint(&addr).copied());
    let own = Addr::from(described.destination.ip());
    let onward = match (target, receiver) {
        (Some(_), Some(receiver)) => Some(Onward::Bridge(receiver.bridge)),
        (Some(_), None) => Some(Onward::Nowhere),
        (None, _) if own.is_loopback() || overlay.is_local(&own) => Some(Onward::Host),
        // One that is asked for by the address it has: the bridge leads there, as to any neighbour of the host.
        (None, _) => overlay.network(&own).map(|network| Onward::Bridge(network.bridge)),
    };
    let dialled = target.map_or(own, |(addr, _)| addr);
    let somebody = overlay.endpoint(&dialled).is_some();
    let _ = overlay.facts()?;
    // What the host's stack then sends; the source may be of another family than what was dialled.
    let talks_to =
        target.map_or(described.destination, |(addr, port)| (IpAddr::from(addr), port.number()).into());
    let sent = Described { destination: talks_to, ..described.clone() };
    let frame = sent.frame(Mac::new([0; 6]), Mac::new([0; 6])).unwrap_or_default();
    let leg = |met, facts, onward| Leg {
        met,
        facts,
        verdict: Ok(Verdict::Pass),
        frame: frame.clone(),
        answer: None,
        onward,
    };
    let mut legs = vec![leg(Met::Dial, facts, onward)];
    if let Some(Onward::Bridge(bridge)) = onward {
        let hook = overlay.network(&dialled).map_or(Hook::ToBridge, hook_into);
        let _ = overlay.facts()?;
        let left = if somebody { None } else { onward };
        let mut last = leg(Met::Program(hook, bridge), vec![Fact::HostsOwn], left);
        if hook == Hook::ToNetwork && !somebody {
            last = Leg { verdict: Err(DropReason::NoSuchEndpoint), onward: None, ..last };
        }
        legs.push(last);
    }
    Ok(Trace { legs, changes: overlay.changes() })
}

/// A program of the data path.
fn meet<L: Live>(overlay: &Overlay<'_, L>, arrival: &Arrival) -> Result<Leg, L::Error> {
    let Arrival { hook, ifindex, arrived, segment, frame } = arrival;
    let mut scratch = Scratch::zeroed();
    scratch.place = Place { ifindex: *ifindex, arrived: *arrived, waited: 0 };
    overlay.hook_at(*ifindex);
    let mut packet = Buffer { segment: *segment, ..Buffer::plain(frame.clone()) };
    let verdict = step::run(&mut Noted::new(&mut packet, overlay, *hook), &mut scratch).verdict(&scratch);
    let mut answer = None;
    let mut frame = packet.bytes;
    match verdict {
        Ok(Verdict::Deliver(delivery)) if delivery.routed => {
            // As the program does for whom it hands the frame to.
            frame.splice(..12, [delivery.dst.bytes, delivery.src.bytes].concat());
        }
        Err(_) if scratch.answering.is_wanted() => {
            let mut packet = Buffer { segment: *segment, ..Buffer::plain(frame.clone()) };
            answer = answer::build(&mut packet, &scratch).map(|()| packet.bytes);
        }
        _ => {}
    }
    let met = Met::Program(*hook, *ifindex);
    Ok(Leg { met, facts: overlay.facts()?, verdict, frame, answer, onward: None })
}

/// The program that uplinks with XDP have.
fn meet_early<L: Live>(overlay: &Overlay<'_, L>, arrival: &Arrival) -> Result<Leg, L::Error> {
    let packet = Buffer::plain(arrival.frame.clone());
    overlay.hook_at(arrival.ifindex);
    let verdict = early::judge(&packet, overlay, &mut Tuple::zeroed()).map(|()| Verdict::Pass);
    let met = Met::Program(Hook::XdpUplink, arrival.ifindex);
    Ok(Leg { met, facts: overlay.facts()?, verdict, frame: packet.bytes, answer: None, onward: None })
}

/// What the host's stack does with what a program has let pass; nothing is known of what is no IP packet.
fn stack<L: Live>(
    overlay: &Overlay<'_, L>,
    arrival: &Arrival,
    leg: &Leg,
) -> Result<Option<Onward>, L::Error> {
    let mut tuple = Tuple::zeroed();
    let parsed = parse(&Buffer::plain(leg.frame.clone()), &mut bytemuck::Zeroable::zeroed(), &mut tuple);
    let Ok(Parsed::Ip(headers)) = parsed else { return Ok(None) };
    let sender = (arrival.hook == Hook::FromEndpoint).then(|| overlay.endpoint(&tuple.src)).flatten();
    let arrived = sender.map_or(arrival.ifindex, |sender| sender.bridge);
    let own = overlay.is_local(&tuple.dst);
    let onward = match sender {
        Some(sender) if tuple.dst.is_multicast_or_broadcast() && is_bridged(sender) => {
            Onward::Bridge(sender.bridge)
        }
        _ if own || tuple.dst.is_multicast_or_broadcast() || tuple.dst.is_loopback() => Onward::Host,
        Some(sender) if tuple.src.same_prefix(&tuple.dst, sender.prefix_len) && is_bridged(sender) => {
            Onward::Bridge(sender.bridge)
        }
        _ if headers.hop_limit <= 1 => Onward::HopLimit,
        _ => {
            let (source, forwarding) = (Source::Given, overlay.forwarding(headers.is_v4(), arrived));
            let bridge = if let Forwarding::AskedAs(other) = forwarding { other } else { arrived };
            let route = |length| match forwarding {
                Forwarding::Off => Route::Stack,
                _ => overlay.route(&RouteQuery { tuple: &tuple, length, bridge, source }),
            };
            match (route(headers.wire_length), route(1)) {
                (Route::Via(next_hop, _), _) => Onward::Forwarded(next_hop),
                (Route::Stack, Route::Via(next_hop, _)) if may_be_cut(&leg.frame) => Onward::Cut(next_hop),
                (Route::Stack, Route::Via(next_hop, _)) => Onward::TooBig(next_hop),
                (Route::Stack, Route::Stack) => Onward::Nowhere,
            }
        }
    };
    overlay.facts().map(|_| Some(onward))
}

/// Whether an endpoint is a port of a bridge.
const fn is_bridged(endpoint: &EndpointValue) -> bool {
    !endpoint.has(NetworkValue::FLAG_UNBRIDGED)
}

/// Whether routers may cut an IP packet into fragments.
fn may_be_cut(frame: &[u8]) -> bool {
    let headers = SlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.net);
    matches!(headers, Some(NetSlice::Ipv4(packet)) if !packet.header().dont_fragment())
}

/// The program that guards what the host sends or routes into a network.
const fn hook_into(network: &NetworkValue) -> Hook {
    if network.flags & NetworkValue::FLAG_UNBRIDGED == 0 { Hook::ToBridge } else { Hook::ToNetwork }
}

/// The program that a forwarded packet meets next.
fn next_program<L: Live>(
    overlay: &Overlay<'_, L>,
    arrival: &Arrival,
    leg: &Leg,
    onward: Onward,
) -> Option<Arrival> {
    let (Onward::Forwarded(NextHop { ifindex, .. }) | Onward::Cut(NextHop { ifindex, .. })) = onward else {
        return None;
    };
    let mut tuple = Tuple::zeroed();
    let _ = parse(&Buffer::plain(leg.frame.clone()), &mut bytemuck::Zeroable::zeroed(), &mut tuple);
    let arrived = match arrival.hook {
        Hook::FromEndpoint => overlay.endpoint(&tuple.src)?.bridge,
        _ => arrival.ifindex,
    };
    let hook = if overlay.uplink(ifindex).is_some() {
        Hook::ToUplink
    } else {
        hook_into(overlay.network(&tuple.dst).filter(|network| network.bridge == ifindex)?)
    };
    // Nobody has asked on the packet's behalf.
    let _ = overlay.facts();
    Some(Arrival { hook, ifindex, arrived, segment: arrival.segment, frame: leg.frame.clone() })
}
