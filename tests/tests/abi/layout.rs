//! Size, alignment and offsets of every type of the ABI, as Rust has them.

use std::mem::offset_of;

use bytemuck::Zeroable;
use vnet::kernel::btf::Field;
use vnet_common::{
    Addr, AllowFrom, AllowFromKey, CaptureFilter, CaptureHeader, CtEntry, DatapathConfig, DropKey,
    EndpointUse, EndpointValue, Event, FloatingValue, FlowHand, FragmentKey, FragmentValue, HostAddressValue,
    LimitClock, LimitKey, LimitValue, LocalFlowKey, LocalFlowValue, Mac, MappingEntry, MasqueradeValue,
    NetworkValue, Port, PortMapKey, PortMapValue, PortRange, PrefixKey, Proto, Tuple, UplinkValue, Zone,
    bpf_spin_lock,
};

/// A type.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    pub(super) size: usize,
    pub(super) align: usize,
    pub(super) fields: Vec<Field>,
}

/// The layout of a type all of whose fields are named: one that is not does not compile.
macro_rules! layout {
    ($type:ident { $($field:ident),+ }) => {{
        let zero: $type = Zeroable::zeroed();
        let $type { $($field: _),+ } = zero;
        Layout {
            name: stringify!($type),
            size: size_of::<$type>(),
            align: align_of::<$type>(),
            fields: vec![$(Field {
                name: stringify!($field).to_owned(),
                offset: offset_of!($type, $field),
                size: size_of_val(&zero.$field),
            }),+],
        }
    }};
}

/// Every plain type of the ABI.
pub(super) fn layouts() -> Vec<Layout> {
    vec![
        layout!(Addr { bytes }),
        layout!(Mac { bytes }),
        layout!(Port { bytes }),
        layout!(Proto { number }),
        layout!(Zone { id }),
        layout!(Tuple { src, dst, sport, dport, zone, proto, reserved }),
        layout!(CtEntry {
            translated,
            packets,
            bytes,
            last_seen,
            created,
            mapping,
            state,
            origin,
            flags,
            reserved
        }),
        layout!(MappingEntry { translated, last_seen, filtering, flags, reserved }),
        layout!(bpf_spin_lock { val }),
        layout!(FlowHand { lock, next, sweep, moves }),
        layout!(EndpointUse { lock, flows, credit, credited, refused, held, held_at }),
        layout!(LimitKey { cgroup, classid, reserved }),
        layout!(LimitValue { rate, burst, queue, number, class }),
        layout!(LimitClock { lock, reserved, next }),
        layout!(FragmentKey { src, dst, id, zone, proto, reserved }),
        layout!(FragmentValue { began, sport, dport, id, proto, header, fate, reserved }),
        layout!(PrefixKey { prefix_len, addr }),
        layout!(NetworkValue { bridge, zone, flags, reserved, gateway }),
        layout!(MasqueradeValue { to, flags }),
        layout!(FloatingValue { addr, zone, reserved }),
        layout!(UplinkValue { v4, v6 }),
        layout!(HostAddressValue { ifindex }),
        layout!(EndpointValue {
            ifindex,
            bridge,
            mac,
            gateway_mac,
            zone,
            mtu,
            prefix_len,
            flags,
            mapping,
            filtering
        }),
        layout!(PortMapKey { addr, port, proto, prefix_len }),
        layout!(PortMapValue { addr, port, zone, id, flags }),
        layout!(AllowFrom { mapping, client }),
        layout!(AllowFromKey { prefix_len, data }),
        layout!(LocalFlowKey { cookie, addr, port, reserved }),
        layout!(LocalFlowValue { addr, port, reserved }),
        layout!(PortRange { first, last }),
        layout!(DatapathConfig {
            abi_version,
            port_blocks,
            netns_cookie,
            nat_ports,
            log_level,
            tcp_established,
            tcp_opening,
            tcp_closing,
            udp_unreplied,
            udp_replied,
            dns,
            icmp_query,
            fragment,
            unanswered,
            endpoint_flows,
            icmp_errors,
            flags,
            hold,
            held_fragments,
            flood_rate,
            flood_total
        }),
        layout!(DropKey { ifindex, reason, hook, reserved }),
        layout!(CaptureFilter { reasons, hooks, snaplen }),
        layout!(CaptureHeader { time, ifindex, length, captured, reason, hook, reserved }),
        layout!(Event { time, tuple, translated, ifindex, length, reason, hook, reserved }),
    ]
}
