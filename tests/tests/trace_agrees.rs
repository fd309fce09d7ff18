//! `vnet trace` against the programs that it speaks for: random packets over tables that live on, each first traced
//! over the pinned maps and the kernel's own routing, as the command does it, and then run by the kernel. Verdict, drop
//! reason, what the packet becomes and the flow that begins agree, but for what is drawn by chance; and a trace changes
//! nothing.
//!
//! `VNET_SEED` chooses another sequence of frames, `VNET_FRAMES` how many; a failure names the one that failed.

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use bytemuck::Zeroable as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use vnet::instance::Instance;
use vnet::kernel::Live;
use vnet::trace::{self, Fact, Trace};
use vnet_common::filtering::{ADDRESS, ADDRESS_AND_PORT, ENDPOINT_INDEPENDENT};
use vnet_common::mapping::{ENDPOINT_INDEPENDENT_TCP, ENDPOINT_INDEPENDENT_UDP};
use vnet_common::{
    Addr, CtEntry, DatapathConfig, DropKey, EndpointUse, FloatingValue, Hook, MappingEntry, MasqueradeValue,
    NetworkValue, Port, PortMapValue, PortRange, PrefixKey, Proto, Tuple, Zone,
};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::model::Model;
use vnet_datapath::{Verdict, parse};
use vnet_tests::case::random::{Chance, Packet, Traffic};
use vnet_tests::case::world::{FAMILIES, NET1, NET3, STRAY, published, world};
use vnet_tests::case::{Entry, drawn_identification, hex};
use vnet_tests::frame::describe;
use vnet_tests::report::report;
use vnet_tests::runner::{Arrival, Fate, Kernel, Outcome, Runner, Stage};

/// Frames to be compared, unless `VNET_FRAMES` says otherwise.
const FRAMES: usize = 40_000;
/// Frames for which one world lasts.
const WORLD_LASTS: usize = 2_000;
/// Frames of which one is traced with a look at all tables before and after.
const INTERVAL: usize = 50;

const SEED: u64 = 20_240_301;

/// A number that the environment may choose.
fn chosen<T: FromStr>(name: &str, otherwise: T) -> T {
    let Ok(text) = env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name} is no number that will do: {text}"))
}

#[test]
fn trace_says_what_the_programs_do() {
    on_stage(|kernel, live| {
        let hooks = &[
            Hook::FromEndpoint,
            Hook::FromEndpoint,
            Hook::FromUplink,
            Hook::FromUplink,
            Hook::ToUplink,
            Hook::ToBridge,
            Hook::ToNetwork,
        ];
        let seed = chosen("VNET_SEED", SEED);
        let traffic = Traffic::new(seed, hooks);
        Compared { kernel, live, traffic, seed, range: PortRange::zeroed(), counts: Counts::default() }.go();
    });
}

#[test]
fn trace_says_what_uplinks_with_xdp_drop() {
    on_stage(|mut kernel, live| {
        let (seed, frames) = (chosen("VNET_SEED", SEED), chosen("VNET_FRAMES", FRAMES));
        let mut traffic = Traffic::new(seed, &[Hook::FromUplink]);
        let (mut passed, mut dropped) = (0, HashMap::<&str, usize>::new());
        for number in 0..frames {
            if number.is_multiple_of(WORLD_LASTS) {
                let mut model = world();
                choose_limits(&mut model, traffic.chance());
                kernel.fill(&model);
            }
            let Packet { hook, ifindex, bytes, .. } = traffic.draw();
            // No frame is shorter than its link header.
            if hook != Hook::FromUplink || bytes.len() < 14 {
                continue;
            }
            let arrival = trace::Arrival { hook, ifindex, arrived: 0, segment: 0, frame: bytes.clone() };
            let traced = trace::follow(&live, &arrival, true);
            let traced = traced.unwrap_or_else(|e| panic!("trace: {:#}", anyhow::Error::from(e)));
            let early = &traced.legs[0];
            assert_eq!(early.met, trace::Met::Program(Hook::XdpUplink, ifindex));
            let done = kernel.early(ifindex, &bytes);
            assert_eq!(
                early.verdict.map(|_| ()),
                done,
                "frame {number} with VNET_SEED={seed}: {}\n{}\n{traced:#?}",
                describe(&bytes),
                hex(&bytes)
            );
            assert_eq!(
                traced.legs.len() == 1,
                done.is_err(),
                "what is dropped there goes no further: {traced:#?}"
            );
            match done {
                Ok(()) => passed += 1,
                Err(reason) => *dropped.entry(reason.name()).or_default() += 1,
            }
        }
        report(format_args!("{passed} packets passed by XDP, dropped: {dropped:?}, as traced"));
        let reasons = ["denied", "flood", "malformed"];
        assert!(passed > frames / 10 && reasons.iter().all(|it| dropped.contains_key(it)), "dull traffic");
    });
}

/// The deny list, and floods that go on for ever or never begin: of others it would depend on the nanosecond.
fn choose_limits(model: &mut Model, chance: &mut Chance) {
    const NO_END: u64 = u64::MAX / 4;
    const NO_LIMIT: u32 = 1_000_000_000;
    for family in FAMILIES {
        if chance.one_in(3) {
            model.denied.insert(PrefixKey::host(family.www.into()), 0);
        }
    }
    match chance.below(3) {
        0 => {
            model.config.flood_total = NO_LIMIT;
            model.flood_total.set(NO_END);
        }
        1 => {
            model.config.flood_rate = NO_LIMIT;
            // Of IPv4 a source is its /24.
            let all = FAMILIES.map(|family| Addr::from(family.peer).any_of_family());
            let of_peer = [Addr::v4([203, 0, 113, 0]), Addr::v4([198, 51, 100, 0])];
            model.flood_sources.borrow_mut().extend(all.into_iter().chain(of_peer).map(|it| (it, NO_END)));
        }
        _ => {}
    }
}

/// Runs something with the programs, and with what reads their tables as the command does.
fn on_stage(play: impl FnOnce(Kernel, Live<'_>) + Send) {
    Stage::run(|stage| {
        let mut kernel = Kernel::tc(stage);
        let (_pins, instance) = pinned(&mut kernel);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Within it netlink's sockets are polled.
        let _within = runtime.enter();
        let opened = runtime.block_on(vnet::kernel::Kernel::open(&instance)).expect("open the kernel");
        let live = runtime.block_on(opened.live());
        play(kernel, live.unwrap_or_else(|e| panic!("{:#}", anyhow::Error::from(e))));
    });
}

/// A BPF file system that only this thread sees.
struct Pins(tempfile::TempDir);

impl Drop for Pins {
    fn drop(&mut self) {
        // What is pinned goes with it; then the directory is an empty one.
        if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {error}", self.0.path().display());
        }
    }
}

/// The maps of a runner as those of an instance.
fn pinned(kernel: &mut Kernel) -> (Pins, Instance) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of its own");
    let directory = tempfile::tempdir().expect("a directory");
    mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), none)
        .expect("mount a BPF file system");
    let run: PathBuf = directory.path().join("run");
    let instance = Instance::below("traced", run, directory.path().to_owned()).expect("a name");
    let pins = Pins(directory);
    kernel.pin(&instance);
    (pins, instance)
}

/// The programs, and what is said of them.
struct Compared<'k> {
    kernel: Kernel,
    live: Live<'k>,
    traffic: Traffic,
    seed: u64,
    /// Ports that masquerade may draw.
    range: PortRange,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    compared: usize,
    refused: usize,
    uncertain: usize,
    unchanged: usize,
    passed: usize,
    forwarded: usize,
    delivered: usize,
    held: usize,
    dropped: HashMap<&'static str, usize>,
    answered: usize,
    began: usize,
    drawn: usize,
    followed: usize,
}

/// All that a packet could change.
#[derive(PartialEq)]
struct Tables {
    flows: HashMap<Tuple, Entry>,
    mappings: HashMap<Tuple, MappingEntry>,
    endpoint_use: HashMap<u32, EndpointUse>,
    drops: HashMap<DropKey, u64>,
}

impl Compared<'_> {
    fn go(mut self) {
        let (frames, begun) = (chosen("VNET_FRAMES", FRAMES), Instant::now());
        while self.counts.compared < frames {
            if self.counts.compared.is_multiple_of(WORLD_LASTS) {
                self.another_world();
            }
            self.time_passes();
            self.one_frame();
        }
        let dropped: usize = self.counts.dropped.values().sum();
        let Counts { compared, refused, uncertain, unchanged, passed, forwarded, delivered, held, .. } =
            self.counts;
        let Counts { answered, began, drawn, followed, .. } = self.counts;
        let seconds = begun.elapsed().as_secs_f64();
        report(format_args!("{compared} packets traced and run in {seconds:.1} s, no difference"));
        report(format_args!(
            "  {passed} passed, {forwarded} forwarded, {delivered} delivered, {held} held, {dropped} dropped for {} reasons, \
             {answered} of them answered",
            self.counts.dropped.len()
        ));
        report(format_args!(
            "  {began} flows began, {drawn} by a drawn port; {followed} packets of tracked flows"
        ));
        report(format_args!(
            "  {refused} refused by the test run, {uncertain} not compared: the second turned meanwhile"
        ));
        report(format_args!(
            "  {unchanged} traces with a look at all tables before and after: not an entry changed"
        ));
        let enough = compared / 60;
        let each = [passed, forwarded, delivered, dropped, began, followed];
        assert!(each.iter().all(|count| *count > enough) && drawn > 0 && answered > 0, "dull traffic");
        assert!(self.counts.dropped.len() >= 10 && unchanged > frames / INTERVAL / 4, "dull traffic");
    }

    /// Begins anew, with other rules.
    fn another_world(&mut self) {
        let mut model = world();
        choose_rules(&mut model, self.traffic.chance());
        self.range = model.config.nat_ports;
        self.kernel.fill(&model);
        self.traffic.forget();
    }

    /// Now and then a flow runs out of time, or loses a half.
    fn time_passes(&mut self) {
        let expires = self.traffic.chance().one_in(30);
        if !expires && !self.traffic.chance().one_in(60) {
            return;
        }
        let Some(tuple) = self.traffic.known() else { return };
        let Some(Entry { entry, confirmed }) = self.kernel.flows().get(&tuple).copied() else { return };
        let entry = expires.then_some(CtEntry { last_seen: 0, ..entry });
        self.kernel.change_flow(tuple, confirmed, entry);
    }

    fn tables(&mut self) -> Tables {
        Tables {
            flows: self.kernel.flows(),
            mappings: self.kernel.mappings(),
            endpoint_use: self.kernel.endpoint_use(),
            drops: self.kernel.drops(),
        }
    }

    fn one_frame(&mut self) {
        let packet = self.traffic.draw();
        let Packet { hook, ifindex, came_in_by, bytes } = &packet;
        // What the host itself sends is not looked at there.
        if matches!(hook, Hook::ToUplink | Hook::ToBridge) && *came_in_by == 0 {
            return;
        }
        let looks = self.traffic.chance().one_in(INTERVAL);
        let tables = looks.then(|| self.tables());
        let before = vnet::kernel::Kernel::now();
        let arrival = trace::Arrival {
            hook: *hook,
            ifindex: *ifindex,
            arrived: *came_in_by,
            segment: 0,
            frame: bytes.clone(),
        };
        let traced = trace::once(&self.live, &arrival);
        let traced = traced.unwrap_or_else(|e| panic!("trace: {:#}", anyhow::Error::from(e)));
        if let Some(tables) = tables {
            assert!(tables == self.tables(), "a trace has changed something: {}", describe(bytes));
            self.counts.unchanged += 1;
        }
        let arrival = Arrival {
            hook: *hook,
            ifindex: *ifindex,
            came_in_by: *came_in_by,
            waited: false,
            segment: 0,
            frame: bytes,
        };
        let Ok(outcome) = self.kernel.run(&arrival) else {
            self.counts.refused += 1;
            return;
        };
        for (tuple, translated) in &outcome.began {
            self.traffic.began(tuple, translated);
        }
        if vnet::kernel::Kernel::now() != before {
            self.counts.uncertain += 1;
            return;
        }
        if let Err(difference) = self.compare(bytes, &traced, &outcome) {
            let seed = self.seed;
            panic!(
                "frame {} with VNET_SEED={seed}: {difference}\n{} on interface {ifindex}, came in by {came_in_by}\n{}\n{}\n\
                 traced {traced:#?}\nrun {outcome:#?}",
                self.counts.compared,
                hook.name(),
                describe(bytes),
                hex(bytes)
            );
        }
    }

    /// Compares what was said with what was done.
    fn compare(&mut self, sent: &[u8], traced: &Trace, outcome: &Outcome) -> Result<(), &'static str> {
        let [leg] = &traced.legs[..] else { return Err("more than one program") };
        let fate = match leg.verdict {
            Ok(Verdict::Pass) => Fate::Passed,
            Ok(Verdict::Enter(_)) => Fate::Entered,
            Ok(Verdict::Forward(_)) => Fate::Forwarded,
            Ok(Verdict::Deliver(_)) => Fate::Delivered,
            Ok(Verdict::Hold) => Fate::Held,
            Ok(Verdict::Return) => Fate::Returned,
            Err(reason) => Fate::Dropped(reason),
        };
        if !fate.agrees_with(outcome.fate) {
            return Err("another verdict");
        }
        if leg.answer != outcome.answer {
            return Err("another answer");
        }
        let began: Vec<(Tuple, Tuple)> = leg.facts.iter().filter_map(began).collect();
        if began.len() != outcome.began.len() {
            return Err("another number of flows");
        }
        let mut drawn = false;
        for ((tuple, said), (opener, done)) in began.iter().zip(&outcome.began) {
            drawn |= said != done;
            if tuple != opener || !self.same_but_for_the_port(tuple, said, done) {
                return Err("another flow");
            }
        }
        // Whatever is drawn, all else is the same.
        let identified = drawn_identification((sent, &outcome.frame)).is_some();
        if !drawn && !identified && leg.frame != outcome.frame {
            return Err("other bytes");
        }
        let (said, done) = (tuple_of(&leg.frame), tuple_of(&outcome.frame));
        let same = if drawn {
            tuple_of(sent)
                .zip(said)
                .zip(done)
                .is_some_and(|((sent, said), done)| self.same_but_for_the_port(&sent, &said, &done))
        } else {
            said == done
        };
        if !same || leg.frame.len() != outcome.frame.len() {
            return Err("another tuple");
        }
        let counts = &mut self.counts;
        counts.compared += 1;
        counts.began += began.len();
        counts.drawn += usize::from(drawn);
        counts.answered += usize::from(leg.answer.is_some());
        counts.followed += usize::from(leg.facts.iter().any(|fact| matches!(fact, Fact::Flow(Some(_)))));
        match fate {
            Fate::Passed => counts.passed += 1,
            Fate::Entered | Fate::Forwarded | Fate::Redirected => counts.forwarded += 1,
            Fate::Delivered => counts.delivered += 1,
            Fate::Held | Fate::Returned => counts.held += 1,
            Fate::Dropped(reason) => *counts.dropped.entry(reason.name()).or_default() += 1,
        }
        Ok(())
    }

    /// Whether two tuples are the same, but for a source port that both have drawn; of a ping its identifier.
    fn same_but_for_the_port(&self, sent: &Tuple, said: &Tuple, done: &Tuple) -> bool {
        let echo = [Proto::ICMP, Proto::ICMPV6].contains(&sent.proto);
        let was_drawn = |tuple: &Tuple| {
            let port = tuple.sport.number();
            tuple.sport != sent.sport && (self.range.first..=self.range.last).contains(&port)
        };
        let blank = |tuple: &Tuple| Tuple {
            sport: sent.sport,
            dport: if echo { sent.dport } else { tuple.dport },
            ..*tuple
        };
        said == done || (was_drawn(said) && was_drawn(done) && blank(said) == blank(done))
    }
}

fn began(fact: &Fact) -> Option<(Tuple, Tuple)> {
    match fact {
        Fact::Began { tuple, translated, .. } => Some((*tuple, *translated)),
        _ => None,
    }
}

/// The tuple of a frame, as far as it has one.
fn tuple_of(frame: &[u8]) -> Option<Tuple> {
    let mut tuple = Tuple::zeroed();
    let parsed = parse(&Buffer::plain(frame.to_vec()), &mut bytemuck::Zeroable::zeroed(), &mut tuple);
    parsed.ok().map(|_| tuple)
}

/// What commands may have set.
fn choose_rules(model: &mut Model, chance: &mut Chance) {
    let flags = [
        NetworkValue::FLAG_ISOLATED,
        NetworkValue::FLAG_INTERNAL,
        NetworkValue::FLAG_UNPROTECTED,
        NetworkValue::FLAG_ROUTED,
        NetworkValue::FLAG_UNBRIDGED,
    ];
    for flag in flags {
        let zone = chance.pick(&[NET1.zone, NET3.zone]);
        if chance.one_in(5) {
            model.endpoints.values_mut().filter(|it| it.zone == zone).for_each(|it| it.flags |= flag);
            model.networks.values_mut().filter(|it| it.zone == zone).for_each(|it| it.flags |= flag);
        }
    }
    let filtering = chance.pick(&[ADDRESS_AND_PORT, ADDRESS, ENDPOINT_INDEPENDENT]);
    let both = ENDPOINT_INDEPENDENT_UDP | ENDPOINT_INDEPENDENT_TCP;
    let mapping = chance.pick(&[0, ENDPOINT_INDEPENDENT_UDP, both]);
    for endpoint in model.endpoints.values_mut() {
        (endpoint.mapping, endpoint.filtering) = (mapping, filtering);
    }
    if chance.one_in(4) {
        (model.config.unanswered, model.config.endpoint_flows) = (20, 5);
    }
    if chance.one_in(2) {
        (model.config.hold, model.config.held_fragments) = (STRAY, chance.pick(&[1_000, 3]));
    }
    if chance.one_in(6) {
        model.config.nat_ports = PortRange { first: 49_200, last: 49_200 };
    }
    if chance.one_in(6) {
        model.masquerade.retain(|key, _| key.addr.is_v4());
    }
    if chance.one_in(4) {
        model.config.flags |= DatapathConfig::FLAG_RESPECT_FIREWALL;
    }
    for family in FAMILIES {
        let own = PrefixKey::host(family.net1.into());
        match chance.below(5) {
            0 => {
                let to = FloatingValue { addr: family.net1.into(), zone: NET1.zone, reserved: [0; 2] };
                model.floating.insert(family.gateway.into(), to);
                let flags = MasqueradeValue::FLAG_ONE_TO_ONE;
                model.masquerade.insert(own, MasqueradeValue { to: family.gateway.into(), flags });
            }
            1 => drop(model.unmasqueraded.insert(PrefixKey::host(family.www.into()), 0)),
            2 => {
                let flags = MasqueradeValue::FLAG_EXEMPT;
                model.masquerade.insert(own, MasqueradeValue { to: family.host.into(), flags });
            }
            _ => {}
        }
        // A program of the host that listens, and one that has a port of masquerade.
        for (proto, port) in [(Proto::TCP, published::WEB.port), (Proto::UDP, 49_200)] {
            if chance.one_in(3) {
                let (src, dst) = (family.www.into(), family.host.into());
                let (sport, dport) = (Port::new(80), Port::new(port));
                let zone = Zone::WORLD;
                model.host_sockets.insert(Tuple { src, dst, sport, dport, zone, proto, reserved: 0 });
            }
        }
        if chance.one_in(3) {
            let (key, mut value) = published::WEB.entry(&family);
            value.flags |= PortMapValue::FLAG_RESTRICTED;
            model.port_map.insert(key, value);
            model.allow_from.insert((value.id, PrefixKey::host(family.www.into())), 0);
        }
    }
}
