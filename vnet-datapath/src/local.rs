//! Clients on the host itself: their sockets are pointed at the target when they dial, and no packet of theirs
//! is ever translated. What they dialled is remembered, so that they are told they talk to that.

use vnet_common::{Addr, LocalFlowKey, LocalFlowValue, Port, Proto};

use crate::published::published;
use crate::tables::Ports;

/// What the host-local hooks ask of the world.
pub trait LocalTables: Ports {
    /// Remembers what a socket dialled.
    fn remember(&self, key: &LocalFlowKey, value: &LocalFlowValue);
    /// What a socket dialled to reach a target.
    fn recall(&self, key: &LocalFlowKey) -> Option<LocalFlowValue>;
}

/// A socket that dials, or hears from, an address.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// The socket's cookie.
    pub cookie: u64,
    /// Cookie of its network namespace.
    pub netns: u64,
    /// The other side.
    pub addr: Addr,
    /// The other side's port.
    pub port: Port,
    /// Transport protocol.
    pub proto: Proto,
}

/// Where a socket's `connect` or `sendto` is to go instead, if it asks for a published port of this host.
///
/// An IPv6 socket that asks for a port which is published for IPv4 only gets the IPv4 target in its mapped
/// form, which sockets understand unless they are restricted to IPv6.
#[must_use]
#[inline(always)]
pub fn dial<T: LocalTables>(tables: &T, socket: &Socket) -> Option<(Addr, Port)> {
    if tables.config()?.netns_cookie != socket.netns {
        return None;
    }
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
    let key = LocalFlowKey { cookie: socket.cookie, addr, port: target.port, reserved: [0; 6] };
    tables.remember(&key, &LocalFlowValue { addr: socket.addr, port: socket.port, reserved: [0; 2] });
    Some((addr, target.port))
}

/// What a socket that hears from, or asks after, this address believes it talks to.
#[must_use]
#[inline(always)]
pub fn dialled<T: LocalTables>(tables: &T, socket: &Socket) -> Option<(Addr, Port)> {
    if tables.config()?.netns_cookie != socket.netns {
        return None;
    }
    let key = LocalFlowKey { cookie: socket.cookie, addr: socket.addr, port: socket.port, reserved: [0; 6] };
    tables.recall(&key).map(|value| (value.addr, value.port))
}
