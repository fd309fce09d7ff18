//! Host-local clients of published ports: what a socket believes it talks to.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Port};

/// A socket of the host and the target it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct LocalFlowKey {
    /// The socket's cookie (`bpf_get_socket_cookie`).
    pub cookie: u64,
    /// The target's address.
    pub addr: Addr,
    /// The target's port.
    pub port: Port,
    /// Zero.
    pub reserved: [u8; 6],
}

/// The published address that the socket's program dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct LocalFlowValue {
    /// The address as dialled.
    pub addr: Addr,
    /// The port as dialled.
    pub port: Port,
    /// Zero.
    pub reserved: [u8; 2],
}
