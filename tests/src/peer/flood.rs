//! Many frames at once, none of them honest.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

use super::capture::{interface_index, link_addr};
use crate::lab::Netns;

/// Sends frames out of an interface as fast as it takes them.
#[derive(Debug)]
pub struct Flood {
    socket: OwnedFd,
    sent: u64,
    refused: u64,
}

impl Flood {
    /// Out of an interface.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn out_of(netns: &Netns, interface: &str) -> Self {
        let ifindex = interface_index(netns, interface);
        let socket = netns.enter(|| {
            // Of no protocol: it receives nothing.
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &link_addr(ifindex))?;
            Ok::<_, Errno>(socket)
        });
        let socket = socket.unwrap_or_else(|e| panic!("flood {interface} in {}: {e}", netns.name()));
        Self { socket, sent: 0, refused: 0 }
    }

    /// Sends a frame, whatever addresses it claims.
    ///
    /// # Panics
    /// When the socket fails.
    pub fn send(&mut self, frame: &[u8]) {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => self.sent += 1,
            // No room between here and the interface: it never was on the wire.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => self.refused += 1,
            Err(e) => panic!("send a frame: {e}"),
        }
    }

    /// Frames that the interface took.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Frames for which there was no room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}
