//! Who may reach an endpoint, and as whom it is seen: restricted ports, floating addresses, destinations that
//! masquerade leaves alone, and the gateway modes of a network.

use std::net::{IpAddr, SocketAddr};

use vnet_common::{
    Addr, CtState, DatapathConfig, DropReason, FloatingValue, HostAddressValue, MasqueradeValue,
    NetworkValue, Port, PortMapKey, PortMapValue, PortRange, Proto,
};
use vnet_datapath::model::Model;
use vnet_tests::case::world::{Family, NET1, NET2, NET3, UPLINK, at, prefix, published, subnets};
use vnet_tests::case::{Case, Flow};
use vnet_tests::frame::{Frame, IcmpError};

use super::for_both_families;
use super::mappings::usual;
use super::masquerade::{echo, flag};

const TCP: Proto = Proto::TCP;
const UDP: Proto = Proto::UDP;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 7] =
        [restricted, floating_in, floating_out, exempt, unprotected, routed, respected];
    subjects.into_iter().flat_map(for_both_families).collect()
}

fn syn(from: SocketAddr, to: SocketAddr) -> Frame {
    Frame::tcp(from, to).syn()
}

/// Restricts a mapping to a prefix.
fn allow_from(id: u32, client: IpAddr, bits: u32) -> impl FnOnce(&mut Model) {
    move |model| {
        for mapping in model.port_map.values_mut().filter(|mapping| mapping.id == id) {
            mapping.flags |= PortMapValue::FLAG_RESTRICTED;
        }
        model.allow_from.insert((id, prefix(client, bits)), 0);
    }
}

fn restricted(f: &Family) -> Vec<Case> {
    let (client, web, server) = (at(f.www, 1234), at(f.host, published::WEB.port), at(f.net1, 80));
    let bits = if f.net1.is_ipv4() { 24 } else { 64 };
    let other_family = vnet_tests::case::world::FAMILIES
        .into_iter()
        .find(|other| other.name != f.name)
        .expect("there are two");
    let other_bits = if f.net1.is_ipv4() { 64 } else { 24 };
    let flow = Flow::published(TCP, client, web, server).by(1);
    let sibling = at(f.net2, 50_000);
    let block = at(f.host, 8197);
    vec![
        Case::from_uplink("a restricted port is open to a client with an allowed prefix", syn(client, web))
            .given(allow_from(1, f.www, bits))
            .delivered(NET1, syn(client, server))
            .leaves([flow.just_seen()]),
        Case::from_uplink("a restricted port is closed to any other", syn(at(f.peer, 1234), web))
            .given(allow_from(1, f.www, bits))
            .dropped(DropReason::NotAllowed),
        Case::from_uplink(
            "a restricted port is closed to a family of which nobody is allowed",
            syn(client, web),
        )
        .given(allow_from(1, other_family.www, other_bits))
        .dropped(DropReason::NotAllowed),
        Case::from_uplink("a prefix may be all of a family", syn(at(f.peer, 9), web))
            .given(allow_from(1, f.www, 0))
            .delivered(NET1, syn(at(f.peer, 9), server))
            .leaves([Flow::published(TCP, at(f.peer, 9), web, server).by(1).just_seen()]),
        Case::from_uplink("prefixes of one mapping are none of another", syn(client, at(f.host, 8089)))
            .given(allow_from(4, f.peer, bits))
            .given(allow_from(1, f.www, bits))
            .dropped(DropReason::NotAllowed),
        Case::from_uplink("a restricted block is restricted as a whole", syn(client, block))
            .given(allow_from(5, f.peer, bits))
            .dropped(DropReason::NotAllowed),
        Case::from_uplink(
            "a connection that has begun outlives its permission",
            Frame::tcp(client, web).ack(),
        )
        .given(allow_from(1, f.peer, bits))
        .tracked([flow.established()])
        .delivered(NET1, Frame::tcp(client, server).ack())
        .leaves([flow.established().just_seen()]),
        Case::from_endpoint(NET1, "a restricted port's answers leave", Frame::tcp(server, client).ack())
            .given(allow_from(1, f.peer, bits))
            .tracked([flow.established()])
            .forwarded(Frame::tcp(web, client).ack())
            .leaves([flow.established().just_seen()]),
        Case::from_endpoint(NET2, "a restricted port is closed to neighbours too", syn(sibling, web))
            .given(allow_from(1, f.www, bits))
            .dropped(DropReason::NotAllowed),
        Case::from_endpoint(NET2, "unless their network is allowed", syn(sibling, web))
            .given(allow_from(1, f.net2, bits))
            .delivered(NET1, syn(at(f.host, 50_000), server))
            .leaves([Flow::hairpin(TCP, sibling, web, (server, 50_000)).by(1).just_seen()]),
    ]
}

/// Gives the first endpoint a floating address, both ways.
fn float(f: &Family) -> impl FnOnce(&mut Model) + use<> {
    let (addr, net1) = (Addr::from(f.spare), f.net1);
    move |model| {
        usual(model);
        let value = FloatingValue { addr: net1.into(), zone: NET1.zone, reserved: [0; 2] };
        model.floating.insert(addr, value);
        model.host_addresses.insert(addr, HostAddressValue { ifindex: UPLINK });
        let alone = prefix(net1, if net1.is_ipv4() { 32 } else { 128 });
        let rule = MasqueradeValue { to: addr, flags: MasqueradeValue::FLAG_ONE_TO_ONE };
        model.masquerade.insert(alone, rule);
    }
}

fn floating_in(f: &Family) -> Vec<Case> {
    let out = f.spare;
    let client = at(f.www, 1234);
    let ping = |to| Frame::echo_request(f.www, to, 7, 1);
    let pong = |from| Frame::echo_reply(from, f.www, 7, 1);
    let pinged = Flow::published(echo(f), at(f.www, 7), at(out, 7), at(f.net1, 7));
    let (dialled, own) = (at(out, 22), at(f.net1, 22));
    let flow = Flow::published(TCP, client, dialled, own);
    let sibling = at(f.net2, 50_000);
    vec![
        Case::from_uplink("a floating address leads to its endpoint, any port of TCP", syn(client, dialled))
            .given(float(f))
            .delivered(NET1, syn(client, own))
            .leaves([flow.just_seen()]),
        Case::from_uplink("any port of UDP", Frame::udp(client, at(out, 60_000)))
            .given(float(f))
            .delivered(NET1, Frame::udp(client, at(f.net1, 60_000)))
            .leaves([Flow::published(UDP, client, at(out, 60_000), at(f.net1, 60_000)).just_seen()]),
        Case::from_uplink("and pings", ping(out))
            .given(float(f))
            .delivered(NET1, ping(f.net1))
            .leaves([pinged.just_seen()]),
        Case::from_endpoint(
            NET1,
            "a floating address's answer leaves as from it",
            Frame::tcp(own, client).syn().ack(),
        )
        .given(float(f))
        .tracked([flow])
        .forwarded(Frame::tcp(dialled, client).syn().ack())
        .leaves([flow.in_state(CtState::Answered).just_seen()]),
        Case::from_endpoint(NET1, "a floating address answers pings", pong(f.net1))
            .given(float(f))
            .tracked([pinged])
            .forwarded(pong(out))
            .leaves([pinged.in_state(CtState::Answered).just_seen()]),
        Case::from_uplink(
            "a floating address comes before what is published on all",
            syn(client, at(out, 8088)),
        )
        .given(float(f))
        .delivered(NET1, syn(client, at(f.net1, 8088)))
        .leaves([Flow::published(TCP, client, at(out, 8088), at(f.net1, 8088)).just_seen()]),
        Case::from_uplink("a reset to a floating address opens nothing", Frame::tcp(client, dialled).rst())
            .given(float(f))
            .passes(),
        Case::from_uplink(
            "a client of a floating address with an endpoint's address is forged",
            syn(at(f.net2, 1), dialled),
        )
        .given(float(f))
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(NET2, "a neighbour reaches a floating address", syn(sibling, dialled))
            .given(float(f))
            .delivered(NET1, syn(at(out, 50_000), own))
            .leaves([Flow::hairpin(TCP, sibling, dialled, (own, 50_000)).just_seen()]),
        Case::from_endpoint(
            NET2,
            "a neighbour pings a floating address",
            Frame::echo_request(f.net2, out, 9, 1),
        )
        .given(float(f))
        .delivered(NET1, Frame::echo_request(out, f.net1, 9, 1))
        .leaves([Flow::hairpin(echo(f), at(f.net2, 9), at(out, 9), (at(f.net1, 9), 9)).just_seen()]),
        Case::from_uplink("a floating address whose endpoint is gone drops", syn(client, dialled))
            .given(float(f))
            .given(|model| model.endpoints.remove(&own.ip().into()))
            .dropped(DropReason::NoSuchEndpoint),
    ]
}

fn floating_out(f: &Family) -> Vec<Case> {
    let out = f.spare;
    let (client, server) = (at(f.net1, 1234), at(f.www, 80));
    let ping = |from| Frame::echo_request(from, f.www, 7, 1);
    let tcp = Flow::masqueraded(TCP, client, server, 1234).seen_as(out);
    let incoming = Flow::published(UDP, server, at(out, 1234), client);
    vec![
        Case::from_endpoint(
            NET1,
            "an endpoint with a floating address leaves by it, from its own port",
            syn(client, server),
        )
        .given(float(f))
        .forwarded(syn(at(out, 1234), server))
        .leaves([tcp.just_seen()]),
        Case::from_endpoint(
            NET1,
            "so does UDP, without a mapping: all of its ports are mapped",
            Frame::udp(client, server),
        )
        .given(float(f))
        .forwarded(Frame::udp(at(out, 1234), server))
        .leaves([Flow::masqueraded(UDP, client, server, 1234).seen_as(out).just_seen()]),
        Case::from_endpoint(NET1, "and so do pings", ping(f.net1))
            .given(float(f))
            .forwarded(ping(out))
            .leaves([Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 7).seen_as(out).just_seen()]),
        Case::from_uplink(
            "an answer to a floating address finds back",
            Frame::tcp(server, at(out, 1234)).syn().ack(),
        )
        .given(float(f))
        .tracked([tcp])
        .delivered(NET1, Frame::tcp(server, client).syn().ack())
        .leaves([tcp.established().just_seen()]),
        Case::from_endpoint(
            NET1,
            "an answer to who came by the floating address is no flow of its own",
            Frame::udp(client, server),
        )
        .given(float(f))
        .tracked([incoming])
        .forwarded(Frame::udp(at(out, 1234), server))
        .leaves([incoming.in_state(CtState::Answered).just_seen()]),
        Case::from_endpoint(
            NET2,
            "a neighbour of it leaves as the host",
            Frame::tcp(at(f.net2, 50_000), server).syn(),
        )
        .given(float(f))
        .forwarded(syn(at(f.host, 50_000), server))
        .leaves([Flow::masqueraded(TCP, at(f.net2, 50_000), server, 50_000).just_seen()]),
    ]
}

fn exempt(f: &Family) -> Vec<Case> {
    let (client, server) = (at(f.net1, 1234), at(f.www, 53));
    let bits = if f.net1.is_ipv4() { 24 } else { 64 };
    let www = f.www;
    let exempted = move |model: &mut Model| {
        usual(model);
        model.unmasqueraded.insert(prefix(www, bits), 0);
    };
    let [subnet, _] = subnets(f);
    let own = Flow::masqueraded(UDP, client, server, 1234).seen_as(f.net1);
    vec![
        Case::from_endpoint(
            NET1,
            "T6888-6: to an exempt destination an endpoint keeps its own address",
            Frame::udp(client, server),
        )
        .given(exempted)
        .forwarded(Frame::udp(client, server))
        .leaves([own.just_seen()]),
        Case::from_uplink("T6888-6: and is answered there", Frame::udp(server, client))
            .given(exempted)
            .tracked([own])
            .delivered(NET1, Frame::udp(server, client))
            .leaves([own.established().just_seen()]),
        Case::from_uplink("T6888-6: but not addressed", Frame::udp(at(f.www, 54), client))
            .given(exempted)
            .tracked([own])
            .dropped(DropReason::DirectAccess),
        Case::from_endpoint(
            NET1,
            "T6888-6: other destinations see the host",
            syn(at(f.net1, 50_000), at(f.peer, 80)),
        )
        .given(exempted)
        .forwarded(syn(at(f.host, 50_000), at(f.peer, 80)))
        .leaves([Flow::masqueraded(TCP, at(f.net1, 50_000), at(f.peer, 80), 50_000).just_seen()]),
        Case::from_endpoint(NET1, "a rule may exempt a source", Frame::udp(client, server))
            .given(usual)
            .given(move |model| {
                let to = Addr::from(www).any_of_family();
                let rule = MasqueradeValue { to, flags: MasqueradeValue::FLAG_EXEMPT };
                model.masquerade.insert(subnet, rule)
            })
            .forwarded(Frame::udp(client, server))
            .leaves([own.just_seen()]),
        Case::from_endpoint(
            NET1,
            "an exempt destination needs no rule for the source",
            Frame::udp(client, server),
        )
        .given(exempted)
        .given(move |model| model.masquerade.remove(&subnet))
        .forwarded(Frame::udp(client, server))
        .leaves([own.just_seen()]),
        Case::to_uplink(
            "the stack's packets to an exempt destination keep their address",
            Frame::udp(client, server),
        )
        .given(exempted)
        .passes_as(Frame::udp(client, server))
        .leaves([own.just_seen()]),
    ]
}

/// Gives network 1 and its endpoints a flag.
fn gateway_mode(which: u8) -> impl FnOnce(&mut Model) {
    move |model| {
        usual(model);
        flag(model, which);
        for network in model.networks.values_mut().filter(|network| network.zone == NET1.zone) {
            network.flags |= which;
        }
    }
}

fn unprotected(f: &Family) -> Vec<Case> {
    let mode = || gateway_mode(NetworkValue::FLAG_UNPROTECTED);
    let (client, server) = (at(f.www, 1234), at(f.net1, 80));
    let direct = Flow::published(TCP, client, server, server);
    let ping = Frame::echo_request(f.www, f.net1, 7, 1);
    vec![
        Case::from_uplink("an endpoint of an unprotected network is addressed directly", syn(client, server))
            .given(mode())
            .delivered(NET1, syn(client, server))
            .leaves([direct.just_seen()]),
        Case::from_endpoint(NET1, "and answers as itself", Frame::tcp(server, client).syn().ack())
            .given(mode())
            .tracked([direct])
            .forwarded(Frame::tcp(server, client).syn().ack())
            .leaves([direct.in_state(CtState::Answered).just_seen()]),
        Case::from_uplink("it is pinged directly", ping.clone())
            .given(mode())
            .delivered(NET1, ping)
            .leaves([Flow::published(echo(f), at(f.www, 7), at(f.net1, 7), at(f.net1, 7)).just_seen()]),
        Case::from_endpoint(
            NET1,
            "what it begins itself is masqueraded",
            syn(at(f.net1, 50_000), at(f.www, 80)),
        )
        .given(mode())
        .forwarded(syn(at(f.host, 50_000), at(f.www, 80)))
        .leaves([Flow::masqueraded(TCP, at(f.net1, 50_000), at(f.www, 80), 50_000).just_seen()]),
        Case::from_uplink("other networks are as protected as before", syn(client, at(f.net3, 80)))
            .given(mode())
            .dropped(DropReason::DirectAccess),
        Case::from_uplink("nobody addresses it in an endpoint's name", syn(at(f.net3, 9), server))
            .given(mode())
            .dropped(DropReason::SourceAddress),
        Case::from_uplink(
            "an address of an unprotected network that is nobody's leads nowhere",
            syn(client, at(f.nobody, 80)),
        )
        .given(mode())
        .dropped(DropReason::NoSuchEndpoint),
        Case::from_endpoint(NET3, "endpoints of other networks stay out", syn(at(f.net3, 9), server))
            .given(mode())
            .refused(DropReason::OtherNetwork, IcmpError::Prohibited),
        Case::from_uplink("a protocol without ports stays out", Frame::protocol(f.www, f.net1, 47))
            .given(mode())
            .dropped(DropReason::DirectAccess),
    ]
}

/// Publishes a port of an endpoint on its own address.
fn publish(server: SocketAddr, id: u32) -> impl FnOnce(&mut Model) {
    move |model| {
        let port = Port::new(server.port());
        let key = PortMapKey { addr: server.ip().into(), port, proto: TCP, prefix_len: 16 };
        let value = PortMapValue { addr: server.ip().into(), port, zone: NET1.zone, id, flags: 0 };
        model.port_map.insert(key, value);
    }
}

fn routed(f: &Family) -> Vec<Case> {
    let mode = || gateway_mode(NetworkValue::FLAG_ROUTED);
    let (client, server) = (at(f.www, 1234), at(f.net1, 80));
    let own = at(f.net1, 1234);
    let direct = Flow::published(TCP, client, server, server).by(30);
    let ping = Frame::echo_request(f.www, f.net1, 7, 1);
    let bits = if f.net1.is_ipv4() { 24 } else { 64 };
    vec![
        Case::from_endpoint(NET1, "a routed endpoint leaves as itself", syn(own, at(f.www, 80)))
            .given(mode())
            .forwarded(syn(own, at(f.www, 80)))
            .leaves([Flow::masqueraded(TCP, own, at(f.www, 80), 1234).seen_as(f.net1).just_seen()]),
        Case::from_endpoint(
            NET1,
            "UDP of a routed endpoint needs no mapping",
            Frame::udp(own, at(f.www, 53)),
        )
        .given(mode())
        .forwarded(Frame::udp(own, at(f.www, 53)))
        .leaves([Flow::masqueraded(UDP, own, at(f.www, 53), 1234).seen_as(f.net1).just_seen()]),
        Case::from_uplink(
            "what is published for a routed endpoint answers on its own address",
            syn(client, server),
        )
        .given(mode())
        .given(publish(server, 30))
        .delivered(NET1, syn(client, server))
        .leaves([direct.just_seen()]),
        Case::from_uplink("no other port does", syn(client, at(f.net1, 81)))
            .given(mode())
            .given(publish(server, 30))
            .dropped(DropReason::DirectAccess),
        Case::from_uplink(
            "a port published on all addresses of the host is none of a routed endpoint's",
            syn(client, at(f.net1, 8088)),
        )
        .given(mode())
        .dropped(DropReason::DirectAccess),
        Case::from_uplink("a routed endpoint's port may be restricted", syn(client, server))
            .given(mode())
            .given(publish(server, 30))
            .given(allow_from(30, f.peer, bits))
            .dropped(DropReason::NotAllowed),
        Case::from_uplink("and is then open to those it is for", syn(client, server))
            .given(mode())
            .given(publish(server, 30))
            .given(allow_from(30, f.www, bits))
            .delivered(NET1, syn(client, server))
            .leaves([direct.just_seen()]),
        Case::from_uplink("a routed endpoint is pinged", ping.clone())
            .given(mode())
            .delivered(NET1, ping)
            .leaves([Flow::published(echo(f), at(f.www, 7), at(f.net1, 7), at(f.net1, 7)).just_seen()]),
    ]
}

/// Where the host's firewall is to be asked, the first packets of strangers go through its stack, translated.
fn respected(f: &Family) -> Vec<Case> {
    let respect = |model: &mut Model| model.config.flags |= DatapathConfig::FLAG_RESPECT_FIREWALL;
    let (client, web, server) = (at(f.www, 1234), at(f.host, published::WEB.port), at(f.net1, 80));
    let flow = Flow::published(TCP, client, web, server).by(1);
    let own = at(f.net2, 50_000);
    let asked = Flow::masqueraded(Proto::UDP, own, at(f.www, 53), 50_000);
    vec![
        Case::from_uplink("the host's firewall is asked about a new connection", syn(client, web))
            .given(respect)
            .passes_as(syn(client, server))
            .leaves([flow.just_seen()]),
        Case::from_uplink("and again until there is an answer", syn(client, web))
            .given(respect)
            .tracked([flow])
            .passes_as(syn(client, server))
            .leaves([flow.just_seen()]),
        Case::from_uplink("and not about what both sides have begun", Frame::tcp(client, web).ack())
            .given(respect)
            .tracked([flow.established()])
            .delivered(NET1, Frame::tcp(client, server).ack())
            .leaves([flow.established().just_seen()]),
        Case::from_uplink(
            "nor about the answer to what an endpoint has begun",
            Frame::udp(at(f.www, 53), at(f.host, 50_000)),
        )
        .given(respect)
        .tracked([asked])
        .delivered(NET2, Frame::udp(at(f.www, 53), own))
        .leaves([asked.established().just_seen()]),
        Case::from_endpoint(NET2, "and not about what endpoints begin", syn(own, web))
            .given(respect)
            .given(|model| model.config.nat_ports = PortRange { first: 50_000, last: 50_000 })
            .delivered(NET1, syn(at(f.host, 50_000), server))
            .leaves([Flow::hairpin(TCP, own, web, (server, 50_000)).by(1).just_seen()]),
    ]
}
