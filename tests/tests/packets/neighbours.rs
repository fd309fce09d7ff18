//! Endpoints among themselves: who reaches whom, and who may claim to be whom.

use std::net::IpAddr;

use vnet_common::{Addr, DropReason, Mac, NetworkValue};
use vnet_tests::case::Case;
use vnet_tests::case::world::{Family, MTU, NET1, NET2, NET3, V4, V6, at};
use vnet_tests::frame::{Frame, IcmpError};

use super::for_both_families;
use super::masquerade::flag;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 2] = [switched, sources];
    let mut cases: Vec<Case> = subjects.into_iter().flat_map(for_both_families).collect();
    cases.extend(arp());
    cases.extend(neighbour_discovery());
    cases.extend(link_local());
    cases.extend(other_ethertypes());
    cases
}

/// A frame from [`NET1`] to [`NET2`], as a switch sees it.
fn between(frame: Frame) -> Frame {
    frame.macs(NET1.mac, NET2.mac)
}

fn switched(f: &Family) -> Vec<Case> {
    let (one, two) = (at(f.net1, 1234), at(f.net2, 80));
    let packet = || between(Frame::tcp(one, two).syn());
    let case = |name: &str, frame: Frame| Case::from_endpoint(NET1, name, frame.clone()).link(frame);
    let headers = if f.net1.is_ipv4() { 28 } else { 48 };
    let of_size = |size: u16| between(Frame::udp(one, two).payload(&vec![1; usize::from(size) - headers]));
    let narrow = f.net2;
    vec![
        case("neighbours talk without any change to their packets", packet()).switched(NET2),
        case("a ping between neighbours is switched", between(Frame::echo_request(f.net1, f.net2, 1, 1)))
            .switched(NET2),
        case("fragments between neighbours are switched", between(Frame::udp(one, two).fragment(8, false)))
            .switched(NET2),
        case("other protocols between neighbours are switched", between(Frame::protocol(f.net1, f.net2, 47)))
            .switched(NET2),
        case("the hops of a packet to a neighbour do not count", packet().ttl(1)).switched(NET2),
        case("a packet that fits the neighbour is switched", of_size(MTU)).switched(NET2),
        case("a packet too big for the neighbour is left to the bridge", of_size(MTU + 1)).passes(),
        case("a packet too big for a narrow neighbour is left to the bridge", of_size(1400))
            .given(move |model| model.endpoints.get_mut(&Addr::from(narrow)).unwrap().mtu = 1399)
            .passes(),
        case(
            "an endpoint's packet to itself comes back",
            Frame::tcp(one, at(f.net1, 80)).syn().macs(NET1.mac, NET1.mac),
        )
        .switched(NET1),
        case("neighbours on an isolated network do not talk", packet())
            .given(|model| flag(model, NetworkValue::FLAG_ISOLATED))
            .dropped(DropReason::Isolated),
        case(
            "an endpoint of an isolated network still talks to itself",
            Frame::udp(one, at(f.net1, 80)).macs(NET1.mac, NET1.mac),
        )
        .given(|model| flag(model, NetworkValue::FLAG_ISOLATED))
        .switched(NET1),
        case(
            "an endpoint of an isolated network reaches its gateway",
            Frame::udp(one, at(f.gateway, 53)).macs(NET1.mac, NET1.gateway_mac),
        )
        .given(|model| flag(model, NetworkValue::FLAG_ISOLATED))
        .passes(),
        case("neighbours on an internal network talk", packet())
            .given(|model| flag(model, NetworkValue::FLAG_INTERNAL))
            .switched(NET2),
        case(
            "an address within the network that is nobody's is left to the bridge",
            Frame::udp(one, at(f.nobody, 53)).macs(NET1.mac, NET2.mac),
        )
        .passes(),
        case(
            "another network's endpoint cannot be reached",
            Frame::udp(one, at(f.net3, 53)).macs(NET1.mac, NET1.gateway_mac),
        )
        .refused(DropReason::OtherNetwork, IcmpError::Prohibited),
        case("another network's endpoint within the same prefix cannot be reached", packet())
            .given(move |model| model.endpoints.get_mut(&Addr::from(narrow)).unwrap().zone = NET3.zone)
            .refused(DropReason::OtherNetwork, IcmpError::Prohibited),
        case(
            "multicast is left to the bridge",
            Frame::udp(one, at(f.multicast, 5353)).macs(NET1.mac, NET2.mac),
        )
        .passes(),
    ]
}

fn sources(f: &Family) -> Vec<Case> {
    let dns = at(f.www, 53);
    vec![
        Case::from_endpoint(
            NET1,
            "a neighbour's address is not an endpoint's own",
            Frame::udp(at(f.net2, 1), dns),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "a stranger's address is not an endpoint's own",
            Frame::udp(at(f.www, 1), at(f.peer, 53)),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "the host's address is not an endpoint's own",
            Frame::udp(at(f.host, 1), dns),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "the gateway's address is not an endpoint's own",
            Frame::udp(at(f.gateway, 1), at(f.net2, 53)),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "a loopback address is not an endpoint's own",
            Frame::udp(at(f.loopback, 1), dns),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(NET1, "a multicast address is nobody's own", Frame::udp(at(f.multicast, 1), dns))
            .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "a neighbour's hardware address is not an endpoint's own",
            Frame::udp(at(f.net1, 1), dns),
        )
        .link(Frame::udp(at(f.net1, 1), dns).macs(NET2.mac, NET1.gateway_mac))
        .dropped(DropReason::SourceMac),
        Case::from_endpoint(
            NET1,
            "an interface that vnet does not know sends nothing",
            Frame::udp(at(f.net1, 1), dns),
        )
        .at(NET2.ifindex)
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "an endpoint that vnet has forgotten sends nothing",
            Frame::udp(at(f.net1, 1), dns),
        )
        .given(|model| model.endpoints.clear())
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "an address that vnet has forgotten does not even reach neighbours",
            between(Frame::udp(at(f.nobody, 1), at(f.net2, 53))),
        )
        .dropped(DropReason::SourceAddress),
    ]
}

fn arp() -> Vec<Case> {
    let f = V4;
    let unspecified: IpAddr = "0.0.0.0".parse().unwrap();
    let case = |name: &str, frame: Frame| Case::from_endpoint(NET1, name, frame.clone()).link(frame);
    vec![
        case(
            "an endpoint asks who has its gateway's address",
            Frame::arp_request(NET1.mac, f.net1, f.gateway),
        )
        .passes(),
        case(
            "an endpoint that asks for its neighbour asks nobody else",
            Frame::arp_request(NET1.mac, f.net1, f.net2),
        )
        .switched(NET2),
        case(
            "an endpoint does not learn where another network's endpoint is",
            Frame::arp_request(NET1.mac, f.net1, f.net3),
        )
        .dropped(DropReason::OtherNetwork),
        case(
            "an endpoint of an isolated network does not learn where its neighbours are",
            Frame::arp_request(NET1.mac, f.net1, f.net2),
        )
        .given(|model| flag(model, NetworkValue::FLAG_ISOLATED))
        .dropped(DropReason::Isolated),
        case("an endpoint says where it is", Frame::arp_reply(NET1.mac, f.net1, NET2.mac, f.net2)).passes(),
        case("an endpoint announces its address", Frame::arp_request(NET1.mac, f.net1, f.net1)).passes(),
        case(
            "an endpoint asks whether an address is free",
            Frame::arp_request(NET1.mac, unspecified, f.net1),
        )
        .passes(),
        case(
            "an endpoint cannot say it is its neighbour",
            Frame::arp_reply(NET1.mac, f.net2, NET2.mac, f.gateway),
        )
        .dropped(DropReason::NeighbourSpoof),
        case("an endpoint cannot ask as its neighbour", Frame::arp_request(NET1.mac, f.net2, f.gateway))
            .dropped(DropReason::NeighbourSpoof),
        case(
            "an endpoint cannot say it is the gateway",
            Frame::arp_reply(NET1.mac, f.gateway, NET2.mac, f.net2),
        )
        .dropped(DropReason::NeighbourSpoof),
        case(
            "an endpoint cannot say its address is at another's hardware address",
            Frame::arp_reply(NET2.mac, f.net1, NET2.mac, f.net2),
        )
        .dropped(DropReason::NeighbourSpoof),
        case(
            "an ARP message cut short is malformed",
            Frame::arp_request(NET1.mac, f.net1, f.gateway).truncate(41),
        )
        .dropped(DropReason::Malformed),
        case(
            "an ARP message too short to be anything is malformed",
            Frame::arp_request(NET1.mac, f.net1, f.gateway).truncate(20),
        )
        .dropped(DropReason::Malformed),
        case(
            "an ARP message about something else than IPv4 is malformed",
            Frame::arp_request(NET1.mac, f.net1, f.gateway).flip(16),
        )
        .dropped(DropReason::Malformed),
        Case::from_uplink("ARP from the world passes", Frame::arp_request(NET1.mac, f.net1, f.host)).passes(),
    ]
}

fn neighbour_discovery() -> Vec<Case> {
    let f = V6;
    let unspecified: IpAddr = "::".parse().unwrap();
    let all_routers: IpAddr = "ff02::16".parse().unwrap();
    let link_local = NET1.addrs[2];
    let case = |name: &str, frame: Frame| Case::from_endpoint(NET1, name, frame.clone()).link(frame);
    let advertise = |sender: IpAddr, target: IpAddr| {
        Frame::neighbour_advertisement(NET1.mac, sender, f.net2, target).macs(NET1.mac, NET2.mac)
    };
    vec![
        case("an endpoint asks for its gateway", Frame::neighbour_solicitation(NET1.mac, f.net1, f.gateway))
            .passes(),
        case(
            "an endpoint asks whether an address is free before it has one",
            Frame::neighbour_solicitation(NET1.mac, unspecified, f.net1),
        )
        .passes(),
        case(
            "an endpoint reports its groups before it has an address",
            Frame::icmp(unspecified, all_routers, 143, 0)
                .ttl(1)
                .macs(NET1.mac, Mac::new([0x33, 0x33, 0, 0, 0, 0x16])),
        )
        .passes(),
        case(
            "an endpoint without an address talks to nobody in particular",
            Frame::udp(at(unspecified, 1), at(f.net2, 53)).macs(NET1.mac, NET2.mac),
        )
        .dropped(DropReason::SourceAddress),
        case("an endpoint says where it is in IPv6", advertise(f.net1, f.net1)).switched(NET2),
        case("an endpoint says where its link-local address is", advertise(f.net1, link_local))
            .switched(NET2),
        case("an endpoint cannot say it is its neighbour in IPv6", advertise(f.net1, f.net2))
            .dropped(DropReason::NeighbourSpoof),
        case("an endpoint cannot say it is the gateway in IPv6", advertise(f.net1, f.gateway))
            .dropped(DropReason::NeighbourSpoof),
        case(
            "an advertisement cut short is malformed",
            Frame::icmp(f.net1, f.net2, 136, 0).ttl(255).macs(NET1.mac, NET2.mac),
        )
        .dropped(DropReason::Malformed),
        case("an endpoint is no router", Frame::router_advertisement(NET1.mac, link_local))
            .dropped(DropReason::RouterAdvertisement),
        case(
            "an endpoint redirects nobody",
            Frame::icmp(link_local, f.net2, 137, 0).payload(&[0; 32]).ttl(255).macs(NET1.mac, NET2.mac),
        )
        .dropped(DropReason::RouterAdvertisement),
        case(
            "an endpoint asks for routers",
            Frame::icmp(link_local, "ff02::2".parse().unwrap(), 133, 0)
                .ttl(255)
                .macs(NET1.mac, Mac::new([0x33, 0x33, 0, 0, 0, 2])),
        )
        .passes(),
        Case::from_uplink(
            "a router advertisement from the world passes",
            Frame::router_advertisement(NET1.mac, link_local),
        )
        .passes(),
    ]
}

fn link_local() -> Vec<Case> {
    let [_, global, own] = NET1.addrs;
    let [_, _, neighbour] = NET2.addrs;
    let gateway: IpAddr = "fe80::1".parse().unwrap();
    vec![
        Case::from_endpoint(
            NET1,
            "neighbours talk by link-local addresses",
            between(Frame::udp(at(own, 1), at(neighbour, 53))),
        )
        .link(between(Frame::udp(at(own, 1), at(neighbour, 53))))
        .switched(NET2),
        Case::from_endpoint(
            NET1,
            "an endpoint talks to its gateway's link-local address",
            Frame::udp(at(own, 1), at(gateway, 53)),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a packet from a link-local address is not for the world",
            Frame::udp(at(own, 1), at(V6.www, 53)),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a packet to a link-local address is not for the world",
            Frame::udp(at(global, 1), at(gateway, 53)),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a neighbour's link-local address is not an endpoint's own",
            Frame::udp(at(neighbour, 1), at(gateway, 53)),
        )
        .dropped(DropReason::SourceAddress),
    ]
}

fn other_ethertypes() -> Vec<Case> {
    let dns = at(V4.www, 53);
    let broadcast: IpAddr = "255.255.255.255".parse().unwrap();
    let directed: IpAddr = "192.168.0.255".parse().unwrap();
    vec![
        Case::from_endpoint(
            NET1,
            "an endpoint does not tag its frames",
            Frame::udp(at(V4.net1, 1), dns).vlan(5),
        )
        .dropped(DropReason::EtherType),
        Case::from_endpoint(
            NET1,
            "an endpoint does not tag its frames twice",
            Frame::udp(at(V4.net1, 1), dns).vlan(5).vlan(6),
        )
        .dropped(DropReason::EtherType),
        Case::from_endpoint(NET1, "an endpoint does not speak LLDP", Frame::raw(0x88cc, &[0; 50]))
            .dropped(DropReason::EtherType),
        Case::from_endpoint(
            NET1,
            "an endpoint does not speak spanning tree",
            Frame::raw(0x0026, &[0x42; 50]),
        )
        .dropped(DropReason::EtherType),
        Case::from_uplink("LLDP from the world passes", Frame::raw(0x88cc, &[0; 50])).passes(),
        Case::from_endpoint(
            NET1,
            "a broadcast is left to the bridge",
            Frame::udp(at(V4.net1, 1), at(broadcast, 67)),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a broadcast on the network is left to the bridge",
            Frame::udp(at(V4.net1, 1), at(directed, 67)),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "an endpoint offers nobody a lease",
            Frame::udp(at(V4.net1, 67), at(broadcast, 68)),
        )
        .dropped(DropReason::DhcpServer),
        Case::from_endpoint(
            NET1,
            "nor does it to a neighbour directly",
            Frame::udp(at(V4.net1, 67), at(V4.net2, 68)),
        )
        .dropped(DropReason::DhcpServer),
        Case::from_endpoint(NET1, "nor one of IPv6", Frame::udp(at(V6.net1, 547), at(V6.net2, 546)))
            .dropped(DropReason::DhcpServer),
        Case::from_endpoint(
            NET1,
            "a lease is asked for by nobody: vnet gives addresses out",
            Frame::udp(at("0.0.0.0".parse().unwrap(), 68), at(broadcast, 67)),
        )
        .dropped(DropReason::SourceAddress),
    ]
}
