//! What uplinks with XDP drop, frame by frame: on the host, and by the program that vnet loads.

use bytemuck::Zeroable;
use vnet_common::{Addr, CtEntry, DropReason, FloatingValue, Hook, NetworkValue, PrefixKey, Proto, Tuple};
use vnet_datapath::model::Model;
use vnet_datapath::{Slice, early};
use vnet_tests::case::hex;
use vnet_tests::case::random::Traffic;
use vnet_tests::case::tuple;
use vnet_tests::case::world::{
    FAMILIES, Family, NET1, UPLINK, V4, V6, at, prefix, published, subnets, world,
};
use vnet_tests::frame::{Frame, describe};
use vnet_tests::report::report;
use vnet_tests::runner::{Arrival, Fate, Host, Kernel, Runner, Stage};

/// Somebody out there.
const PORT: u16 = 40_000;
/// Until when no new flow of a source passes: long after any test.
const NEVER: u64 = 1 << 62;

fn judge(model: &Model, frame: &[u8]) -> Result<(), DropReason> {
    let mut bytes = frame.to_vec();
    let verdict = early::judge(&Slice::new(&mut bytes), model, &mut Tuple::zeroed());
    assert_eq!(bytes, frame);
    verdict
}

fn deny(model: &mut Model, key: PrefixKey) {
    model.denied.insert(key, key.prefix_len);
}

/// Limits that nothing reaches, and one source that is beyond them.
fn beyond(model: &mut Model, source: Addr) {
    model.config.flood_rate = u32::MAX;
    model.flood_sources.borrow_mut().insert(source, NEVER);
}

/// A row of the table.
struct Row {
    name: String,
    model: Model,
    frame: Vec<u8>,
    expected: Result<(), DropReason>,
}

fn row(
    name: &str,
    family: &Family,
    change: impl FnOnce(&mut Model),
    frame: &Frame,
    expected: Result<(), DropReason>,
) -> Row {
    let mut model = world();
    change(&mut model);
    Row { name: format!("{name}, {}", family.name), model, frame: frame.build(), expected }
}

/// The prefix that counts as one source with somebody.
fn source_of(family: &Family) -> Addr {
    let bits = if family.www.is_ipv4() { 24 } else { 64 };
    prefix(family.www, bits).addr
}

fn rows(family: &Family) -> Vec<Row> {
    use DropReason::{Denied, Flood, Malformed};
    let Family { host, www, peer, net1, .. } = *family;
    let bits = if www.is_ipv4() { 32 } else { 128 };
    let (client, web) = (at(www, PORT), at(host, published::WEB.port));
    let dns = at(host, published::DNS.port);
    let syn = || Frame::tcp(client, web).syn();
    let asked = || Frame::udp(client, dns).payload(b"?");
    let tracked = |model: &mut Model, frame_of: Tuple| {
        model.conntrack.borrow_mut().insert(frame_of, CtEntry::zeroed());
    };
    let from_www = |model: &mut Model| deny(model, prefix(www, bits));
    let flooding = |model: &mut Model| beyond(model, source_of(family));
    let total = |model: &mut Model| {
        model.config.flood_total = u32::MAX;
        model.flood_total.set(NEVER);
    };
    vec![
        row("nothing is denied", family, |_| {}, &syn(), Ok(())),
        row("a denied address", family, from_www, &syn(), Err(Denied)),
        row("a denied prefix", family, |m| deny(m, prefix(www, 20)), &asked(), Err(Denied)),
        row("everything is denied", family, |m| deny(m, prefix(www, 0)), &asked(), Err(Denied)),
        row("what the host asked for", family, from_www, &Frame::echo_reply(www, host, 1, 1), Err(Denied)),
        row("another address is denied", family, |m| deny(m, prefix(peer, bits)), &syn(), Ok(())),
        row("a denied address as destination", family, |m| deny(m, prefix(host, bits)), &syn(), Ok(())),
        row("a denied fragment", family, from_www, &asked().fragment(64, true), Err(Denied)),
        row("a denied malformed packet", family, from_www, &broken(syn(), family), Err(Denied)),
        row("a denied source behind a tag", family, from_www, &syn().vlan(7), Ok(())),
        row(
            "malformed, for an endpoint",
            family,
            |_| {},
            &broken(Frame::tcp(client, at(net1, 80)), family),
            Err(Malformed),
        ),
        row("malformed, for the host", family, |_| {}, &broken(syn(), family), Ok(())),
        row(
            "malformed, for somebody else",
            family,
            |_| {},
            &broken(Frame::tcp(client, at(peer, 80)), family),
            Ok(()),
        ),
        row("cut short in the network header", family, |_| {}, &syn().truncate(30), Ok(())),
        row("for an endpoint", family, |_| {}, &Frame::tcp(client, at(net1, 80)).syn(), Ok(())),
        row(
            "options, for an endpoint",
            family,
            |_| {},
            &options(Frame::tcp(client, at(net1, 80)), family),
            Ok(()),
        ),
        row("a flood of SYNs", family, flooding, &syn(), Err(Flood)),
        row(
            "its neighbour",
            family,
            |m| beyond(m, source_of(&Family { www: host, ..*family })),
            &syn(),
            Ok(()),
        ),
        row("a flood of all", family, total, &syn(), Err(Flood)),
        row(
            "no limits",
            family,
            |m| {
                flooding(m);
                m.config.flood_rate = 0;
            },
            &syn(),
            Ok(()),
        ),
        row("an established connection", family, flooding, &Frame::tcp(client, web).ack(), Ok(())),
        row("what opens nothing", family, flooding, &syn().ack(), Ok(())),
        row("a reset", family, flooding, &Frame::tcp(client, web).rst(), Ok(())),
        row(
            "a port that is not published",
            family,
            flooding,
            &Frame::tcp(client, at(host, 22)).syn(),
            Ok(()),
        ),
        row(
            "a published block",
            family,
            flooding,
            &Frame::tcp(client, at(host, published::BLOCK.port + 3)).syn(),
            Err(Flood),
        ),
        row(
            "a port of somebody else",
            family,
            flooding,
            &Frame::tcp(client, at(peer, published::WEB.port)).syn(),
            Ok(()),
        ),
        row("the other protocol", family, flooding, &Frame::udp(client, web).payload(b"?"), Ok(())),
        row("a flood of datagrams", family, flooding, &asked(), Err(Flood)),
        row(
            "a confirmed UDP flow",
            family,
            |m| {
                flooding(m);
                tracked(m, tuple(Proto::UDP, client, dns));
            },
            &asked(),
            Ok(()),
        ),
        row(
            "an unconfirmed UDP flow",
            family,
            |m| {
                flooding(m);
                m.unconfirmed.borrow_mut().insert(tuple(Proto::UDP, client, dns), CtEntry::zeroed());
            },
            &asked(),
            Ok(()),
        ),
        row(
            "a SYN of a flow that is there",
            family,
            |m| {
                flooding(m);
                tracked(m, tuple(Proto::TCP, client, web));
            },
            &syn(),
            Err(Flood),
        ),
        row("a later fragment", family, flooding, &asked().fragment(64, true), Ok(())),
        row("an echo", family, flooding, &Frame::echo_request(www, host, 1, 1), Ok(())),
        row(
            "a floating address",
            family,
            |m| {
                flooding(m);
                let value = FloatingValue { addr: net1.into(), zone: NET1.zone, reserved: [0; 2] };
                m.floating.insert(host.into(), value);
            },
            &Frame::tcp(client, at(host, 22)).syn(),
            Err(Flood),
        ),
        row(
            "a routed endpoint's port",
            family,
            |m| {
                flooding(m);
                let [subnet, _] = subnets(family);
                m.networks.get_mut(&subnet).unwrap().flags |= NetworkValue::FLAG_ROUTED;
                let (key, value) = published::WEB.entry(family);
                m.port_map.insert(vnet_common::PortMapKey { addr: net1.into(), ..key }, value);
            },
            &Frame::tcp(client, at(net1, published::WEB.port)).syn(),
            Err(Flood),
        ),
    ]
}

/// With a TCP header that claims to be longer than the packet.
fn broken(frame: Frame, family: &Family) -> Frame {
    let network = if family.www.is_ipv4() { 20 } else { 40 };
    frame.flip(14 + network + 12)
}

/// With something that the host's stack ought to see.
fn options(frame: Frame, family: &Family) -> Frame {
    // An option that claims to be longer than the header: a mistake that is left to others.
    if family.www.is_ipv4() {
        frame.ip_options(&[7, 40, 0, 0])
    } else {
        frame.ext_header(0, &[1, 4, 0, 0, 0, 0])
    }
}

#[test]
fn every_row_holds_on_the_host_and_in_the_kernel() {
    Stage::run(|stage| {
        let mut kernel = Kernel::tc(stage);
        let mut failed = Vec::new();
        for Row { name, model, frame, expected } in FAMILIES.iter().flat_map(rows) {
            let host = judge(&model, &frame);
            kernel.fill(&model);
            let found = kernel.early(UPLINK, &frame);
            if host != expected || found != expected {
                failed.push(format!("{name}: host {host:?}, kernel {found:?}, expected {expected:?}"));
            }
        }
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

/// Random frames, some for endpoints, many broken. What is taken for malformed is so for the classifier behind, too.
#[test]
fn the_kernel_does_what_the_host_does() {
    const FRAMES: usize = 40_000;
    const WORLD_LASTS: usize = 4_000;
    Stage::run(|stage| {
        let mut kernel = Kernel::tc(stage);
        let mut traffic = Traffic::new(20_251_121, &[Hook::FromUplink]);
        let mut model = world();
        let mut classifier = Host::default();
        let mut counts = [0; 4];
        for number in 0..FRAMES {
            if number % WORLD_LASTS == 0 {
                model = world();
                for family in &FAMILIES {
                    let bits = traffic.chance().below(33) as u32;
                    if traffic.chance().one_in(2) {
                        deny(&mut model, prefix(family.peer, bits));
                    }
                    if traffic.chance().one_in(2) {
                        beyond(&mut model, source_of(family));
                    }
                }
                kernel.fill(&model);
                classifier.fill(&model);
            }
            let frame = traffic.draw().bytes;
            if frame.len() < 14 {
                continue;
            }
            let (host, found) = (judge(&model, &frame), kernel.early(UPLINK, &frame));
            assert_eq!(host, found, "frame {number}: {}\n{}", describe(&frame), hex(&frame));
            if host == Err(DropReason::Malformed) {
                let arrival = Arrival {
                    hook: Hook::FromUplink,
                    ifindex: UPLINK,
                    came_in_by: UPLINK,
                    waited: false,
                    segment: 0,
                    frame: &frame,
                };
                let behind = classifier.run(&arrival).unwrap();
                assert_eq!(behind.fate, Fate::Dropped(DropReason::Malformed), "{}", describe(&frame));
            }
            counts[match host {
                Ok(()) => 0,
                Err(DropReason::Denied) => 1,
                Err(DropReason::Malformed) => 2,
                Err(_) => 3,
            }] += 1;
        }
        report(format_args!("passed, denied, malformed, flood: {counts:?}"));
        assert!(counts.iter().all(|count| *count > 20), "dull traffic: {counts:?}");
    });
}

/// How many of so many SYNs pass, from as many sources of one prefix or of as many prefixes.
fn passed(model: &Model, count: u8, spread: bool) -> usize {
    let frame = |number: u8| {
        let [third, last] = if spread { [number, 1] } else { [1, number] };
        let from = std::net::IpAddr::from([198, 51, third, last]);
        Frame::tcp(at(from, PORT), at(V4.host, published::WEB.port)).syn().build()
    };
    (0..count).filter(|number| judge(model, &frame(*number)) == Ok(())).count()
}

#[test]
fn a_source_has_a_seconds_flows_at_once_and_then_its_rate() {
    let mut model = world();
    model.config.flood_rate = 10;
    assert_eq!(passed(&model, 200, false), 10);
    assert_eq!(passed(&model, 100, true), 99, "others have theirs, and this one has none left");
    model.clock += 1;
    assert_eq!(passed(&model, 200, false), 10);
    model.clock += 100;
    assert_eq!(passed(&model, 200, false), 10, "what is not used is not saved up");
}

#[test]
fn all_together_have_a_rate_too_and_leave_no_trace_beyond_it() {
    let mut model = world();
    (model.config.flood_rate, model.config.flood_total) = (5, 20);
    assert_eq!(passed(&model, 200, false), 5, "one source does not use up what is for all");
    assert_eq!(passed(&model, 200, true), 15);
    let known = model.flood_sources.borrow().len();
    assert!(known <= 16, "{known} sources are remembered");
    model.clock += 1;
    assert_eq!(passed(&model, 200, true), 20);
}

#[test]
fn the_kernel_counts_as_the_host_does() {
    Stage::run(|stage| {
        let mut kernel = Kernel::tc(stage);
        for (rate, total) in [(1, 0), (0, 1), (1, 1)] {
            for family in [V4, V6] {
                let mut model = world();
                (model.config.flood_rate, model.config.flood_total) = (rate, total);
                kernel.fill(&model);
                let syn =
                    Frame::tcp(at(family.www, PORT), at(family.host, published::WEB.port)).syn().build();
                let passed = (0..20).filter(|_| kernel.early(UPLINK, &syn) == Ok(())).count();
                // One more is due when a second is over.
                assert!((1..=2).contains(&passed), "{passed} passed at {rate} and {total} a second");
            }
        }
    });
}
