//! What the fast path leaves to the host's stack, and what becomes of it when the stack sends it on.

use vnet_common::{Addr, CtState, DropReason, MasqueradeValue, NetworkValue, Proto, Zone};
use vnet_tests::case::world::{
    Family, MTU, NET1, NET2, NET3, OTHER_BRIDGE, STRAY, UPLINK, V4, V6, at, published, subnets,
};
use vnet_tests::case::{Case, Flow};
use vnet_tests::frame::{DESTINATION_OPTIONS, Frame, HOP_BY_HOP, IcmpError, ROUTING};

use super::for_both_families;
use super::masquerade::{echo, flag};

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 4] =
        [left_to_the_stack, untranslatable, sent_by_the_stack, stopped];
    let mut cases: Vec<Case> = subjects.into_iter().flat_map(for_both_families).collect();
    cases.extend(options());
    cases.extend(extension_headers());
    cases
}

fn left_to_the_stack(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let headers = if f.net1.is_ipv4() { 28 } else { 48 };
    let of_size = |from, size: u16| Frame::udp(from, dns).payload(&vec![1; usize::from(size) - headers]);
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    vec![
        Case::from_endpoint(
            NET1,
            "a packet with its last hop goes to the stack, which says so",
            Frame::udp(client, dns).ttl(1),
        )
        .passes(),
        Case::from_endpoint(NET1, "a packet with no hop goes to the stack", Frame::udp(client, dns).ttl(0))
            .passes(),
        Case::from_endpoint(
            NET1,
            "so does one of a tracked flow, which does not count it",
            Frame::udp(client, dns).ttl(1),
        )
        .tracked([flow])
        .passes(),
        Case::from_endpoint(NET1, "a packet with two hops leaves with one", Frame::udp(client, dns).ttl(2))
            .forwarded(Frame::udp(at(f.host, 50_000), dns))
            .with_ttl(1)
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "a packet that just fits the path leaves", of_size(client, MTU))
            .forwarded(of_size(at(f.host, 50_000), MTU))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(
            NET1,
            "a packet one byte too big for the path goes to the stack, which says so",
            of_size(client, MTU + 1),
        )
        .passes(),
        Case::from_endpoint(NET1, "so does one of a tracked flow", of_size(client, MTU + 1))
            .tracked([flow])
            .passes(),
        Case::from_endpoint(NET1, "an aggregate leaves if its segments fit", of_size(client, 3000))
            .in_segments_of(u32::from(MTU) - headers as u32)
            .forwarded(of_size(at(f.host, 50_000), 3000))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(
            NET1,
            "an aggregate goes to the stack if its segments do not fit",
            of_size(client, 3000),
        )
        .in_segments_of(u32::from(MTU) - headers as u32 + 1)
        .passes(),
        Case::from_endpoint(
            NET1,
            "an aggregate too long for the length field leaves if its segments fit",
            of_size(client, 3000).jumbo(),
        )
        .in_segments_of(u32::from(MTU) - headers as u32)
        .forwarded(of_size(at(f.host, 50_000), 3000).jumbo())
        .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "it goes to the stack if they do not", of_size(client, 3000).jumbo())
            .in_segments_of(u32::from(MTU) - headers as u32 + 1)
            .passes(),
    ]
}

fn untranslatable(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    vec![
        Case::from_endpoint(
            NET1,
            "a protocol without ports does not leave",
            Frame::protocol(f.net1, f.www, 47).payload(&[0; 20]),
        )
        .dropped(DropReason::Untranslatable),
        Case::from_endpoint(
            NET1,
            "DCCP does not leave",
            Frame::protocol(f.net1, f.www, 33).payload(&[0; 20]),
        )
        .dropped(DropReason::Untranslatable),
        Case::from_endpoint(NET1, "an ICMP error to the world does not leave", {
            let offender = Frame::udp(dns, client);
            Frame::icmp_error(f.net1, f.www, IcmpError::PortUnreachable, &offender)
        })
        .dropped(DropReason::Unrelated),
        Case::from_endpoint(
            NET1,
            "an echo with a code is no ping",
            Frame::icmp(f.net1, f.www, if f.net1.is_ipv4() { 8 } else { 128 }, 1),
        )
        .dropped(DropReason::Untranslatable),
        Case::from_endpoint(
            NET1,
            "the other family's ICMP is no ping",
            Frame::protocol(f.net1, f.www, if f.net1.is_ipv4() { 58 } else { 1 })
                .payload(&[8, 0, 0, 0, 0, 1, 0, 1]),
        )
        .dropped(DropReason::Untranslatable),
    ]
}

fn options() -> Vec<Case> {
    let (client, dns, seen) = (at(V4.net1, 50_000), at(V4.www, 53), at(V4.host, 50_000));
    let record_route: &[u8] = &[7, 7, 4, 0, 0, 0, 0];
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let web = at(V4.host, published::WEB.port);
    vec![
        Case::from_endpoint(
            NET1,
            "a packet with IP options goes to the stack",
            Frame::udp(client, dns).ip_options(record_route),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "so does one of a tracked flow, options and all",
            Frame::udp(client, dns).ip_options(record_route),
        )
        .tracked([flow])
        .passes(),
        Case::from_endpoint(
            NET1,
            "so does one with as many options as there can be",
            Frame::udp(client, dns).ip_options(&[1; 40]),
        )
        .passes(),
        Case::to_uplink(
            "a packet with IP options that the stack sends on leaves as the host's",
            Frame::udp(client, dns).ip_options(record_route).ttl(63),
        )
        .passes_as(Frame::udp(seen, dns).ip_options(record_route).ttl(63))
        .leaves([flow.just_seen()]),
        Case::from_uplink(
            "an answer with IP options is delivered with them",
            Frame::udp(dns, seen).ip_options(record_route),
        )
        .tracked([flow])
        .delivered(NET1, Frame::udp(dns, client).ip_options(record_route))
        .leaves([flow.established().just_seen()]),
        Case::from_uplink(
            "a packet with IP options to a published port is delivered with them",
            Frame::tcp(dns, web).syn().ip_options(&[1; 40]),
        )
        .delivered(NET1, Frame::tcp(dns, at(V4.net1, 80)).syn().ip_options(&[1; 40]))
        .leaves([Flow::published(Proto::TCP, dns, web, at(V4.net1, 80)).by(1).just_seen()]),
    ]
}

fn extension_headers() -> Vec<Case> {
    let (client, dns, seen) = (at(V6.net1, 50_000), at(V6.www, 53), at(V6.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let one = |frame: Frame| frame.ext_header(HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]);
    let three =
        |frame: Frame| one(frame).ext_header(ROUTING, &[0; 22]).ext_header(DESTINATION_OPTIONS, &[1; 14]);
    let four = |frame: Frame| three(frame).ext_header(DESTINATION_OPTIONS, &[1; 6]);
    vec![
        Case::from_endpoint(
            NET1,
            "a packet with an extension header goes to the stack",
            one(Frame::udp(client, dns)),
        )
        .passes(),
        Case::to_uplink("one that the stack sends on leaves as the host's", one(Frame::udp(client, dns)))
            .passes_as(one(Frame::udp(seen, dns)))
            .leaves([flow.just_seen()]),
        Case::from_uplink(
            "an answer behind three extension headers is delivered",
            three(Frame::udp(dns, seen).payload(b"odd")),
        )
        .tracked([flow])
        .delivered(NET1, three(Frame::udp(dns, client).payload(b"odd")))
        .leaves([flow.established().just_seen()]),
        Case::from_uplink(
            "an answer behind four extension headers is not looked for",
            four(Frame::udp(dns, seen)),
        )
        .tracked([flow])
        .passes(),
        Case::from_endpoint(
            NET1,
            "a packet behind four extension headers does not leave",
            four(Frame::udp(client, dns)),
        )
        .dropped(DropReason::Untranslatable),
        Case::from_endpoint(
            NET1,
            "an extension header cut short is malformed",
            one(Frame::protocol(V6.net1, V6.www, 60)),
        )
        .dropped(DropReason::Malformed),
        Case::from_endpoint(
            NET1,
            "extension headers longer than the packet are malformed",
            Frame::protocol(V6.net1, V6.www, 60).payload(&[17, 9, 0, 0, 0, 0, 0, 0]),
        )
        .dropped(DropReason::Malformed),
        Case::from_endpoint(
            NET1,
            "a packet with no next header does not leave",
            Frame::protocol(V6.net1, V6.www, 59),
        )
        .dropped(DropReason::Untranslatable),
    ]
}

fn sent_by_the_stack(f: &Family) -> Vec<Case> {
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let moved = Flow::masqueraded(Proto::TCP, at(f.net1, 1234), at(f.www, 80), 60_000);
    let ping = Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 7);
    let answered = Flow::published(Proto::TCP, at(f.www, 9), at(f.host, 8088), at(f.net1, 80));
    let [subnet, _] = subnets(f);
    let to = f.peer;
    vec![
        Case::to_uplink(
            "what the stack sends for an endpoint leaves as the host's, hops as they are",
            Frame::udp(client, dns).ttl(1),
        )
        .passes_as(Frame::udp(seen, dns).ttl(1))
        .leaves([flow.just_seen()]),
        Case::to_uplink(
            "a ping that the stack sends leaves as the host's",
            Frame::echo_request(f.net1, f.www, 7, 1),
        )
        .passes_as(Frame::echo_request(f.host, f.www, 7, 1))
        .leaves([ping.just_seen()]),
        Case::to_uplink(
            "what the stack sends follows its flow",
            Frame::tcp(at(f.net1, 1234), at(f.www, 80)).ack(),
        )
        .tracked([moved.established()])
        .passes_as(Frame::tcp(at(f.host, 60_000), at(f.www, 80)).ack())
        .leaves([moved.established().just_seen()]),
        Case::to_uplink(
            "an answer that the stack sends leaves as from the published port",
            Frame::tcp(at(f.net1, 80), at(f.www, 9)).syn().ack(),
        )
        .tracked([answered])
        .passes_as(Frame::tcp(at(f.host, 8088), at(f.www, 9)).syn().ack())
        .leaves([answered.in_state(CtState::Answered).just_seen()]),
        Case::to_uplink(
            "a rule may name the address to leave with, through the stack too",
            Frame::udp(client, dns),
        )
        .given(move |model| model.masquerade.insert(subnet, MasqueradeValue { to: to.into(), flags: 0 }))
        .passes_as(Frame::udp(at(to, 50_000), dns))
        .leaves([flow.seen_as(to).just_seen()]),
        Case::to_uplink("what the host itself sends passes", Frame::udp(at(f.host, 50_000), dns))
            .came_in_by(0)
            .passes(),
        Case::to_uplink("what the host itself sends passes, whatever its source", Frame::udp(client, dns))
            .came_in_by(0)
            .passes(),
        Case::to_uplink("what the host routes for others passes", Frame::udp(at(f.stray, 1), dns))
            .came_in_by(STRAY)
            .passes(),
        Case::to_uplink("ARP and the like pass", Frame::raw(0x0806, &[0; 28])).passes(),
    ]
}

fn stopped(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let [subnet, _] = subnets(f);
    let inside = Flow::hairpin(Proto::TCP, at(f.net2, 50_000), at(f.host, 8088), (at(f.net1, 80), 50_000));
    vec![
        Case::to_uplink(
            "an endpoint's address does not leave by way of another network's bridge",
            Frame::udp(client, dns),
        )
        .came_in_by(OTHER_BRIDGE)
        .dropped(DropReason::SourceAddress),
        Case::to_uplink(
            "an endpoint's address does not leave when it came in by an uplink",
            Frame::udp(client, dns),
        )
        .came_in_by(UPLINK)
        .dropped(DropReason::SourceAddress),
        Case::to_uplink(
            "a network's address that is nobody's does not leave",
            Frame::udp(at(f.nobody, 1), dns),
        )
        .dropped(DropReason::SourceAddress),
        Case::to_uplink(
            "a protocol without ports does not leave through the stack either",
            Frame::protocol(f.net1, f.www, 47),
        )
        .dropped(DropReason::Untranslatable),
        Case::to_uplink(
            "an ICMP error of an endpoint does not leave through the stack either",
            Frame::icmp(f.net1, f.www, 3, 1),
        )
        .dropped(DropReason::Unrelated),
        Case::to_uplink(
            "a packet of a flow between endpoints does not leave",
            Frame::tcp(at(f.net1, 80), at(f.host, 50_000)).ack(),
        )
        .tracked([inside])
        .dropped(DropReason::Untranslatable),
        Case::to_uplink("without a rule nothing leaves through the stack", Frame::udp(client, dns))
            .given(move |model| model.masquerade.remove(&subnet))
            .refused(DropReason::NoMasquerade, IcmpError::Prohibited),
        Case::to_uplink("nothing of an internal network leaves through the stack", Frame::udp(client, dns))
            .given(|model| flag(model, NetworkValue::FLAG_INTERNAL))
            .refused(DropReason::Internal, IcmpError::Prohibited),
        Case::to_uplink("nothing leaves by what is not an uplink any more", Frame::udp(client, dns))
            .given(|model| model.uplinks.clear())
            .refused(DropReason::NotAnUplink, IcmpError::Prohibited),
        Case::to_uplink(
            "nothing leaves as an address that the uplink does not have",
            Frame::udp(client, dns),
        )
        .given(|model| {
            let uplink = model.uplinks.get_mut(&UPLINK).unwrap();
            (uplink.v4, uplink.v6) = (Addr::ANY_V4, Addr::ANY_V6);
        })
        .refused(DropReason::NoSourceAddress, IcmpError::NetworkUnreachable),
        Case::to_uplink(
            "an endpoint of another network leaves by its own bridge only",
            Frame::udp(at(f.net3, 1), dns),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET2,
            "a flow of one network is not another's",
            Frame::udp(at(f.net2, 50_000), dns),
        )
        .tracked([Flow::masqueraded(Proto::UDP, at(f.net2, 50_000), dns, 60_000).in_zone(NET3.zone)])
        .forwarded(Frame::udp(at(f.host, 50_000), dns))
        .leaves([
            Flow::masqueraded(Proto::UDP, at(f.net2, 50_000), dns, 60_000).in_zone(NET3.zone),
            Flow::masqueraded(Proto::UDP, at(f.net2, 50_000), dns, 50_000)
                .in_zone(Zone { id: 1 })
                .just_seen(),
        ]),
    ]
}
