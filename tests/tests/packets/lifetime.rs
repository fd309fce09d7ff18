//! How flows age, end and come back.

use vnet_common::{CtState, PortRange, Proto};
use vnet_tests::case::world::{Family, NET1, NET2, at, world};
use vnet_tests::case::{Case, Flow, SLACK};
use vnet_tests::frame::Frame;

use super::for_both_families;
use super::masquerade::echo;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 5] = [states, confirmation, expiry, reclaimed, twins];
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
    use CtState::{AnswerClosed, Answered, Closing, Established, New, OpenerClosed, Reset};
    let fin: fn(Frame) -> Frame = |frame| frame.fin().ack();
    let rst: fn(Frame) -> Frame = |frame| frame.rst().ack();
    let to = |state| flow.in_state(state);
    vec![
        sends("a FIN of the client closes its direction", to(Established), fin, to(OpenerClosed)),
        hears("a FIN of the server closes its direction", to(Established), fin, to(AnswerClosed)),
        hears("a half-closed flow goes on for the server", to(OpenerClosed), Frame::ack, to(OpenerClosed)),
        sends("a half-closed flow goes on for the client", to(AnswerClosed), Frame::ack, to(AnswerClosed)),
        hears("the server's FIN after the client's ends the flow", to(OpenerClosed), fin, to(Closing)),
        sends("the client's FIN after the server's ends the flow", to(AnswerClosed), fin, to(Closing)),
        sends("a RST of the client is passed on, and ends nothing", to(Established), Frame::rst, to(Reset)),
        hears(
            "a RST of the server is passed on, and ends nothing",
            to(Established),
            rst,
            to(Reset).confirmed(),
        ),
        sends(
            "after a forged RST the flow comes back with the client's next packet",
            to(Reset),
            Frame::ack,
            to(Answered).confirmed(),
        ),
        sends(
            "and is what it was with the one after it",
            to(Answered).confirmed(),
            Frame::ack,
            to(Established),
        ),
        hears("a refused connection is not confirmed", to(New), rst, to(Reset).unconfirmed()),
        hears("an answer to an endpoint confirms the flow", to(New), |f| f.syn().ack(), to(Established)),
        sends("the last ACK leaves the flow closing", to(Closing), Frame::ack, to(Closing)),
        sends(
            "a client that dials again from the same port begins anew",
            to(Closing),
            Frame::syn,
            to(New).confirmed(),
        ),
        hears("a SYN of the server does not bring a closing flow back", to(Closing), Frame::syn, to(Closing)),
        sends("a repeated SYN leaves a new flow new", to(New), Frame::syn, to(New)),
        sends("a SYN within a connection does not end it", to(Established), Frame::syn, to(Established)),
    ]
}

/// A client of a published port has to show that it hears the answers before its flow is confirmed: until then its
/// address may be forged.
fn confirmation(f: &Family) -> Vec<Case> {
    use CtState::{Answered, Established, New, OpenerClosed};
    let (client, dialled, target) = (at(f.www, 9), at(f.host, 8088), at(f.net1, 80));
    let flow = Flow::published(Proto::TCP, client, dialled, target).by(1);
    let to = |state| flow.in_state(state);
    let calls = |name: &str, given: Flow, frame: fn(Frame) -> Frame, then: Flow| {
        Case::from_uplink(name, frame(Frame::tcp(client, dialled)))
            .tracked([given])
            .delivered(NET1, frame(Frame::tcp(client, target)))
            .leaves([then.just_seen()])
    };
    let answers = |name: &str, given: Flow, frame: fn(Frame) -> Frame, then: Flow| {
        Case::from_endpoint(NET1, name, frame(Frame::tcp(target, client)))
            .tracked([given])
            .forwarded(frame(Frame::tcp(dialled, client)))
            .leaves([then.just_seen()])
    };
    let dns = (at(f.www, 9), at(f.host, 5353), at(f.net2, 53));
    let query = Flow::published(Proto::UDP, dns.0, dns.1, dns.2).by(2);
    vec![
        answers("a SYN/ACK does not confirm a stranger's flow", to(New), |f| f.syn().ack(), to(Answered)),
        calls("nor does another SYN of the stranger", to(Answered), Frame::syn, to(Answered)),
        calls("its ACK does", to(Answered), Frame::ack, to(Established)),
        calls("and so does data with a FIN", to(Answered), |f| f.fin().ack(), to(OpenerClosed)),
        Case::from_endpoint(
            NET2,
            "a UDP answer does not confirm a stranger's flow",
            Frame::udp(dns.2, dns.0),
        )
        .tracked([query])
        .forwarded(Frame::udp(dns.1, dns.0))
        .leaves([query.in_state(Answered).just_seen()]),
        Case::from_uplink("its next datagram does", Frame::udp(dns.0, dns.1))
            .tracked([query.in_state(Answered)])
            .delivered(NET2, Frame::udp(dns.0, dns.2))
            .leaves([query.established().just_seen()]),
    ]
}

/// Seconds after which a flow of the world is over.
fn timeout(proto: Proto, state: CtState) -> u32 {
    vnet_datapath::conntrack::timeout(&world().config, proto, state, 0)
}

fn expiry(f: &Family) -> Vec<Case> {
    let (client, server, seen) = (at(f.net1, 50_000), at(f.www, 7), at(f.host, 50_000));
    let (tcp, udp, ping) = (Proto::TCP, Proto::UDP, echo(f));
    let stages = [
        ("a TCP flow that opens", tcp, CtState::New),
        ("an established TCP flow", tcp, CtState::Established),
        ("a half-closed TCP flow", tcp, CtState::OpenerClosed),
        ("a closing TCP flow", tcp, CtState::Closing),
        ("an unanswered UDP flow", udp, CtState::New),
        ("an answered UDP flow", udp, CtState::Established),
        ("an unanswered ping", ping, CtState::New),
        ("an answered ping", ping, CtState::Established),
    ]
    .map(|(name, proto, state)| (name, proto, state, server));
    let questions = [
        ("T4787-5a: an unanswered question to a name server", udp, CtState::New, at(f.www, 53)),
        ("T4787-5a: an answered question to a name server", udp, CtState::Established, at(f.www, 53)),
    ];
    let mut cases = Vec::new();
    for (name, proto, state, server) in stages.into_iter().chain(questions) {
        let frame = |from, to| match proto {
            Proto::TCP => Frame::tcp(from, to).ack(),
            Proto::UDP => Frame::udp(from, to),
            _ => Frame::echo_reply(from.ip(), to.ip(), 50_000, 1),
        };
        let server = if proto == ping { at(f.www, 50_000) } else { server };
        let flow = Flow::masqueraded(proto, client, server, 50_000);
        let flow = flow.in_state(state);
        let then = if state == CtState::New { flow.established() } else { flow };
        let limit = if server.port() == 53 { world().config.dns } else { timeout(proto, state) };
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
        Case::from_uplink("an evicted opener half comes back with the first answer", Frame::udp(dns, seen))
            .tracked([flow.only_answer()])
            .delivered(NET1, Frame::udp(dns, client))
            .leaves([flow.established().just_seen()]),
        Case::from_uplink("the answers' half of a flow that ends brings nothing back", Frame::udp(dns, seen))
            .tracked([flow.established().only_answer()])
            .delivered(NET1, Frame::udp(dns, client))
            .leaves([flow.established().only_answer().just_seen()]),
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
