//! Sockets at a gateway's address that only its network reaches: what comes by another interface is not theirs.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

/// Connections that wait to be taken, and bytes of datagrams that do: whoever sends many leaves room for others.
const WAITING: i32 = 256;
const BUFFER: usize = 1 << 20;

/// Binds a port of an address and of an interface, for datagrams and for connections.
pub(super) fn sockets(addr: IpAddr, port: u16, interface: &str) -> io::Result<(UdpSocket, TcpListener)> {
    let datagrams = bound(SockType::Datagram, addr, port, interface)?;
    let connections = bound(SockType::Stream, addr, port, interface)?;
    listen(&connections, Backlog::new(WAITING)?)?;
    Ok((datagrams.into(), connections.into()))
}

fn bound(kind: SockType, addr: IpAddr, port: u16, interface: &str) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let made = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&made, sockopt::BindToDevice, &OsString::from(interface))?;
    if kind == SockType::Datagram {
        // Best effort: with less room more is lost in a flood.
        let _ = setsockopt(&made, sockopt::RcvBufForce, &BUFFER);
    }
    if kind == SockType::Stream {
        // Connections of before may linger.
        setsockopt(&made, sockopt::ReuseAddr, &true)?;
    }
    bind(made.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(addr, port)))?;
    Ok(made)
}
