//! nftables as an oracle: two hosts that look the same, one with vnet and one with a ruleset that says the same, get the
//! same random packets from the same places, one after the other; the same must arrive.
//!
//! Not compared, because each host may choose for itself: source ports and identifiers on the far side of a translation
//! (each host must keep to what it chose), the identification and flow label of what a host sends itself, and what an ICMP
//! error quotes. Not sent, because the two rightly differ in more than a packet can tell:
//!
//! - Time: timeouts are no matter of correctness, and the run is over before any ends.
//! - Packets with a forged source from an endpoint: vnet knows each endpoint's addresses, a ruleset knows a prefix.
//! - Fragments and ICMP errors: they have tests of their own.
//! - A bare SYN against a closed connection, from the side that did not open it: connection tracking forgets the
//!   connection and takes it for a new one to the host.
//! - Answers after a RST, until the opener has spoken again: connection tracking may have forgotten the connection (it
//!   does so when nothing but a RST has come back), vnet keeps it for a while, since anybody can forge a RST (RFC 7857
//!   section 2.2).
//! - Published ports as sources of masquerade: the ruleset keeps every port it can, vnet's come from a range of their own.
//!
//! All that differs otherwise is a [`Difference`], or a failure.
//!
//! `VNET_SEED` chooses another sequence, `VNET_PACKETS` how many.

mod arrival;
mod talk;
mod twins;

use std::collections::BTreeMap;
use std::env;
use std::str::FromStr;
use std::time::Instant;

use vnet_tests::case::random::Chance;
use vnet_tests::report::report;

use arrival::Arrival;
use talk::{Conversation, Ends, GATEWAY, HOST, Kind, Packet, Place, Transport, draw, is_at};
use twins::{Twin, family_of, stay_on_one_processor};

const PACKETS: usize = 4_000;
const SEED: u64 = 20_240_229;
/// Conversations that are remembered.
const MEMORY: usize = 60;

/// What vnet does unlike the ruleset, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Connection tracking calls the packet invalid: flags that do not fit the state it is in, an echo reply that nobody
    /// asked for, a wrong sum. vnet keeps no sequence numbers and trusts no sum, so it judges by the tuple alone (RFC
    /// 7857 section 2), and the receiver is the one to refuse.
    Invalid,
    /// Somebody outside addresses an endpoint directly, with a hop limit that ends at the host: the stack answers before
    /// the ruleset says that the packet is to be dropped, vnet says nothing of what it keeps from the world.
    Direct,
    /// One external port for all that a UDP socket sends (RFC 4787 REQ-1), open to those that it has sent to from any of
    /// their ports (REQ-8). The ruleset has one for each destination, and takes anything else for the host's.
    EndpointIndependent,
    /// A neighbour's segment to a published port that opens no connection: the answer to a socket of the host may have
    /// the same port by chance, so that vnet leaves it to the host; connection tracking takes it for the middle of a
    /// connection and translates it.
    Midstream,
}

#[test]
fn vnet_does_what_a_ruleset_does() {
    let (seed, packets) = (chosen("VNET_SEED", SEED), chosen("VNET_PACKETS", PACKETS));
    stay_on_one_processor();
    let twins = [Twin::vnet(), Twin::ruleset()];
    let mut run = Run { twins, talk: Vec::new(), chance: Chance::new(seed), seed, counts: Counts::default() };
    let begun = Instant::now();
    for number in 0..packets {
        run.one_packet(number);
    }
    run.counts.print(packets, begun);
}

/// A number that the environment may choose.
fn chosen<T: FromStr>(name: &str, otherwise: T) -> T {
    let Ok(text) = env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name} is no number that will do: {text}"))
}

struct Run {
    twins: [Twin; 2],
    talk: Vec<Conversation>,
    chance: Chance,
    seed: u64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    /// Packets that went from one place to another, by their transport.
    translated: BTreeMap<&'static str, usize>,
    /// Packets that the host itself answered.
    answered: usize,
    /// Packets of which nothing came.
    silent: usize,
    conversations: usize,
    differences: BTreeMap<Difference, usize>,
}

impl Counts {
    fn note(&mut self, packet: &Packet, arrivals: &[Arrival]) {
        match arrivals.iter().any(|arrival| !arrival.answers(packet, 0)) {
            true => *self.translated.entry(name_of(packet.transport)).or_default() += 1,
            false if arrivals.is_empty() => self.silent += 1,
            false => self.answered += 1,
        }
    }

    fn print(&self, packets: usize, begun: Instant) {
        let Self { translated, answered, silent, conversations, differences } = self;
        report(format_args!(
            "{packets} packets through both hosts in {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
        report(format_args!(
            "  the same of both: {translated:?} translated, {answered} answered, {silent} silent"
        ));
        report(format_args!("  {conversations} conversations; different for a reason: {differences:?}"));
        let enough = packets / 50;
        assert!(translated.len() == 3 && translated.values().all(|count| *count > enough), "dull traffic");
        let different: usize = differences.values().sum();
        assert!(different < packets / 4, "an oracle that is told to be silent so often is none");
    }
}

const fn name_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Echo => "echo",
    }
}

impl Run {
    fn one_packet(&mut self, number: usize) {
        let packet = draw(&mut self.chance, &self.talk);
        // What frames are numbered with: never zero, and different for as long as the field allows.
        let mark = (number % 60_000) as u16 + 1;
        let mut arrivals =
            [0, 1].map(|twin| self.twins[twin].exchange(packet.place, &packet.frame(twin), mark));
        let known = self.conversation_of(&packet);
        let matched = self.same(&packet, known, &arrivals);
        match matched {
            Ok(()) => {
                self.counts.note(&packet, &arrivals[0]);
                self.remember(&packet, known, &arrivals);
            }
            Err(complaint) => {
                let [vnet, ruleset] = &mut arrivals;
                let Some(difference) = self.explain(&packet, known, (vnet, ruleset), mark) else {
                    self.fail(number, &packet, &arrivals, &complaint);
                };
                *self.counts.differences.entry(difference).or_default() += 1;
                // The two do not agree on it any more.
                if let Some(which) = known {
                    self.talk.swap_remove(which);
                }
            }
        }
    }

    /// The conversation that a packet belongs to, by its near ends or its kind.
    fn conversation_of(&self, packet: &Packet) -> Option<usize> {
        match packet.kind {
            Kind::Opener(which) | Kind::Answer(which) => Some(which),
            Kind::Fresh => self.talk.iter().position(|it| {
                it.transport == packet.transport && it.opener == packet.place && it.near == packet.ends[0]
            }),
            Kind::Stranger(_) => None,
        }
    }

    /// Whether the same arrives of both.
    fn same(
        &self,
        packet: &Packet,
        known: Option<usize>,
        arrivals: &[Vec<Arrival>; 2],
    ) -> Result<(), String> {
        let [vnet, ruleset] = arrivals;
        if vnet.len() != ruleset.len() {
            return Err("another number of packets".to_owned());
        }
        for (ours, theirs) in vnet.iter().zip(ruleset) {
            if (ours.place, &ours.rest) != (theirs.place, &theirs.rest) {
                return Err("another packet".to_owned());
            }
            if ours.answers(packet, 0) != theirs.answers(packet, 1) {
                return Err("an answer from somewhere else".to_owned());
            }
            if ours.answers(packet, 0) {
                continue;
            }
            for (twin, it) in [ours, theirs].into_iter().enumerate() {
                self.is_translated(packet, known, twin, it)?;
            }
            if (ours.ends.from.ip(), ours.ends.to.ip()) != (theirs.ends.from.ip(), theirs.ends.to.ip()) {
                return Err("other addresses".to_owned());
            }
            if packet.transport != Transport::Echo && ours.ends.to.port() != theirs.ends.to.port() {
                return Err("another port".to_owned());
            }
        }
        Ok(())
    }

    /// Whether a packet that has crossed the host is what its conversation makes of it; one of none is from nobody who
    /// hides behind the host, and to the place where it is.
    fn is_translated(
        &self,
        packet: &Packet,
        known: Option<usize>,
        twin: usize,
        arrival: &Arrival,
    ) -> Result<(), String> {
        let name = self.twins[twin].name;
        if !is_at(arrival.place, arrival.ends.to.ip()) {
            return Err(format!("{name}: it is for somebody else"));
        }
        if is_at(Place::Net1, arrival.ends.from.ip()) || is_at(Place::Net2, arrival.ends.from.ip()) {
            return Err(format!("{name}: an endpoint's own address"));
        }
        if arrival.rest.ttl != packet.ttl - 1 {
            return Err(format!("{name}: hops are counted wrong"));
        }
        if arrival.wrong.is_some() && !packet.has_wrong_sum() {
            return Err(format!("{name}: a wrong sum"));
        }
        let Some(conversation) = known.map(|which| &self.talk[which]) else {
            return self.belongs_to_nobody_else(packet, twin, &arrival.ends);
        };
        let expected = match packet.kind {
            Kind::Answer(_) => conversation.near.reversed(),
            // Begun anew, the ruleset may have chosen anew.
            _ if twin == 1 && (packet.opens() || conversation.reset) => return Ok(()),
            _ => conversation.far[twin],
        };
        if arrival.ends == expected { Ok(()) } else { Err(format!("{name}: expected {expected:?}")) }
    }

    /// Answers to two conversations must not be the same.
    fn belongs_to_nobody_else(&self, packet: &Packet, twin: usize, far: &Ends) -> Result<(), String> {
        let taken = self
            .talk
            .iter()
            .any(|it| it.transport == packet.transport && it.far[twin] == *far && !it.reset && !it.closed);
        if taken {
            Err(format!("{}: another conversation looks the same", self.twins[twin].name))
        } else {
            Ok(())
        }
    }

    fn remember(&mut self, packet: &Packet, known: Option<usize>, arrivals: &[Vec<Arrival>; 2]) {
        let crossed = |twin: usize| arrivals[twin].iter().find(|it| !it.answers(packet, twin));
        let (Some(ours), Some(theirs)) = (crossed(0), crossed(1)) else {
            // Connection tracking has taken note of it before the host found that it goes no further.
            if let Some(conversation) = known.map(|which| &mut self.talk[which]) {
                conversation.closed |= packet.closes() || packet.resets();
                conversation.reset |= packet.resets() || packet.opens();
            }
            return;
        };
        let far = [ours.ends, theirs.ends];
        let which = known.unwrap_or_else(|| {
            if self.talk.len() == MEMORY {
                let forgotten = self.chance.below(MEMORY);
                self.talk.swap_remove(forgotten);
            }
            self.counts.conversations += 1;
            self.talk.push(Conversation {
                transport: packet.transport,
                opener: packet.place,
                receiver: ours.place,
                near: packet.ends[0],
                far,
                closed: false,
                reset: false,
            });
            self.talk.len() - 1
        });
        let conversation = &mut self.talk[which];
        if !matches!(packet.kind, Kind::Answer(_)) {
            conversation.far = far;
            conversation.reset = false;
        }
        conversation.closed |= packet.closes() || packet.resets();
        conversation.reset |= packet.resets();
    }

    /// Which of the deliberate differences it is, if any.
    fn explain(
        &self,
        packet: &Packet,
        known: Option<usize>,
        (vnet, ruleset): (&[Arrival], &[Arrival]),
        mark: u16,
    ) -> Option<Difference> {
        let is_error = |it: &Arrival, kinds: [u8; 2]| it.rest.is_error && kinds.contains(&it.kind());
        // Time exceeded, and destination unreachable.
        let (exceeded, unreachable) = ([11, 3], [3, 1]);
        let answered = |kinds| matches!(ruleset, [it] if it.place == packet.place && is_error(it, kinds));
        let to = packet.ends[0].to.ip();
        let to_endpoint = is_at(Place::Net1, to) || is_at(Place::Net2, to);
        if packet.place == Place::Outside && to_endpoint && packet.ttl == 1 && vnet.is_empty() {
            return answered(exceeded).then_some(Difference::Direct);
        }
        if let Kind::Stranger(which) = packet.kind
            && packet.transport == Transport::Udp
        {
            let conversation = &self.talk[which];
            let has_been_sent_to = packet.ends[0].from.ip() == conversation.near.to.ip();
            let as_expected = match vnet {
                [it] if packet.ttl == 1 => it.answers(packet, 0) && is_error(it, exceeded),
                [it] => it.place == conversation.opener && it.ends.to == conversation.near.from,
                others => others.is_empty() && !has_been_sent_to,
            };
            let refused = answered(unreachable) || self.called_invalid(packet, mark);
            return (as_expected && refused).then_some(Difference::EndpointIndependent);
        }
        let of_host = HOST.contains(&to) || GATEWAY.contains(&to);
        if packet.place != Place::Outside && packet.transport == Transport::Tcp && of_host && !packet.opens()
        {
            let left_to_host = vnet.iter().all(|it| it.answers(packet, 0));
            let delivered = ruleset.iter().all(|it| !it.answers(packet, 1)) || answered(exceeded);
            if known.is_none() && left_to_host && delivered {
                return Some(Difference::Midstream);
            }
        }
        let sound = vnet.iter().all(|it| self.is_sound(packet, known, it));
        (sound && self.called_invalid(packet, mark)).then_some(Difference::Invalid)
    }

    /// Whether what vnet has made of a packet is right by itself.
    fn is_sound(&self, packet: &Packet, known: Option<usize>, arrival: &Arrival) -> bool {
        arrival.answers(packet, 0) || self.is_translated(packet, known, 0, arrival).is_ok()
    }

    fn called_invalid(&self, packet: &Packet, mark: u16) -> bool {
        self.twins[1].called_invalid(family_of(packet.ends[1].from.ip()), mark)
    }

    fn fail(&self, number: usize, packet: &Packet, arrivals: &[Vec<Arrival>; 2], complaint: &str) -> ! {
        let of = |twin: usize| {
            let Twin { name, .. } = &self.twins[twin];
            let frame = packet.frame(twin);
            format!("{name}: sent {frame}, ttl {}\n  {:#?}", packet.ttl, arrivals[twin])
        };
        let known = self.conversation_of(packet).map(|which| &self.talk[which]);
        panic!(
            "packet {number} with VNET_SEED={}: {complaint}\n{packet:?}\n{known:#?}\n{}\n{}",
            self.seed,
            of(0),
            of(1)
        )
    }
}
