//! Networks without a bridge: endpoints address everybody by their gateway, what goes on enters the host's stack by the
//! network's interface, and what the host sends there is handed to whoever has the address.

use vnet_common::{DropReason, NetworkValue};
use vnet_datapath::model::Model;
use vnet_tests::case::Case;
use vnet_tests::case::world::{BRIDGE, Family, MTU, NET1, NET2, UPLINK, V4, at};
use vnet_tests::frame::{Frame, IcmpError};

use super::for_both_families;
use super::masquerade::flag;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 2] = [from_endpoint, to_network];
    let mut cases: Vec<Case> = subjects.into_iter().flat_map(for_both_families).collect();
    cases.extend(neighbours());
    cases.into_iter().map(|case| case.given(unbridged)).collect()
}

fn unbridged(model: &mut Model) {
    flag(model, NetworkValue::FLAG_UNBRIDGED);
}

fn from_endpoint(f: &Family) -> Vec<Case> {
    let (one, two) = (at(f.net1, 1234), at(f.net2, 80));
    let case = |name: &str, frame: Frame| Case::from_endpoint(NET1, name, frame);
    let packet = || Frame::tcp(one, two).syn();
    let headers = if f.net1.is_ipv4() { 28 } else { 48 };
    let too_big = Frame::udp(one, two).payload(&vec![1; usize::from(MTU) + 1 - headers]);
    vec![
        case("without a bridge a neighbour gets what the gateway was handed", packet())
            .handed(NET2, packet()),
        case("its hops do not count", packet().ttl(1)).handed(NET2, packet().ttl(1)),
        case("fragments go the same way", Frame::udp(one, two).fragment(8, false))
            .handed(NET2, Frame::udp(one, two).fragment(8, false)),
        case("neighbours without a bridge may be isolated", packet())
            .given(|model| flag(model, NetworkValue::FLAG_ISOLATED))
            .dropped(DropReason::Isolated),
        case("without a bridge the host's stack sees to what is too big", too_big).enters(),
        case(
            "without a bridge the host is reached by the network's interface",
            Frame::udp(one, at(f.gateway, 53)),
        )
        .enters(),
        case("without a bridge nobody knows an address that is nobody's", Frame::udp(one, at(f.nobody, 53)))
            .dropped(DropReason::NoSuchEndpoint),
        case("without a bridge multicast is for the host alone", Frame::udp(one, at(f.multicast, 5353)))
            .enters(),
        case("without a bridge other networks stay apart", Frame::udp(one, at(f.net3, 53)))
            .refused(DropReason::OtherNetwork, IcmpError::Prohibited),
        case(
            "without a bridge a neighbour's address is not an endpoint's own",
            Frame::udp(two, at(f.www, 53)),
        )
        .dropped(DropReason::SourceAddress),
    ]
}

fn to_network(f: &Family) -> Vec<Case> {
    let (stranger, endpoint) = (at(f.stray, 9), at(f.net1, 80));
    let syn = || Frame::tcp(stranger, endpoint).syn();
    let ping = || Frame::echo_request(f.stray, f.net1, 7, 1);
    let case = Case::to_network;
    vec![
        case("the host hands an endpoint what it sends", syn()).came_in_by(0).handed(NET1, syn()),
        case("and what an uplink received, which has been judged there", syn())
            .came_in_by(UPLINK)
            .handed(NET1, syn()),
        case("and what came from the network itself", syn()).came_in_by(BRIDGE).handed(NET1, syn()),
        case("nobody else reaches an endpoint by way of the host", syn()).dropped(DropReason::DirectAccess),
        case("nor does it answer others' pings", ping()).dropped(DropReason::DirectAccess),
        case("unless its network is unprotected", syn())
            .given(|model| flag(model, NetworkValue::FLAG_UNPROTECTED))
            .handed(NET1, syn()),
        case("or routed, for pings", ping())
            .given(|model| flag(model, NetworkValue::FLAG_ROUTED))
            .handed(NET1, ping()),
        case("what the host sends to nobody is dropped", Frame::udp(stranger, at(f.nobody, 80)))
            .came_in_by(0)
            .dropped(DropReason::NoSuchEndpoint),
        case("an endpoint of another network is not behind this one", Frame::udp(stranger, at(f.net3, 80)))
            .came_in_by(0)
            .dropped(DropReason::NoSuchEndpoint),
        case("what is for many is for nobody there", Frame::udp(stranger, at(f.multicast, 80)))
            .came_in_by(0)
            .passes(),
        case("what the host sends is not handed on unread", syn())
            .came_in_by(0)
            .bytes(|bytes| bytes.truncate(40))
            .dropped(DropReason::Malformed),
    ]
}

/// What endpoints need not ask without a bridge, and are not told.
fn neighbours() -> Vec<Case> {
    let request = |from, to| Frame::arp_request(NET1.mac, from, to);
    vec![
        Case::from_endpoint(
            NET1,
            "without a bridge nobody tells where a neighbour is",
            request(V4.net1, V4.net2),
        )
        .enters(),
        Case::from_endpoint(
            NET1,
            "without a bridge nobody claims another's address",
            request(V4.net2, V4.net1),
        )
        .dropped(DropReason::NeighbourSpoof),
        Case::from_endpoint(
            NET1,
            "without a bridge link-local neighbours are reached as well",
            Frame::udp(at(NET1.addrs[2], 5), at(NET2.addrs[2], 5)),
        )
        .handed(NET2, Frame::udp(at(NET1.addrs[2], 5), at(NET2.addrs[2], 5))),
    ]
}
