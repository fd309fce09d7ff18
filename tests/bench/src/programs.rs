//! The eBPF programs by themselves: what one packet costs, without wire, route or socket.
//!
//! Each kind of packet is handed to its program thousands of times between two looks at the clock, written anew each
//! time, and of a new flow each time where that is what is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vnet_common::{DatapathConfig, DropReason, Hook, PrefixKey};
use vnet_datapath::model::Model;
use vnet_tests::case::world::{HOST_MAC, NET1, PEER_MAC, UPLINK, V4, at, world};
use vnet_tests::frame::Frame;
use vnet_tests::runner::{Kernel, Runner as _, Stage};

use crate::case::Effort;
use crate::ebpf::feeder::{End, Feed, Feeder, Flows};
use crate::ebpf::skb;
use crate::ebpf::timer::{Runs, Timed, in_turns};
use crate::generator::Sample;
use crate::results::{Quantity, Section, VNET};
use crate::run::Run;

/// The section.
pub(crate) const NAME: &str = "programs";
/// Kinds of packets.
pub(crate) const NOT_OURS: &str = "from_uplink, not ours";
pub(crate) const HOSTS_OWN: &str = "to_uplink, the host's own";
pub(crate) const OUT: &str = "from_endpoint, established";
pub(crate) const BACK: &str = "from_uplink, established";
pub(crate) const NEW_OUT: &str = "from_endpoint, new, masqueraded";
pub(crate) const NEW_IN: &str = "from_uplink, new, published";
const PASSED: &str = "xdp_uplink, passed";
const DENIED: &str = "xdp_uplink, denied";
const FLOOD: &str = "xdp_uplink, beyond its rate";

/// The port that is published in the world of the packet table.
const PUBLISHED: u16 = 8088;
/// Ports of clients, which masquerade may leave as they are.
const FIRST_PORT: u16 = 50_000;
const PORTS: u16 = 15_000;
/// The first of the addresses that masqueraded flows go to. From here on nobody lives in the packet table's world.
const FIRST_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Far from them.
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 200, 1);
/// How many flows may begin before the first begins again. Those that wait for an answer make room for each other.
const MANY: u32 = 30_000_000;

/// How much is run.
const fn runs(effort: Effort) -> Runs {
    match effort {
        Effort::Full => Runs { rounds: 40, packets: 5_000 },
        Effort::Quick => Runs { rounds: 10, packets: 1_000 },
    }
}

/// Measures every kind of packet.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    for _ in 0..run.plan.repetitions {
        let found = run.guarded(|| {
            Stage::run(|stage| {
                run.rig.stay()?;
                let mut all = kinds(&mut Kernel::tc(stage))?;
                let runs = runs(run.plan.effort);
                in_turns(&mut all, runs)?;
                let costs = all.iter().map(|it| (it.name, it.cost()));
                Ok(costs.chain(early(&mut Kernel::tc(stage), runs)).collect::<Vec<_>>())
            })
        });
        match found.and_then(|found| found) {
            Ok(found) => {
                for (what, cost) in found {
                    run.note(section, &Quantity::cost(what, "ns"), VNET, || Ok(Sample::plain(cost)));
                }
            }
            Err(error) => {
                run.note(section, &Quantity::cost("all", "ns"), VNET, || Err(error));
            }
        }
    }
}

/// The world of the packet table, in which one endpoint may begin as many flows as it likes.
pub(crate) fn boundless_world() -> Model {
    let mut model = world();
    let config = DatapathConfig::DEFAULT;
    // Not 0, which is no limit: limits are what has to be looked at.
    model.config.unanswered = 1 << 30;
    model.config.endpoint_flows = 1 << 30;
    model.config.tcp_established = config.tcp_established;
    model.config.tcp_opening = config.tcp_opening;
    model
}

/// Masqueraded flows of [`NET1`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masqueraded {
    /// Where the first of them goes.
    pub(crate) server: Ipv4Addr,
    /// How many.
    pub(crate) count: u32,
    /// How far the next is from the one before.
    pub(crate) step: u32,
}

impl Masqueraded {
    /// One of them.
    pub(crate) const FIRST: Self = Self { server: FIRST_SERVER, count: 1, step: 1 };
    /// Another.
    pub(crate) const SECOND: Self = Self { server: OTHER_SERVER, ..Self::FIRST };

    fn flows(self, address: End, port: End) -> Flows {
        let Self { server: first_address, count, step } = self;
        let (first_port, ports) = (FIRST_PORT, PORTS);
        Flows { address, port, first_address, first_port, ports, count, step }
    }

    /// Packets of the endpoint.
    pub(crate) fn out(self, kernel: &Kernel, packet: fn(Frame) -> Frame) -> Result<Feeder> {
        let frame = packet(Frame::tcp(at(NET1.addrs[0], FIRST_PORT), server()));
        let frame = frame.macs(NET1.mac, NET1.gateway_mac).build();
        let flows = Some(self.flows(End::Destination, End::Source));
        let feed = Feed { ifindex: NET1.ifindex, frame: &frame, flows };
        Feeder::new(feed, &kernel.classifier(Hook::FromEndpoint))
    }

    /// Their answers.
    pub(crate) fn back(self, kernel: &Kernel, packet: fn(Frame) -> Frame) -> Result<Feeder> {
        let frame = packet(Frame::tcp(server(), at(V4.host, FIRST_PORT)));
        let frame = frame.macs(PEER_MAC, HOST_MAC).build();
        let flows = Some(self.flows(End::Source, End::Destination));
        let feed = Feed { ifindex: UPLINK, frame: &frame, flows };
        Feeder::new(feed, &kernel.classifier(Hook::FromUplink))
    }

    /// Establishes them, some at a time: those that wait for an answer must not make room for each other. Tells what
    /// the three packets of one take, in nanoseconds.
    ///
    /// # Errors
    /// When one of the last packets goes astray.
    pub(crate) fn establish(self, kernel: &Kernel) -> Result<f64> {
        const AT_A_TIME: u32 = 10_000;
        let Self { count, step, .. } = self;
        let hands = [
            self.out(kernel, Frame::syn)?,
            self.back(kernel, |frame| frame.syn().ack())?,
            self.out(kernel, Frame::ack)?,
        ];
        let mut took = 0.0;
        for begun in (0..count).step_by(AT_A_TIME as usize) {
            let at = u32::try_from(u64::from(begun) * u64::from(step) % u64::from(count))?;
            let times = AT_A_TIME.min(count - begun);
            for hand in &hands {
                let ran = hand.run(at, times)?;
                ensure!(ran.verdict == skb::REDIRECT, "flow {begun} is not established: {}", ran.verdict);
                let each = f64::from(ran.nanoseconds) - f64::from(hand.run_nothing(at, times)?.nanoseconds);
                took += each * f64::from(times);
            }
        }
        Ok(took / f64::from(count))
    }
}

/// Where masqueraded flows go to first.
pub(crate) fn server() -> SocketAddr {
    at(IpAddr::V4(FIRST_SERVER), 80)
}

/// Fills the tables, and makes a feeder for every kind of packet.
///
/// # Errors
/// When one of them does not go where it should.
pub(crate) fn kinds(kernel: &mut Kernel) -> Result<Vec<Timed>> {
    kernel.fill(&boundless_world());
    let fixed = |hook: Hook, frame: Frame, verdict: i32, name: &'static str| {
        let frame = frame.macs(PEER_MAC, HOST_MAC).build();
        let feed = Feed { ifindex: UPLINK, frame: &frame, flows: None };
        let feeder = Feeder::new(feed, &kernel.classifier(hook)).with_context(|| format!("feed {name}"))?;
        anyhow::Ok(Timed::new(name, feeder, verdict))
    };
    let stranger = Frame::tcp(at(V4.www, 40_000), at(V4.host, 22)).ack();
    let own = Frame::tcp(at(V4.host, 40_000), at(V4.www, 80)).ack();
    let one = Masqueraded::FIRST;
    one.establish(kernel)?;
    let new = Masqueraded { count: MANY, ..Masqueraded::FIRST };
    let established = |feeder, name| Timed::new(name, feeder, skb::REDIRECT);
    Ok(vec![
        fixed(Hook::FromUplink, stranger, skb::PASS, NOT_OURS)?,
        fixed(Hook::ToUplink, own, skb::PASS, HOSTS_OWN)?,
        established(one.out(kernel, Frame::ack)?, OUT),
        established(one.back(kernel, Frame::ack)?, BACK),
        established(new.out(kernel, Frame::syn)?, NEW_OUT),
        established(new_to_published(kernel)?, NEW_IN),
    ])
}

/// What frames take that the XDP program of uplinks looks at, in nanoseconds: the least of many rounds. It leaves them as
/// they are, so nobody has to write them anew.
///
/// # Panics
/// When one of them does not go where it should.
pub(crate) fn early(kernel: &mut Kernel, runs: Runs) -> Vec<(&'static str, f64)> {
    /// Until when no new flow of a source passes: long after any run.
    const NEVER: u64 = 1 << 62;
    let [peer, denied, flooding] = [9, 8, 7].map(|last| IpAddr::from([198, 51, last, 1]));
    let bits = |addr: IpAddr| PrefixKey { prefix_len: 120, addr: addr.into() };
    let mut model = world();
    model.denied.insert(bits(denied), 120);
    model.config.flood_rate = u32::MAX;
    model.flood_sources.borrow_mut().insert(IpAddr::from([198, 51, 7, 0]).into(), NEVER);
    kernel.fill(&model);
    let frame = |from: IpAddr| Frame::tcp(at(from, 40_000), at(V4.host, PUBLISHED));
    let mut all = [
        (PASSED, frame(peer).ack().build(), None),
        (DENIED, frame(denied).syn().build(), Some(DropReason::Denied)),
        (FLOOD, frame(flooding).syn().build(), Some(DropReason::Flood)),
    ]
    .map(|(name, frame, dropped)| {
        assert_eq!(kernel.early(UPLINK, &frame).err(), dropped, "{name}");
        (name, frame, Duration::MAX)
    });
    for _ in 0..runs.rounds {
        for (_, frame, least) in &mut all {
            *least = kernel.time_early(UPLINK, frame, runs.packets).min(*least);
        }
    }
    all.iter().map(|(name, _, least)| (*name, least.as_nanos() as f64)).collect()
}

/// Clients outside that dial a published port, each from a port of its own.
fn new_to_published(kernel: &Kernel) -> Result<Feeder> {
    let client = at(IpAddr::V4(FIRST_SERVER), FIRST_PORT);
    let frame = Frame::tcp(client, at(V4.host, PUBLISHED)).syn().macs(PEER_MAC, HOST_MAC).build();
    let flows = Masqueraded { count: MANY, ..Masqueraded::FIRST }.flows(End::Source, End::Source);
    let feed = Feed { ifindex: UPLINK, frame: &frame, flows: Some(flows) };
    Feeder::new(feed, &kernel.classifier(Hook::FromUplink))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_is_established_and_every_kind_of_packet_goes_where_it_should() {
        Stage::run(|stage| {
            let mut kernel = Kernel::tc(stage);
            kernel.fill(&boundless_world());
            let model = Model::default();
            // More than the ports of one server.
            let some = Masqueraded { count: 20_000, step: 7_919, ..Masqueraded::FIRST };
            some.establish(&kernel).unwrap();
            kernel.learnt(&model);
            assert_eq!(model.conntrack.borrow().len(), 2 * 20_000, "both directions of each");
            let before = packets(&model);
            some.back(&kernel, Frame::ack).unwrap().run(0, 20_000).unwrap();
            kernel.learnt(&model);
            assert_eq!(packets(&model), before + 20_000, "each is one packet further");
            let each = model.conntrack.borrow().values().filter(|entry| entry.packets == 2).count();
            assert_eq!(each, 2 * 20_000, "two packets in each direction");
        });
    }

    fn packets(model: &Model) -> u64 {
        model.conntrack.borrow().values().map(|entry| entry.packets).sum()
    }

    #[test]
    fn new_flows_are_new_and_costs_are_told_apart() {
        Stage::run(|stage| {
            let mut kernel = Kernel::tc(stage);
            let mut all = kinds(&mut kernel).unwrap();
            in_turns(&mut all, Runs { rounds: 3, packets: 500 }).unwrap();
            let model = Model::default();
            kernel.learnt(&model);
            assert_eq!(model.conntrack.borrow().len(), 2, "one flow is established");
            assert_eq!(model.unconfirmed.borrow().len(), 2 * 2 * 4 * 500, "a new one for each packet");
            // The host's own packets cost less than a clock's tick.
            let told = all.iter().filter(|it| it.name != HOSTS_OWN).all(|it| it.cost() > 0.0);
            assert!(told, "{all:?}");
        });
    }
}
