//! Frames that contradict themselves: an endpoint's are dropped, the world's pass, none is ever changed.

use std::net::SocketAddr;

use vnet_common::{DropReason, Proto};
use vnet_tests::case::world::{Family, NET1, V4, V6, at, published};
use vnet_tests::case::{Case, Flow};
use vnet_tests::frame::Frame;

use super::for_both_families;

/// Something done to a frame.
type Change = fn(Frame) -> Frame;

/// Where the network header begins.
const NETWORK: usize = 14;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = for_both_families(truncated);
    cases.extend(for_both_families(transport));
    cases.extend(for_both_families(link_layer));
    cases.extend(ipv4_header());
    cases.extend(ipv6_header());
    cases
}

/// Frames with tags, and frames that name a length instead of a protocol (IEEE 802.2, CVE-2021-27853).
fn link_layer(f: &Family) -> Vec<Case> {
    let sent = Frame::udp(at(f.net1, 50_000), at(f.www, 53));
    let received = Frame::udp(at(f.www, 9), at(f.host, published::DNS.port));
    let snap = |frame: &Frame| {
        let inner = frame.network_bytes();
        let [a, b] = if f.net1.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        let header = [0xaa, 0xaa, 3, 0, 0, 0, a, b];
        Frame::raw((header.len() + inner.len()) as u16, &[&header[..], &inner].concat())
    };
    let frames: [(&str, Change); 3] = [
        ("a priority tag", |frame| frame.vlan(0)),
        ("a priority tag in front of another", |frame| frame.vlan(0).vlan(7)),
        ("two tags", |frame| frame.vlan(7).vlan(8)),
    ];
    let mut cases = Vec::new();
    for (name, tagged) in frames {
        cases.extend([
            Case::from_endpoint(
                NET1,
                &format!("a packet behind {name} does not leave"),
                tagged(sent.clone()),
            )
            .dropped(DropReason::EtherType),
            Case::from_uplink(
                &format!("a packet behind {name} from the world passes"),
                tagged(received.clone()),
            )
            .passes(),
        ]);
    }
    cases.extend([
        Case::from_endpoint(NET1, "a packet in an LLC frame does not leave", snap(&sent))
            .dropped(DropReason::EtherType),
        Case::from_uplink("a packet in an LLC frame from the world passes", snap(&received)).passes(),
    ]);
    cases
}

/// Every length a packet can be cut to, on its way out and on its way in.
fn truncated(f: &Family) -> Vec<Case> {
    let (client, server, seen) = (at(f.net1, 50_000), at(f.www, 80), at(f.host, 50_000));
    let mut cases = Vec::new();
    let echo = if f.net1.is_ipv4() { Proto::ICMP } else { Proto::ICMPV6 };
    let kinds = [
        ("TCP packet", Proto::TCP),
        ("UDP packet", Proto::UDP),
        ("first fragment", Proto::UDP),
        ("ping", echo),
    ];
    for (name, proto) in kinds {
        let frame = |from: SocketAddr, to: SocketAddr| match name {
            "TCP packet" => Frame::tcp(from, to).ack().tcp_options(&[1; 4]).payload(b"data"),
            "UDP packet" => Frame::udp(from, to).payload(b"data"),
            "first fragment" => Frame::udp(from, to).payload(b"datagram").fragment(0, true),
            _ => Frame::echo_request(from.ip(), to.ip(), 50_000, 1).payload(b"data"),
        };
        let server = if proto == echo { at(server.ip(), 50_000) } else { server };
        let flow = Flow::masqueraded(proto, client, server, 50_000);
        for length in 0..frame(client, server).build().len() {
            let cut = |bytes: &mut Vec<u8>| bytes.truncate(length);
            cases.push(
                Case::from_endpoint(
                    NET1,
                    &format!("a {name} cut to {length} bytes is not translated"),
                    frame(client, server),
                )
                .bytes(cut)
                .tracked([flow])
                .dropped(DropReason::Malformed),
            );
            cases.push(
                Case::from_uplink(
                    &format!("an answering {name} cut to {length} bytes is not translated"),
                    frame(server, seen),
                )
                .bytes(cut)
                .tracked([flow])
                .passes(),
            );
        }
    }
    cases
}

/// A packet of an endpoint and one of the world to a published port, with the same thing wrong with both.
fn wrong(
    f: &Family,
    name: &str,
    frame: impl Fn(Frame) -> Frame,
    change: impl Fn(&mut Vec<u8>) + Copy,
) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let public = at(f.host, published::DNS.port);
    vec![
        Case::from_endpoint(
            NET1,
            &format!("an endpoint's packet with {name} is dropped"),
            frame(Frame::udp(client, dns)),
        )
        .bytes(change)
        .dropped(DropReason::Malformed),
        Case::from_uplink(
            &format!("the world's packet with {name} passes"),
            frame(Frame::udp(at(f.www, 9), public)),
        )
        .bytes(change)
        .passes(),
    ]
}

fn ipv4_header() -> Vec<Case> {
    let of_length = |length: u16| {
        move |bytes: &mut Vec<u8>| bytes[NETWORK + 2..NETWORK + 4].copy_from_slice(&length.to_be_bytes())
    };
    let header = |byte: u8| move |bytes: &mut Vec<u8>| bytes[NETWORK] = byte;
    let plain = |frame: Frame| frame.payload(b"data");
    [
        wrong(&V4, "an IPv4 header of four words", plain, header(0x44)),
        wrong(&V4, "an IPv4 header of no words", plain, header(0x40)),
        wrong(&V4, "an IPv4 header longer than the packet", plain, header(0x4f)),
        wrong(&V4, "version 5 in an IPv4 frame", plain, header(0x55)),
        wrong(&V4, "version 6 in an IPv4 frame", plain, header(0x65)),
        wrong(&V4, "an IPv4 length greater than the frame", plain, of_length(33)),
        wrong(&V4, "the greatest IPv4 length", plain, of_length(u16::MAX)),
        wrong(&V4, "an IPv4 length less than its header", plain, of_length(19)),
        wrong(&V4, "an IPv4 length of nothing", plain, of_length(0)),
        wrong(&V4, "an IPv4 length that cuts the UDP header", plain, of_length(27)),
        wrong(&V4, "an IPv4 length that cuts the UDP payload", plain, of_length(31)),
        wrong(&V4, "an IPv4 length without a UDP header", plain, of_length(20)),
    ]
    .into_iter()
    .flatten()
    .map(|case| case.of_family(&V4))
    .collect()
}

fn ipv6_header() -> Vec<Case> {
    let of_length = |length: u16| {
        move |bytes: &mut Vec<u8>| bytes[NETWORK + 4..NETWORK + 6].copy_from_slice(&length.to_be_bytes())
    };
    let version = |byte: u8| move |bytes: &mut Vec<u8>| bytes[NETWORK] = byte;
    let plain = |frame: Frame| frame.payload(b"data");
    [
        wrong(&V6, "version 4 in an IPv6 frame", plain, version(0x40)),
        wrong(&V6, "version 7 in an IPv6 frame", plain, version(0x70)),
        wrong(&V6, "an IPv6 length greater than the frame", plain, of_length(13)),
        wrong(&V6, "the greatest IPv6 length", plain, of_length(u16::MAX)),
        wrong(&V6, "an IPv6 length of nothing", plain, of_length(0)),
        wrong(&V6, "an IPv6 length that cuts the UDP header", plain, of_length(7)),
        wrong(&V6, "an IPv6 length that cuts the UDP payload", plain, of_length(11)),
    ]
    .into_iter()
    .flatten()
    .map(|case| case.of_family(&V6))
    .collect()
}

fn transport(f: &Family) -> Vec<Case> {
    let (client, web) = (at(f.net1, 50_000), at(f.www, 80));
    let transport = NETWORK + if f.net1.is_ipv4() { 20 } else { 40 };
    let udp_length = |length: u16| {
        move |bytes: &mut Vec<u8>| bytes[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes())
    };
    let tcp = |name: &str, words: u8| {
        Case::from_endpoint(NET1, name, Frame::tcp(client, web).syn().payload(b"data"))
            .bytes(move |bytes: &mut Vec<u8>| bytes[transport + 12] = words << 4)
            .dropped(DropReason::Malformed)
    };
    let plain = |frame: Frame| frame.payload(b"data");
    let mut cases = vec![
        tcp("a TCP header of four words is malformed", 4),
        tcp("a TCP header of no words is malformed", 0),
        tcp("a TCP header longer than the packet is malformed", 7),
        tcp("the longest TCP header in a short packet is malformed", 15),
        Case::from_endpoint(
            NET1,
            "a TCP header as long as the packet is taken",
            Frame::tcp(client, web).syn().tcp_options(&[1; 40]),
        )
        .forwarded(Frame::tcp(at(f.host, 50_000), web).syn().tcp_options(&[1; 40]))
        .leaves([Flow::masqueraded(Proto::TCP, client, web, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a UDP length greater than the packet is malformed, padding or not",
            Frame::udp(client, at(f.www, 53)).trailer(&[0; 20]),
        )
        .bytes(udp_length(9))
        .dropped(DropReason::Malformed),
        Case::from_endpoint(
            NET1,
            "an ICMP message of seven bytes is malformed",
            Frame::protocol(f.net1, f.www, if f.net1.is_ipv4() { 1 } else { 58 })
                .payload(&[8, 0, 0, 0, 0, 1, 0]),
        )
        .dropped(DropReason::Malformed),
        Case::from_endpoint(
            NET1,
            "a TCP header that only padding completes is malformed",
            Frame::protocol(f.net1, f.www, 6).payload(&[0x50; 13]).trailer(&[0x50; 30]),
        )
        .dropped(DropReason::Malformed),
    ];
    cases.extend(wrong(f, "a UDP length greater than the packet", plain, udp_length(13)));
    cases.extend(wrong(f, "a UDP length less than its header", plain, udp_length(7)));
    cases.extend(wrong(f, "a UDP length of nothing", plain, udp_length(0)));
    cases
}
