//! How flows age, end and come back.

use vnet_common::{CtState, PortRange, Proto};
use vnet_tests::case::world::{Family, NET1, at, world};
use vnet_tests::case::{Case, Flow, SLACK};
use vnet_tests::frame::Frame;

use super::for_both_families;
use super::masquerade::echo;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 4] = [states, expiry, reclaimed, twins];
    subjects.into_iter().flat_map(for_both_families).collect()
}

fn states(f: &Family) -> Vec<Case> {
    let (client, web, seen) = (at(f.net1, 50_000), at(f.www, 80), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::TCP, client, web, 50_000);
    let sends = |name: &str, given: Flow, frame: fn(Frame) -> Frame, then: Flow| {
        Case::from_endpoint(NET1, name, frame(Frame::tcp(client, web)))
            .tracked([given])
            .forwarded(frame(Frame::tcp(seen, web)))
            .leaves([then.just_seen()])
    };
    let hears = |name: &str, given: Flow, frame: fn(Frame) -> Frame, then: Flow| {
        Case::from_uplink(name, frame(Frame::tcp(web, seen)))
            .tracked([given])
            .delivered(NET1, frame(Frame::tcp(web, client)))
            .leaves([then.just_seen()])
    };
    vec![
        sends(
            "a FIN of the client begins the end of both directions",
            flow.established(),
            |f| f.fin().ack(),
            flow.closing(),
        ),
        hears(
            "a FIN of the server begins the end of both directions",
            flow.established(),
            |f| f.fin().ack(),
            flow.closing(),
        ),
        sends(
            "a RST of the client begins the end, and is passed on",
            flow.established(),
            Frame::rst,
            flow.closing(),
        ),
        hears(
            "a RST of the server begins the end, and is passed on",
            flow.established(),
            |f| f.rst().ack(),
            flow.closing(),
        ),
        hears("a refused connection is closing", flow, |f| f.rst().ack(), flow.closing()),
        sends("the last ACK leaves the flow closing", flow.closing(), Frame::ack, flow.closing()),
        sends(
            "a client that dials again from the same port begins anew",
            flow.closing(),
            Frame::syn,
            flow.begun(),
        ),
        hears(
            "a SYN of the server does not bring a closing flow back",
            flow.closing(),
            Frame::syn,
            flow.closing(),
        ),
        sends("a repeated SYN leaves a new flow new", flow, Frame::syn, flow),
        sends(
            "a SYN within a connection does not end it",
            flow.established(),
            Frame::syn,
            flow.established(),
        ),
    ]
}

/// Seconds after which a flow of the world is over.
fn timeout(proto: Proto, state: CtState) -> u32 {
    vnet_datapath::conntrack::timeout(&world().config, proto, state)
}

fn expiry(f: &Family) -> Vec<Case> {
    let (client, server, seen) = (at(f.net1, 50_000), at(f.www, 7), at(f.host, 50_000));
    let (tcp, udp, ping) = (Proto::TCP, Proto::UDP, echo(f));
    let stages = [
        ("a TCP flow that opens", tcp, CtState::New),
        ("an established TCP flow", tcp, CtState::Established),
        ("a closing TCP flow", tcp, CtState::Closing),
        ("an unanswered UDP flow", udp, CtState::New),
        ("an answered UDP flow", udp, CtState::Established),
        ("an unanswered ping", ping, CtState::New),
        ("an answered ping", ping, CtState::Established),
    ];
    let mut cases = Vec::new();
    for (name, proto, state) in stages {
        let frame = |from, to| match proto {
            Proto::TCP => Frame::tcp(from, to).ack(),
            Proto::UDP => Frame::udp(from, to),
            _ => Frame::echo_reply(from.ip(), to.ip(), 50_000, 1),
        };
        let server = if proto == ping { at(f.www, 50_000) } else { server };
        let flow = Flow::masqueraded(proto, client, server, 50_000);
        let flow = match state {
            CtState::New => flow,
            CtState::Established => flow.established(),
            CtState::Closing => flow.closing(),
            other => panic!("no such stage: {other:?}"),
        };
        let then = if state == CtState::New { flow.established() } else { flow };
        let limit = timeout(proto, state);
        cases.push(
            Case::from_uplink(&format!("{name} lives until its time is over"), frame(server, seen))
                .tracked([flow.aged(limit - SLACK)])
                .delivered(NET1, frame(server, client))
                .leaves([then.just_seen()]),
        );
        // Where the clock stands still it is exact.
        cases.push(
            Case::from_uplink(
                &format!("{name} lives through the last second of its time"),
                frame(server, seen),
            )
            .tracked([flow.aged(limit)])
            .on_host_only()
            .delivered(NET1, frame(server, client))
            .leaves([then.just_seen()]),
        );
        cases.push(
            Case::from_uplink(&format!("{name} is forgotten when its time is over"), frame(server, seen))
                .tracked([flow.aged(limit + 1)])
                .passes()
                .leaves([]),
        );
    }
    cases
}

fn reclaimed(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let old = Flow::masqueraded(Proto::UDP, client, dns, 60_000).established().aged(31);
    let other = Flow::masqueraded(Proto::UDP, at(f.net2, 50_000), dns, 50_000).aged(21);
    let new = Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen();
    let public = (at(f.www, 9), at(f.host, 8088), at(f.net1, 80));
    let published = Flow::published(Proto::TCP, public.0, public.1, public.2).by(1);
    vec![
        Case::from_endpoint(
            NET1,
            "a flow that is over begins anew, and chooses its port anew",
            Frame::udp(client, dns),
        )
        .tracked([old])
        .forwarded(Frame::udp(at(f.host, 50_000), dns))
        .leaves([new]),
        Case::from_endpoint(
            NET1,
            "a port whose flow is over is free, and both its halves go",
            Frame::udp(client, dns),
        )
        .tracked([other])
        .forwarded(Frame::udp(at(f.host, 50_000), dns))
        .leaves([new]),
        Case::from_uplink(
            "a published port's flow that is over begins anew",
            Frame::tcp(public.0, public.1).syn(),
        )
        .tracked([published.established().aged(51)])
        .delivered(NET1, Frame::tcp(public.0, public.2).syn())
        .leaves([published.just_seen()]),
        Case::from_endpoint(
            NET1,
            "one half left of a flow that is over does not hinder",
            Frame::udp(client, dns),
        )
        .tracked([other.only_answer()])
        .forwarded(Frame::udp(at(f.host, 50_000), dns))
        .leaves([new]),
    ]
}

fn twins(f: &Family) -> Vec<Case> {
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000).by(4);
    let restored = [flow.established().just_seen()];
    let stranger = Flow::masqueraded(Proto::UDP, at(f.net2, 50_000), dns, 50_000).only_answer();
    let dead = flow.established().aged(31).only_opener();
    let taken = Flow::masqueraded(Proto::UDP, at(f.net2, 50_000), dns, 50_000);
    let anew = Flow::masqueraded(Proto::UDP, client, dns, 60_000).just_seen();
    vec![
        Case::from_endpoint(
            NET1,
            "a flow that is over does not take another's half with it",
            Frame::udp(client, dns),
        )
        .given(|model| model.config.nat_ports = PortRange { first: 60_000, last: 60_000 })
        .tracked([dead, taken])
        .forwarded(Frame::udp(at(f.host, 60_000), dns))
        .leaves([taken, anew]),
        Case::from_endpoint(
            NET1,
            "an evicted answer half comes back with the next packet",
            Frame::udp(client, dns),
        )
        .tracked([flow.established().only_opener()])
        .forwarded(Frame::udp(seen, dns))
        .leaves(restored),
        Case::from_uplink("an evicted opener half comes back with the next answer", Frame::udp(dns, seen))
            .tracked([flow.established().only_answer()])
            .delivered(NET1, Frame::udp(dns, client))
            .leaves(restored),
        Case::from_endpoint(
            NET1,
            "an evicted answer half that another flow has taken stays its",
            Frame::udp(client, dns),
        )
        .tracked([flow.established().only_opener(), stranger])
        .forwarded(Frame::udp(seen, dns))
        .leaves([flow.established().only_opener().just_seen(), stranger]),
    ]
}
