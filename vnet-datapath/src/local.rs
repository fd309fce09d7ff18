//! Clients on the host itself: their sockets are pointed at the target when they dial, and no packet of theirs
//! is ever translated. What they dialled is remembered, so that they are told they talk to that. Published ports are
//! not theirs to bind.

use vnet_common::{Addr, LocalFlowKey, LocalFlowValue, Port, PortMapKey, Proto};

use crate::published::published;
use crate::tables::Ports;

/// What the host-local hooks ask of the world.
pub trait LocalTables: Ports {
    /// Remembers what a socket dialled.
    fn remember(&self, key: &LocalFlowKey, value: &LocalFlowValue);
    /// What a socket dialled to reach a target.
    fn recall(&self, key: &LocalFlowKey) -> Option<LocalFlowValue>;
    /// The cookie of the socket whose system call it is. The kernel makes one up when it is first asked.
    fn cookie(&self) -> u64;
}

/// A socket that dials, hears from, or wants to bind an address.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// The other side; for `bind`, its own.
    pub addr: Addr,
    /// The port there.
    pub port: Port,
    /// Transport protocol.
    pub proto: Proto,
}

/// Whether the network namespace with this cookie is the host's. Sockets of all others are to be let alone: nobody asks
/// anything else about them.
#[must_use]
#[inline(always)]
pub fn is_host<T: Ports>(tables: &T, netns: u64) -> bool {
    tables.config().is_some_and(|config| config.netns_cookie == netns)
}

/// Where a socket's `connect` or `sendto` is to go instead, if it asks for a published port of this host.
///
/// An IPv6 socket that asks for a port which is published for IPv4 only gets the IPv4 target in its mapped
/// form, which sockets understand unless they are restricted to IPv6.
#[must_use]
#[inline(always)]
pub fn dial<T: LocalTables>(tables: &T, socket: &Socket) -> Option<(Addr, Port)> {
    let addr = &socket.addr;
    let ours = addr.is_loopback() || addr.is_unspecified() || tables.host_address(addr).is_some();
    if !ours {
        return None;
    }
    let mut target = published(tables, addr, socket.port, socket.proto);
    if target.is_none() && !addr.is_v4() {
        target = published(tables, &Addr::ANY_V4, socket.port, socket.proto);
    }
    let target = target?;
    let addr = target.mapping.addr;
    let key = LocalFlowKey { cookie: tables.cookie(), addr, port: target.port, reserved: [0; 6] };
    tables.remember(&key, &LocalFlowValue { addr: socket.addr, port: socket.port, reserved: [0; 2] });
    Some((addr, target.port))
}

/// Whether a socket may be bound to an address and port: if nothing is published there, in whole or in part.
///
/// A socket on every address is refused if the port is published on any of them, and one on a certain address if it is
/// published there or on all. One on every IPv6 address is refused if the port is published for IPv4 alone as well:
/// it would hear IPv4, too, unless it is restricted to IPv6, which a hook cannot see. Port 0 asks for any that is free.
#[must_use]
#[inline(always)]
pub fn may_bind<T: Ports>(tables: &T, socket: &Socket) -> bool {
    let Socket { addr, port, proto } = socket;
    if port.number() == 0 {
        return true;
    }
    if !addr.is_unspecified() {
        return published(tables, addr, *port, *proto).is_none();
    }
    let taken =
        |family: &Addr| published(tables, &PortMapKey::some_of_family(family), *port, *proto).is_some();
    !taken(addr) && (addr.is_v4() || !taken(&Addr::ANY_V4))
}

/// What a socket that hears from, or asks after, this address believes it talks to.
#[must_use]
#[inline(always)]
pub fn dialled<T: LocalTables>(tables: &T, socket: &Socket) -> Option<(Addr, Port)> {
    let key =
        LocalFlowKey { cookie: tables.cookie(), addr: socket.addr, port: socket.port, reserved: [0; 6] };
    tables.recall(&key).map(|value| (value.addr, value.port))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use vnet_common::{PortMapValue, Zone};

    use super::*;
    use crate::model::Model;

    const HERE: u64 = 7;

    /// Tables in which a block of ports is published on an address, as the control plane enters it.
    fn publish(model: &mut Model, addr: Addr, port: u16, prefix_len: u8) {
        let value = PortMapValue {
            addr: addr.any_of_family(),
            port: Port::new(80),
            zone: Zone { id: 1 },
            id: 1,
            flags: PortMapValue::FLAG_RESTRICTED,
        };
        let some = PortMapKey::some_of_family(&addr);
        for addr in [addr].into_iter().chain((!addr.is_unspecified()).then_some(some)) {
            let key = PortMapKey { addr, port: Port::new(port), proto: Proto::TCP, prefix_len };
            model.port_map.insert(key, value);
        }
        if prefix_len < 16 {
            model.config.port_blocks |= 1 << prefix_len;
        }
    }

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<IpAddr>().expect("an address"))
    }

    fn socket(on: &str, port: u16) -> Socket {
        Socket { addr: addr(on), port: Port::new(port), proto: Proto::TCP }
    }

    fn here() -> Model {
        let mut model = Model::default();
        model.config.netns_cookie = HERE;
        model
    }

    #[test]
    fn a_published_port_is_not_the_hosts_to_bind() {
        const ALL_V4: &str = "0.0.0.0";
        const ALL_V6: &str = "::";
        // Published on the first address, bound on the second.
        for (published, on, free) in [
            (ALL_V4, ALL_V4, false),
            (ALL_V4, "203.0.113.1", false),
            (ALL_V4, "127.0.0.1", false),
            (ALL_V4, "::ffff:203.0.113.1", false),
            (ALL_V4, ALL_V6, false),
            (ALL_V4, "::1", true),
            (ALL_V4, "2001:db8::1", true),
            (ALL_V6, ALL_V6, false),
            (ALL_V6, "2001:db8::1", false),
            (ALL_V6, "::1", false),
            (ALL_V6, ALL_V4, true),
            (ALL_V6, "203.0.113.1", true),
            ("203.0.113.1", ALL_V4, false),
            ("203.0.113.1", ALL_V6, false),
            ("203.0.113.1", "203.0.113.1", false),
            ("203.0.113.1", "::ffff:203.0.113.1", false),
            ("203.0.113.1", "203.0.113.2", true),
            ("203.0.113.1", "127.0.0.1", true),
            ("127.0.0.5", ALL_V4, false),
            ("2001:db8::1", ALL_V6, false),
            ("2001:db8::1", "2001:db8::1", false),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", ALL_V4, true),
        ] {
            let mut model = here();
            publish(&mut model, addr(published), 8088, 16);
            assert_eq!(may_bind(&model, &socket(on, 8088)), free, "published on {published}, bound on {on}");
            assert!(may_bind(&model, &socket(on, 8089)), "another port on {on}");
            let udp = Socket { proto: Proto::UDP, ..socket(on, 8088) };
            assert!(may_bind(&model, &udp), "another protocol on {on}");
        }
    }

    #[test]
    fn every_port_of_a_block_is_taken_and_none_beside_it() {
        for on_one in ["0.0.0.0", "203.0.113.1"] {
            let mut model = here();
            publish(&mut model, addr(on_one), 8000, 11);
            for (port, free) in [(7999, true), (8000, false), (8017, false), (8031, false), (8032, true)] {
                for on in ["0.0.0.0", "203.0.113.1", "::"] {
                    assert_eq!(may_bind(&model, &socket(on, port)), free, "{on_one}: {on} port {port}");
                }
            }
        }
    }

    #[test]
    fn any_free_port_is_never_refused_and_other_namespaces_are_not_asked() {
        let mut model = here();
        publish(&mut model, Addr::ANY_V4, 0, 0);
        assert!(!may_bind(&model, &socket("0.0.0.0", 8088)));
        assert!(may_bind(&model, &socket("0.0.0.0", 0)));
        assert!(is_host(&model, HERE) && !is_host(&model, HERE + 1));
    }
}
