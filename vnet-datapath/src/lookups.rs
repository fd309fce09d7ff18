//! How long questions to name servers are remembered, and the ports that they have (RFC 4787 REQ-5a).

use bytemuck::Zeroable;
use vnet_common::mapping::ENDPOINT_INDEPENDENT_UDP;
use vnet_common::{
    Addr, DropReason, Hook, Port, PortMapKey, PortMapValue, PortRange, Proto, Tuple, Zone, filtering,
};

use crate::model::Model;
use crate::pipeline;
use crate::properties::{HOST, INSIDE, INSIDERS, Packet, UPLINK, WORLD, world};
use crate::{Place, Scratch, Slice, Verdict, parse};

/// Seconds that a question is remembered, by default.
const DNS: u32 = 10;
/// Seconds that other mappings are.
const LONG: u32 = 300;

type Socket = ([u8; 4], u16);

const ASKER: Socket = (INSIDERS[0], 40_000);
const OTHER: Socket = (INSIDERS[1], 40_001);
const SERVER: Socket = (WORLD[0], 53);
const ELSEWHERE: Socket = (WORLD[1], 3478);

/// The usual mappings, with so many ports for all.
fn with_ports(count: u16) -> Model {
    let mut model = world();
    for endpoint in model.endpoints.values_mut() {
        (endpoint.mapping, endpoint.filtering) = (ENDPOINT_INDEPENDENT_UDP, filtering::ADDRESS);
    }
    model.config.nat_ports = PortRange { first: 50_000, last: 50_000 + count - 1 };
    assert_eq!((model.config.dns, model.config.udp_replied), (DNS, LONG));
    model
}

/// What becomes of a datagram, and its tuple then.
fn run(model: &Model, from: Socket, to: Socket) -> (Result<Verdict, DropReason>, Tuple) {
    let inside = INSIDERS.contains(&from.0);
    let tuple = Tuple {
        src: Addr::v4(from.0),
        dst: Addr::v4(to.0),
        sport: Port::new(from.1),
        dport: Port::new(to.1),
        zone: if inside { INSIDE } else { Zone::WORLD },
        proto: Proto::UDP,
        reserved: 0,
    };
    let packet = Packet { tuple, flags: 0, hop_limit: 64, options: 0, checksum: true, payload: vec![7; 20] };
    let mut bytes = packet.bytes();
    let sender = model.endpoints.get(&tuple.src).map(|endpoint| endpoint.ifindex);
    let (hook, ifindex) = sender.map_or((Hook::FromUplink, UPLINK), |ifindex| (Hook::FromEndpoint, ifindex));
    let place = Place { ifindex, arrived: 0, waited: 0 };
    let verdict = pipeline::run(&mut Slice::new(&mut bytes), model, &mut Scratch::zeroed(), (hook, place));
    let mut becomes = Tuple::zeroed();
    parse(&Slice::new(&mut bytes), &mut bytemuck::Zeroable::zeroed(), &mut becomes)
        .expect("what was a packet is one");
    (verdict, becomes)
}

/// The external port of what an endpoint sends to the world, or why it does not leave.
fn sends(model: &Model, from: Socket, to: Socket) -> Result<u16, DropReason> {
    let (verdict, becomes) = run(model, from, to);
    verdict.map(|verdict| {
        assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
        assert_eq!(becomes.src, Addr::v4(HOST));
        becomes.sport.number()
    })
}

/// Whether what somebody outside sends to an external port reaches the endpoint.
fn reaches(model: &Model, from: Socket, port: u16) -> bool {
    matches!(run(model, from, (HOST, port)).0, Ok(Verdict::Deliver(_)))
}

#[test]
fn an_answer_comes_through_for_ten_seconds_and_keeps_the_flow_for_as_long_again() {
    let mut model = with_ports(4);
    let port = sends(&model, ASKER, SERVER).unwrap();
    for _ in 0..3 {
        model.clock += DNS;
        assert!(reaches(&model, SERVER, port), "at second {}", model.clock);
    }
    model.clock += DNS + 1;
    assert!(!reaches(&model, SERVER, port), "an answered question is over");
    let port = sends(&model, ASKER, SERVER).unwrap();
    model.clock += DNS + 1;
    assert!(!reaches(&model, SERVER, port), "and so is one without an answer");
    assert!(!reaches(&model, (SERVER.0, 54), port), "and its mapping");
    let both = |model: &Model| model.conntrack.borrow().len() + model.unconfirmed.borrow().len();
    assert_eq!(both(&model), 0, "both halves go when they are met");
}

#[test]
fn the_port_of_a_question_is_anothers_after_ten_seconds() {
    for answered in [false, true] {
        let mut model = with_ports(1);
        assert_eq!(sends(&model, ASKER, SERVER), Ok(50_000));
        assert!(!answered || reaches(&model, SERVER, 50_000));
        model.clock += DNS;
        for to in [SERVER, ELSEWHERE] {
            assert_eq!(sends(&model, OTHER, to), Err(DropReason::NoFreePort), "answered: {answered}");
        }
        model.clock += 1;
        assert_eq!(sends(&model, OTHER, SERVER), Ok(50_000), "answered: {answered}");
        assert_eq!(sends(&model, ASKER, SERVER), Err(DropReason::NoFreePort));
    }
}

#[test]
fn a_socket_that_sends_anything_else_keeps_its_port_as_others_do() {
    // First of all, in the midst of it, or to another port of the name server itself.
    let orders: [&[Socket]; 4] = [
        &[ELSEWHERE, SERVER],
        &[SERVER, ELSEWHERE],
        &[SERVER, ELSEWHERE, (WORLD[1], 53), SERVER],
        &[SERVER, (SERVER.0, 5353), SERVER],
    ];
    for order in orders {
        let mut model = with_ports(1);
        for to in order {
            assert_eq!(sends(&model, ASKER, *to), Ok(50_000));
            model.clock += 1;
        }
        // It asks on, each time after its last question is over.
        for _ in 0..3 {
            model.clock += DNS + 1;
            assert_eq!(sends(&model, ASKER, SERVER), Ok(50_000), "{order:?}");
        }
        model.clock += LONG;
        assert_eq!(sends(&model, OTHER, SERVER), Err(DropReason::NoFreePort), "{order:?}");
        model.clock += 1;
        assert_eq!(sends(&model, OTHER, SERVER), Ok(50_000), "{order:?}");
    }
}

#[test]
fn whom_a_socket_has_asked_may_write_to_it_for_ten_seconds_and_others_for_five_minutes() {
    let mut model = with_ports(1);
    let second = |(addr, _): Socket| (addr, 7);
    sends(&model, ASKER, SERVER).unwrap();
    sends(&model, ASKER, ELSEWHERE).unwrap();
    model.clock += DNS;
    assert!(reaches(&model, second(SERVER), 50_000) && reaches(&model, second(ELSEWHERE), 50_000));
    model.clock += 1;
    assert!(!reaches(&model, (SERVER.0, 8), 50_000), "what was asked");
    assert!(reaches(&model, (ELSEWHERE.0, 8), 50_000), "the mapping lives on for the other");
    // To whom the socket has sent something else is not forgotten for a question.
    sends(&model, ASKER, (ELSEWHERE.0, 53)).unwrap();
    model.clock += DNS + 1;
    assert!(reaches(&model, (ELSEWHERE.0, 9), 50_000));
}

#[test]
fn a_mapping_that_loses_a_half_is_not_forgotten_sooner() {
    for lost in [INSIDE, Zone::WORLD] {
        let mut model = with_ports(1);
        // A port that masquerade keeps: whose inner half is lost takes it anew.
        let asker = (ASKER.0, 50_000);
        sends(&model, asker, ELSEWHERE).unwrap();
        model.mappings.borrow_mut().retain(|key, _| key.zone != lost);
        assert_eq!(sends(&model, asker, SERVER), Ok(50_000));
        model.clock += LONG;
        assert_eq!(sends(&model, OTHER, SERVER), Err(DropReason::NoFreePort), "{lost:?}");
    }
}

/// Publishes an endpoint's name server.
fn publish(model: &mut Model, server: Socket, target: Socket) {
    let key = PortMapKey { addr: Addr::ANY_V4, port: Port::new(server.1), proto: Proto::UDP, prefix_len: 16 };
    let port = Port::new(target.1);
    let value = PortMapValue { addr: Addr::v4(target.0), port, zone: INSIDE, id: 9, flags: 0 };
    model.port_map.insert(key, value);
}

#[test]
fn what_others_ask_an_endpoint_is_remembered_as_ever() {
    let mut model = with_ports(1);
    let (server, target) = ((HOST, 53), (INSIDERS[2], 53));
    publish(&mut model, server, target);
    // A client's port may be anything.
    for client in [(WORLD[0], 5000), (WORLD[1], 53)] {
        for timeout in [model.config.udp_unreplied, model.config.udp_replied] {
            assert!(matches!(run(&model, client, server).0, Ok(Verdict::Deliver(_))));
            model.clock += timeout;
            let (verdict, becomes) = run(&model, target, client);
            assert!(matches!(verdict, Ok(Verdict::Forward(_))), "{verdict:?}");
            assert_eq!((becomes.src, becomes.sport.number()), (Addr::v4(server.0), server.1));
        }
    }
}

/// A neighbour is seen by an external port, which it holds no longer than towards the world.
#[test]
fn what_a_neighbour_asks_a_published_name_server_is_over_as_soon() {
    for (port, free) in [(53, true), (5353, false)] {
        let mut model = with_ports(1);
        let (server, target) = ((HOST, port), (INSIDERS[2], 53));
        publish(&mut model, server, target);
        let (verdict, becomes) = run(&model, ASKER, server);
        assert!(matches!(verdict, Ok(Verdict::Deliver(_))), "{verdict:?}");
        assert_eq!(becomes.sport.number(), 50_000);
        model.clock += DNS + 1;
        assert_eq!(sends(&model, OTHER, ELSEWHERE).is_ok(), free, "by port {port}");
    }
}

#[test]
fn few_ports_are_enough_for_many_questions() {
    const PORTS: u16 = 64;
    // Each from a socket of its own, and answered; three in a second.
    let asked = |model: &mut Model| {
        (0..10 * PORTS).find(|number| {
            model.clock += u32::from(number % 3 == 0);
            let port = sends(model, (ASKER.0, 1000 + number), SERVER);
            !port.is_ok_and(|port| reaches(model, SERVER, port))
        })
    };
    assert_eq!(asked(&mut with_ports(PORTS)), None, "all of them");
    let mut model = with_ports(PORTS);
    model.config.dns = LONG;
    let refused = asked(&mut model).expect("one for which there is no port");
    assert!((PORTS / 2..=PORTS).contains(&refused), "{refused}");
}
