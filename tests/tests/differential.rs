//! Random traffic through the kernel's runners and the host's, side by side: verdict, bytes, drop reason and flow
//! that begins agree for every frame, and the flow tables, which live on from frame to frame, agree to the last
//! count.
//!
//! `VNET_SEED` chooses another sequence of frames, `VNET_FRAMES` how many; a failure names the one that failed.

use std::env;
use std::str::FromStr;
use std::time::Instant;

use vnet_common::filtering::{ADDRESS, ADDRESS_AND_PORT, ENDPOINT_INDEPENDENT};
use vnet_common::mapping::{ENDPOINT_INDEPENDENT_TCP, ENDPOINT_INDEPENDENT_UDP};
use vnet_common::{
    CtEntry, DatapathConfig, FloatingValue, Hook, MasqueradeValue, NetworkValue, PortMapValue, PortRange,
    PrefixKey, Tuple,
};
use vnet_datapath::model::Model;
use vnet_tests::case::random::{Chance, Packet, Traffic};
use vnet_tests::case::world::{FAMILIES, NET1, NET3, STRAY, published, world};
use vnet_tests::case::{Entry, describe_flow, drawn_identification, hex, is_later_fragment};
use vnet_tests::frame::describe;
use vnet_tests::report::report;
use vnet_tests::runner::{Arrival, Fate, Host, Kernel, Outcome, Runner, Stage, Way};

/// Frames to be compared, each way, unless `VNET_FRAMES` says otherwise.
const FRAMES: usize = 60_000;
/// Frames for which one world lasts.
const WORLD_LASTS: usize = 5_000;
/// Frames between two comparisons of the flow tables.
const INTERVAL: usize = 500;

const SEED: u64 = 20_240_229;

#[test]
fn tc_does_what_the_host_does() {
    let hooks = &[
        Hook::FromEndpoint,
        Hook::FromEndpoint,
        Hook::FromUplink,
        Hook::FromUplink,
        Hook::ToUplink,
        Hook::ToBridge,
        Hook::ToNetwork,
    ];
    Stage::run(|stage| compare(Kernel::tc(stage), hooks));
}

#[test]
fn xdp_does_what_the_host_does() {
    Stage::run(|stage| compare(Kernel::xdp(stage), &[Hook::FromEndpoint, Hook::FromUplink]));
}

/// A number that the environment may choose.
fn chosen<T: FromStr>(name: &str, otherwise: T) -> T {
    let Ok(text) = env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name} is no number that will do: {text}"))
}

/// Runs traffic through a kernel's runner and the host's until enough has been compared.
fn compare(kernel: Kernel, hooks: &'static [Hook]) {
    let (seed, frames) = (chosen("VNET_SEED", SEED), chosen("VNET_FRAMES", FRAMES));
    let mut pair = Pair {
        kernel,
        host: Host::default(),
        traffic: Traffic::new(seed, hooks),
        seed,
        counts: Counts::default(),
    };
    let begun = Instant::now();
    while pair.counts.compared < frames {
        let number = pair.counts.compared;
        if number.is_multiple_of(WORLD_LASTS) {
            pair.compare_tables();
            pair.another_world();
        } else if number.is_multiple_of(INTERVAL) {
            pair.compare_tables();
        }
        pair.time_passes();
        pair.one_frame();
    }
    pair.compare_tables();
    pair.counts.print(pair.kernel.way(), begun);
}

/// A kernel's runner and the host's, with the same tables.
struct Pair {
    kernel: Kernel,
    host: Host,
    traffic: Traffic,
    seed: u64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    compared: usize,
    refused: usize,
    uncertain: usize,
    passed: usize,
    forwarded: usize,
    delivered: usize,
    dropped: usize,
    answered: usize,
    held: usize,
    began: usize,
    drawn: usize,
    numbered: usize,
    followed: usize,
}

impl Counts {
    fn note(&mut self, outcome: &Outcome) {
        self.compared += 1;
        self.began += outcome.began.len();
        self.answered += usize::from(outcome.answer.is_some());
        *match outcome.fate {
            Fate::Passed => &mut self.passed,
            Fate::Entered | Fate::Forwarded | Fate::Redirected => &mut self.forwarded,
            Fate::Held | Fate::Returned => &mut self.held,
            Fate::Delivered => &mut self.delivered,
            Fate::Dropped(_) => &mut self.dropped,
        } += 1;
    }

    fn print(&self, way: Way, begun: Instant) {
        let Self {
            compared,
            refused,
            uncertain,
            passed,
            forwarded,
            delivered,
            dropped,
            answered,
            began,
            drawn,
            numbered,
            followed,
            held,
        } = self;
        report(format_args!(
            "{way:?}: {compared} frames compared in {:.1} s, no difference",
            begun.elapsed().as_secs_f64()
        ));
        report(format_args!(
            "  {passed} passed, {forwarded} forwarded, {delivered} delivered, {dropped} dropped, {answered} of them answered, \
             {held} held"
        ));
        report(format_args!("  {began} flows began, {drawn} of them from a drawn port"));
        report(format_args!(
            "  {refused} more frames refused by the test run: they end before their network header"
        ));
        report(format_args!("  {uncertain} more not compared: the second turned while the program ran"));
        report(format_args!(
            "  {numbered} datagrams got another identification, {followed} later fragments went where their first had"
        ));
        assert!([numbered, followed].iter().all(|count| **count > compared / 1000), "dull traffic");
        // Of what may wait there is only so much in a second, however many frames that has.
        assert!(*held >= 20, "dull traffic");
        let enough = compared / 50;
        assert!(
            [passed, forwarded, delivered, dropped, began].iter().all(|count| **count > enough),
            "dull traffic"
        );
    }
}

impl Pair {
    /// Begins anew, with other rules.
    fn another_world(&mut self) {
        let mut model = world();
        let chance = self.traffic.chance();
        for flag in [NetworkValue::FLAG_ISOLATED, NetworkValue::FLAG_INTERNAL] {
            let zone = chance.pick(&[NET1.zone, NET3.zone]);
            if chance.one_in(4) {
                model
                    .endpoints
                    .values_mut()
                    .filter(|endpoint| endpoint.zone == zone)
                    .for_each(|e| e.flags |= flag);
            }
        }
        // To XDP programs, which only stand for the others here, there is no difference between both ways on.
        if self.kernel.way() == Way::Tc && chance.one_in(4) {
            let zone = chance.pick(&[NET1.zone, NET3.zone]);
            let its_own = model.endpoints.values_mut().filter(|endpoint| endpoint.zone == zone);
            its_own.for_each(|endpoint| endpoint.flags |= NetworkValue::FLAG_UNBRIDGED);
        }
        let filtering = chance.pick(&[ADDRESS_AND_PORT, ADDRESS, ENDPOINT_INDEPENDENT]);
        let mapping =
            chance.pick(&[0, ENDPOINT_INDEPENDENT_UDP, ENDPOINT_INDEPENDENT_UDP | ENDPOINT_INDEPENDENT_TCP]);
        for endpoint in model.endpoints.values_mut() {
            (endpoint.mapping, endpoint.filtering) = (mapping, filtering);
        }
        if chance.one_in(8) {
            (model.config.unanswered, model.config.endpoint_flows) = (20, 5);
        }
        if chance.one_in(2) {
            model.config.hold = STRAY;
            model.config.held_fragments = chance.pick(&[1_000, 3]);
        }
        if chance.one_in(4) {
            // One port is easily taken, and the draw no matter of chance.
            model.config.nat_ports = PortRange { first: 49_200, last: 49_200 };
        }
        if chance.one_in(4) {
            model.masquerade.retain(|key, _| key.addr.is_v4());
        }
        choose_modes(&mut model, chance);
        self.kernel.fill(&model);
        self.host.fill(&model);
        self.traffic.forget();
    }

    /// Now and then a flow runs out of time, or loses a half.
    fn time_passes(&mut self) {
        let expires = self.traffic.chance().one_in(40);
        if !expires && !self.traffic.chance().one_in(80) {
            return;
        }
        let Some(tuple) = self.traffic.known() else { return };
        let model = self.host.model();
        let confirmed = model.conntrack.borrow().contains_key(&tuple);
        let mut flows = if confirmed { &model.conntrack } else { &model.unconfirmed }.borrow_mut();
        let Some(entry) = flows.get(&tuple).copied() else { return };
        if expires {
            let entry = CtEntry { last_seen: 0, ..entry };
            flows.insert(tuple, entry);
            self.kernel.change_flow(tuple, confirmed, Some(entry));
        } else {
            flows.remove(&tuple);
            self.kernel.change_flow(tuple, confirmed, None);
        }
    }

    fn one_frame(&mut self) {
        let packet = self.traffic.draw();
        let Packet { hook, ifindex, came_in_by, bytes } = &packet;
        let arrival = Arrival {
            hook: *hook,
            ifindex: *ifindex,
            came_in_by: *came_in_by,
            waited: false,
            segment: 0,
            frame: bytes,
        };
        let before = vnet::kernel::Kernel::now();
        let Ok(kernel) = self.kernel.run(&arrival) else {
            self.counts.refused += 1;
            return;
        };
        if vnet::kernel::Kernel::now() != before {
            // Which of the two seconds the program saw is not known: the host takes over what came of it.
            self.counts.uncertain += 1;
            self.host.take_over(&mut self.kernel);
            return;
        }
        self.host.model().clock = before;
        self.tell_what_was_drawn(bytes, &kernel);
        let Ok(host) = self.host.run(&arrival) else { unreachable!("the host runs anything") };
        // XDP programs send none.
        let answers_differ = self.kernel.way() == Way::Tc && host.answer != kernel.answer;
        if !host.fate.agrees_with(kernel.fate)
            || host.frame != kernel.frame
            || host.began != kernel.began
            || answers_differ
        {
            self.fail(&packet, &format!("host\n{}\n{:?}\n{}", show(&host), self.kernel.way(), show(&kernel)));
        }
        self.counts.note(&host);
        self.counts.followed += usize::from(is_later_fragment(bytes) && host.frame != *bytes);
        for (tuple, translated) in &host.began {
            self.traffic.began(tuple, translated);
        }
    }

    /// The kernel draws source ports and identifications by chance: the host is told which, and must come to the same
    /// if it draws.
    fn tell_what_was_drawn(&mut self, sent: &[u8], kernel: &Outcome) {
        if let Some(id) = drawn_identification((sent, &kernel.frame)) {
            self.host.numbers(id);
            self.counts.numbered += 1;
        }
        let range = self.host.model().config.nat_ports;
        if let Some((tuple, translated)) = kernel.began.first()
            && (range.first..=range.last).contains(&translated.sport.number())
        {
            self.host.draws(translated.sport.number());
            self.counts.drawn += usize::from(tuple.sport != translated.sport);
        }
    }

    fn compare_tables(&mut self) {
        let lines = self.differences_of_tables();
        let (compared, seed) = (self.counts.compared, self.seed);
        assert!(
            lines.is_empty(),
            "after {compared} frames with VNET_SEED={seed} the flow tables differ:\n{}",
            lines.join("\n")
        );
        assert_eq!(self.kernel.drops(), self.host.drops(), "drop counters with VNET_SEED={seed}");
    }

    /// Entries that the kernel and the host have not alike.
    fn differences_of_tables(&mut self) -> Vec<String> {
        let (kernel, host) = (self.kernel.flows(), self.host.flows());
        let line =
            |from: &str, tuple: &Tuple, entry: &Entry| format!("{from}: {}", describe_flow(tuple, entry));
        let mut lines: Vec<String> = Vec::new();
        lines
            .extend(kernel.iter().filter(|(t, e)| host.get(t) != Some(e)).map(|(t, e)| line("kernel", t, e)));
        lines.extend(host.iter().filter(|(t, e)| kernel.get(t) != Some(e)).map(|(t, e)| line("host", t, e)));
        lines.sort_by_key(|line| line.split_once(' ').map(|(_, flow)| flow.to_owned()));
        lines
    }

    fn fail(&mut self, packet: &Packet, how: &str) -> ! {
        let tables = self.differences_of_tables().join("\n");
        let Packet { hook, ifindex, came_in_by, bytes } = packet;
        panic!(
            "frame {} with VNET_SEED={}\n{} on interface {ifindex}, came in by {came_in_by}\n{}\n{}\n{how}\nthe flow tables differ now:\n{tables}",
            self.counts.compared,
            self.seed,
            hook.name(),
            describe(bytes),
            hex(bytes)
        )
    }
}

/// What commands may have set beyond that: gateway modes, floating addresses, destinations left out, clients of a
/// restricted mapping, and the host's firewall.
fn choose_modes(model: &mut Model, chance: &mut Chance) {
    for zone in [NET1.zone, NET3.zone] {
        let flag = chance.pick(&[0, 0, NetworkValue::FLAG_UNPROTECTED, NetworkValue::FLAG_ROUTED]);
        model.endpoints.values_mut().filter(|endpoint| endpoint.zone == zone).for_each(|it| it.flags |= flag);
        model.networks.values_mut().filter(|network| network.zone == zone).for_each(|it| it.flags |= flag);
    }
    for family in FAMILIES {
        let own_masquerade = PrefixKey::host(family.net1.into());
        match chance.below(8) {
            0 => {
                let value = FloatingValue { addr: family.net1.into(), zone: NET1.zone, reserved: [0; 2] };
                model.floating.insert(family.gateway.into(), value);
                let to = family.gateway.into();
                let value = MasqueradeValue { to, flags: MasqueradeValue::FLAG_ONE_TO_ONE };
                model.masquerade.insert(own_masquerade, value);
            }
            1 => {
                let value = MasqueradeValue { to: family.stray_host.into(), flags: 0 };
                model.masquerade.insert(own_masquerade, value);
            }
            2 => {
                let value = MasqueradeValue { to: family.host.into(), flags: MasqueradeValue::FLAG_EXEMPT };
                model.masquerade.insert(own_masquerade, value);
            }
            3 => drop(model.unmasqueraded.insert(PrefixKey::host(family.www.into()), 0)),
            _ => {}
        }
        if chance.one_in(4) {
            let (key, mut value) = published::WEB.entry(&family);
            value.flags |= PortMapValue::FLAG_RESTRICTED;
            model.port_map.insert(key, value);
            model.allow_from.insert((value.id, PrefixKey::host(family.www.into())), 0);
        }
    }
    if chance.one_in(4) {
        model.config.flags |= DatapathConfig::FLAG_RESPECT_FIREWALL;
    }
}

fn show(outcome: &Outcome) -> String {
    let Outcome { fate, frame, answer, began, verdict: _ } = outcome;
    let answer = answer
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), |answer| format!("{}\n  {}", describe(answer), hex(answer)));
    format!("  {fate:?}\n  {}\n  {}\n  answered {answer}\n  began {began:?}", describe(frame), hex(frame))
}
