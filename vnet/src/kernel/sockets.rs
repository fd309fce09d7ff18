//! Sockets of the host that hold ports, as the kernel lists them, and the processes that have them.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;
use vnet_common::Proto;

use super::dump::DumpSocket;
use super::{BoundSocket, Error, Process};

const PROCESSES: &str = "/proc";
/// The kernel answers at once.
const PATIENCE_SECONDS: i64 = 10;

/// The sockets that hold one of these ports: TCP sockets that listen, UDP sockets of any kind.
pub(super) fn bound(proto: Proto, ports: &RangeInclusive<u16>) -> Result<Vec<BoundSocket>, Error> {
    let failed = |source| Error::ReadSockets { proto, source };
    let netlink = DumpSocket::open(NETLINK_SOCK_DIAG, PATIENCE_SECONDS).map_err(failed)?;
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let list = list(&netlink, proto, family, ports).map_err(failed)?;
        sockets.extend(list.iter().map(bound_socket).filter(|socket| ports.contains(&socket.port)));
    }
    Ok(sockets)
}

/// The sockets of a family. The kernel looks for a single port itself.
fn list(
    netlink: &DumpSocket,
    proto: Proto,
    family: u8,
    ports: &RangeInclusive<u16>,
) -> io::Result<Vec<InetResponse>> {
    let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    if ports.start() == ports.end() {
        socket_id.source_port = *ports.start();
    }
    let states = if proto == Proto::TCP { StateFlags::LISTEN } else { StateFlags::all() };
    let extensions = ExtensionFlags::empty();
    let request = InetRequest { family, protocol: proto.number, extensions, states, socket_id };
    // A list that never stands still is still better than none.
    let messages = netlink.list(&SockDiagMessage::InetRequest(request))?.messages;
    let found = messages.into_iter().filter_map(|message| match message {
        SockDiagMessage::InetResponse(found) => Some(*found),
        _ => None,
    });
    Ok(found.collect())
}

fn bound_socket(found: &InetResponse) -> BoundSocket {
    let v6only = found.nlas.iter().any(|nla| matches!(nla, Nla::SkV6Only(true)));
    BoundSocket {
        addr: found.header.socket_id.source_address.to_canonical(),
        port: found.header.socket_id.source_port,
        v6only,
        inode: found.header.inode,
    }
}

/// A process that has a socket open, the oldest by its number: of a server with workers, the one to be stopped.
/// `None` if there is none that may be looked at.
pub(super) fn holder(inode: u32) -> Option<Process> {
    let link = format!("socket:[{inode}]");
    let numbers =
        fs::read_dir(PROCESSES).ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let pid: u32 = numbers.filter(|pid| has_open(*pid, &link)).min()?;
    let name = fs::read_to_string(Path::new(PROCESSES).join(pid.to_string()).join("comm")).ok()?;
    Some(Process { name: name.trim_end().to_owned(), pid })
}

fn has_open(pid: u32, link: &str) -> bool {
    let files = fs::read_dir(Path::new(PROCESSES).join(pid.to_string()).join("fd"));
    let is_it = |entry: io::Result<fs::DirEntry>| {
        let target = entry.and_then(|entry| fs::read_link(entry.path()));
        target.is_ok_and(|target| target.as_os_str().as_bytes() == link.as_bytes())
    };
    files.is_ok_and(|mut files| files.any(is_it))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    /// Finds a socket of this process among those that hold its port.
    fn find(proto: Proto, on: std::net::SocketAddr) -> BoundSocket {
        let found = bound(proto, &(on.port()..=on.port())).unwrap();
        let it = found.iter().find(|socket| socket.addr == on.ip() && socket.port == on.port());
        it.unwrap_or_else(|| panic!("{on} is not in {found:?}")).clone()
    }

    #[test]
    fn sockets_and_their_process_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp6 = TcpListener::bind("[::1]:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (proto, on) in [
            (Proto::TCP, tcp.local_addr().unwrap()),
            (Proto::TCP, tcp6.local_addr().unwrap()),
            (Proto::UDP, udp.local_addr().unwrap()),
        ] {
            let socket = find(proto, on);
            assert_eq!(holder(socket.inode).expect("this process").pid, std::process::id(), "{on}");
            let whole_range = bound(proto, &(1..=u16::MAX)).unwrap();
            assert!(whole_range.contains(&socket), "{on}");
        }
        assert_eq!(holder(0), None);
    }

    #[test]
    fn a_connection_does_not_hold_its_port_for_listeners() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        assert_eq!(bound(Proto::TCP, &(port..=port)).unwrap(), []);
    }
}
