//! Bugs that fuzzing has found, each as the shortest story that shows it.

use std::net::{IpAddr, Ipv4Addr};

use vnet_common::mapping::ENDPOINT_INDEPENDENT_UDP;
use vnet_common::{
    Addr, DropReason, Hook, NetworkValue, Port, PortMapKey, PortMapValue, PortRange, PrefixKey, Proto, Tuple,
    Zone, filtering,
};
use vnet_tests::case::world::{
    BRIDGE, Endpoint, FAMILIES, Family, HOST_MAC, NET1, NET2, PEER_MAC, STRAY, UPLINK, V4, at, published,
    world,
};
use vnet_tests::frame::Frame;
use vnet_tests::runner::{Arrival, Fate, Host, Outcome, Runner as _};

/// The world of the packet table, where every UDP socket has one external port.
fn host() -> Host {
    let mut model = world();
    for endpoint in model.endpoints.values_mut() {
        (endpoint.mapping, endpoint.filtering) = (ENDPOINT_INDEPENDENT_UDP, filtering::ADDRESS);
    }
    let mut host = Host::default();
    host.fill(&model);
    host
}

fn run(host: &mut Host, hook: Hook, ifindex: u32, frame: &[u8]) -> Outcome {
    let arrival = Arrival { hook, ifindex, came_in_by: 0, waited: false, segment: 0, frame };
    host.run(&arrival).expect("the host runs anything")
}

fn sent(host: &mut Host, sender: Endpoint, frame: &Frame) -> Outcome {
    let bytes = frame.clone().macs(sender.mac, sender.gateway_mac).build();
    run(host, Hook::FromEndpoint, sender.ifindex, &bytes)
}

fn received(host: &mut Host, frame: &Frame) -> Outcome {
    run(host, Hook::FromUplink, UPLINK, &frame.clone().macs(PEER_MAC, HOST_MAC).build())
}

/// The source port that a datagram gets.
fn external_port(outcome: &Outcome) -> u16 {
    let (_, translated) = outcome.began.first().unwrap_or_else(|| panic!("no flow began: {outcome:?}"));
    translated.sport.number()
}

fn mapped(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => IpAddr::V6(addr.to_ipv6_mapped()),
        IpAddr::V6(_) => addr,
    }
}

/// `::ffff:192.168.0.2` in an IPv6 header was taken for the endpoint's IPv4 address, and the packet was masqueraded.
#[test]
fn an_ipv4_address_in_an_ipv6_header_is_nobodys() {
    let (net1, www, public) = (mapped(V4.net1), mapped(V4.www), mapped(V4.host));
    let mut host = host();
    for (from, to) in [(net1, www), (net1, FAMILIES[1].www), (FAMILIES[1].net1, www)] {
        let frame = Frame::udp(at(from, 50_000), at(to, 53));
        assert_eq!(sent(&mut host, NET1, &frame).fate, Fate::Dropped(DropReason::Malformed), "{frame}");
    }
    let frame = Frame::tcp(at(www, 50_000), at(public, published::WEB.port)).syn();
    assert_eq!(received(&mut host, &frame).fate, Fate::Passed, "{frame}");
}

/// What vnet could not read passed to the stack, which reads no transport header and, if it forwards, sends it on.
#[test]
fn what_cannot_be_read_does_not_reach_an_endpoint_from_outside() {
    for Family { www, net1, host, .. } in FAMILIES {
        let (header, mut ours) = (if www.is_ipv4() { 34 } else { 54 }, self::host());
        let frame = |to| Frame::udp(at(www, 1), at(to, 2)).flip(header + 4);
        assert_eq!(received(&mut ours, &frame(net1)).fate, Fate::Dropped(DropReason::Malformed));
        assert_eq!(received(&mut ours, &frame(host)).fate, Fate::Passed, "that is the host's to judge");
    }
}

/// From an interface that is no uplink, everybody was let in to what is published for some on an endpoint's own address.
#[test]
fn a_restricted_port_is_restricted_whatever_interface_its_clients_come_by() {
    for Family { www, peer, net1, .. } in FAMILIES {
        let mut ours = self::host();
        let model = ours.model();
        model.endpoints.values_mut().for_each(|endpoint| endpoint.flags |= NetworkValue::FLAG_ROUTED);
        let key = PortMapKey { addr: net1.into(), port: Port::new(80), proto: Proto::TCP, prefix_len: 16 };
        let (addr, port, zone) = (net1.into(), key.port, NET1.zone);
        let value = PortMapValue { addr, port, zone, id: 70, flags: PortMapValue::FLAG_RESTRICTED };
        model.port_map.insert(key, value);
        model.allow_from.insert((value.id, PrefixKey::host(www.into())), 0);
        for (client, expected) in [(www, Fate::Passed), (peer, Fate::Dropped(DropReason::NotAllowed))] {
            let frame = Frame::tcp(at(client, 50_000), at(net1, 80)).syn().build();
            let (hook, ifindex) = (Hook::ToBridge, BRIDGE);
            let arrival =
                Arrival { hook, ifindex, came_in_by: STRAY, waited: false, segment: 0, frame: &frame };
            assert_eq!(ours.run(&arrival).expect("the host runs anything").fate, expected, "{client}");
        }
    }
}

/// A datagram to a neighbour by an address of the host replaced the mapping, and the next one to the world got another
/// external port.
#[test]
fn a_hairpin_leaves_the_external_port_towards_the_world_alone() {
    for Family { www, peer, net1, net2, host, gateway, .. } in FAMILIES {
        let mut ours = self::host();
        // Ports that masquerade does not keep, so that each mapping draws one.
        let (from, neighbour) = (at(net1, 1000), at(net2, 2000));
        let first = external_port(&sent(&mut ours, NET1, &Frame::udp(from, at(www, 53))));
        let by_gateway = Frame::udp(from, at(gateway, published::DNS.port));
        assert_eq!(sent(&mut ours, NET1, &by_gateway).fate, Fate::Delivered);
        let open = external_port(&sent(&mut ours, NET2, &Frame::udp(neighbour, at(www, 53))));
        let by_mapping = Frame::udp(from, at(host, open));
        assert_eq!(external_port(&sent(&mut ours, NET1, &by_mapping)), first, "seen from the neighbour");
        assert_eq!(external_port(&sent(&mut ours, NET1, &Frame::udp(from, at(peer, 53)))), first);
    }
}

/// Who had been sent to by the last owner of an external port could send to its next one.
#[test]
fn a_port_that_has_another_owner_is_open_to_none_of_the_last_ones_peers() {
    let Family { www, net1, net2, host: external, .. } = V4;
    let mut host = host();
    host.model().config.nat_ports = PortRange { first: 50_000, last: 50_000 };
    sent(&mut host, NET1, &Frame::udp(at(net1, 50_000), at(www, 53)));
    let again = Frame::udp(at(www, 54), at(external, 50_000));
    assert_eq!(received(&mut host, &again).fate, Fate::Delivered, "from another port of the same peer");

    // The mapping makes room for others, but not what says who was sent to.
    let any = Addr::v4(Ipv4Addr::UNSPECIFIED.octets());
    let is_mapping = |key: &Tuple| key.zone != Zone::WORLD || key.src == any;
    host.model().mappings.get_mut().retain(|key, _| !is_mapping(key));
    sent(&mut host, NET2, &Frame::udp(at(net2, 50_000), at(V4.peer, 53)));
    let stranger = Frame::udp(at(www, 55), at(external, 50_000));
    assert_eq!(received(&mut host, &stranger).fate, Fate::Dropped(DropReason::Filtered));
}
