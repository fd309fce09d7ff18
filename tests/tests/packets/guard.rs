//! What the host's stack routes into a network from an interface that is no uplink.

use vnet_common::{Addr, DropReason, NetworkValue, Port, PortMapKey, PortMapValue, Proto};
use vnet_datapath::model::Model;
use vnet_tests::case::Case;
use vnet_tests::case::world::{BRIDGE, Family, NET1, UPLINK, at};
use vnet_tests::frame::Frame;

use super::for_both_families;

pub(super) fn cases() -> Vec<Case> {
    for_both_families(guard)
}

fn flag(model: &mut Model, flag: u8) {
    model.endpoints.values_mut().for_each(|endpoint| endpoint.flags |= flag);
}

fn guard(f: &Family) -> Vec<Case> {
    let (stranger, endpoint) = (at(f.stray, 9), at(f.net1, 80));
    let syn = || Frame::tcp(stranger, endpoint).syn();
    let ping = || Frame::echo_request(f.stray, f.net1, 7, 1);
    let own = Addr::from(f.net1);
    let publish = move |model: &mut Model| {
        flag(model, NetworkValue::FLAG_ROUTED);
        let key = PortMapKey { addr: own, port: Port::new(80), proto: Proto::TCP, prefix_len: 16 };
        let value = PortMapValue { addr: own, port: Port::new(80), zone: NET1.zone, id: 9, flags: 0 };
        model.port_map.insert(key, value);
    };
    vec![
        Case::to_bridge("an endpoint is not reached by way of the host's other interfaces", syn())
            .dropped(DropReason::DirectAccess),
        Case::to_bridge("nor does it answer pings from there", ping()).dropped(DropReason::DirectAccess),
        Case::to_bridge("what an uplink received has been judged there", syn()).came_in_by(UPLINK).passes(),
        Case::to_bridge("the host itself speaks to whom it likes", syn()).came_in_by(0).passes(),
        Case::to_bridge("what the bridge itself received stays in its network", syn())
            .came_in_by(BRIDGE)
            .passes(),
        Case::to_bridge("what is for nobody passes", Frame::udp(stranger, at(f.nobody, 80))).passes(),
        Case::to_bridge("an unprotected network is open", syn())
            .given(|model| flag(model, NetworkValue::FLAG_UNPROTECTED))
            .passes(),
        Case::to_bridge("a routed network is not open", syn())
            .given(|model| flag(model, NetworkValue::FLAG_ROUTED))
            .dropped(DropReason::DirectAccess),
        Case::to_bridge("but for pings", ping())
            .given(|model| flag(model, NetworkValue::FLAG_ROUTED))
            .passes(),
        Case::to_bridge("and for what is published there", syn()).given(publish).passes(),
    ]
}
