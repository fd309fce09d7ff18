//! What really is on a wire: packet sockets that listen and that send frames as they are.

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, recvfrom, sendto,
    setsockopt, socket, sockopt,
};
use vnet_common::Mac;

use crate::frame::describe;
use crate::lab::{Netns, eventually};

/// Room for the frames of a test that nobody reads meanwhile.
const BUFFER: usize = 32 << 20;

/// Collects every frame that an interface receives or sends, from the moment it is made.
///
/// There is no thread: the kernel queues the frames until somebody looks, and does so before the packet goes on
/// to be answered. So once an answer has come, its question is there to be seen.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    ifindex: usize,
    frames: Vec<Vec<u8>>,
}

impl Capture {
    /// Listens on an interface.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn start(netns: &Netns, interface: &str) -> Self {
        let ifindex = interface_index(netns, interface);
        let socket = netns.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
        });
        let socket = socket.unwrap_or_else(|e| panic!("capture on {interface} in {}: {e}", netns.name()));
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("room for frames");
        Self { socket, ifindex, frames: Vec::new() }
    }

    /// The frames so far.
    ///
    /// # Panics
    /// When the socket fails.
    pub fn frames(&mut self) -> &[Vec<u8>] {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    if from.is_some_and(|from| from.ifindex() == self.ifindex) {
                        self.frames.push(buffer[..length].to_vec());
                    }
                }
                Err(Errno::EAGAIN) => return &self.frames,
                Err(Errno::EINTR) => {}
                Err(e) => panic!("read captured frames: {e}"),
            }
        }
    }

    /// Sends a frame out of the interface as [`inject`] does, whatever namespace the caller is in. It is captured too.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let sent = sendto(self.socket.as_raw_fd(), frame, &link_addr(self.ifindex), MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "send a captured interface's frame");
    }

    /// One line about each frame so far.
    pub fn lines(&mut self) -> Vec<String> {
        self.frames().iter().map(|frame| describe(frame)).collect()
    }

    /// Waits for a frame for which `wanted` holds.
    ///
    /// # Panics
    /// With what was seen instead, when it does not come.
    #[track_caller]
    pub fn until(&mut self, expected: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let name = expected.to_owned();
        eventually(
            || self.frames().iter().find(|frame| wanted(frame)).cloned(),
            || format!("a frame: {name}"),
        )
    }
}

/// Sends frames out of an interface as they are, whatever addresses they claim.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    to: LinkAddr,
}

impl Injector {
    /// For an interface.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn new(netns: &Netns, interface: &str) -> Self {
        let to = link_addr(interface_index(netns, interface));
        let socket =
            netns.enter(|| socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None));
        let socket =
            socket.unwrap_or_else(|e| panic!("a socket to send out of {interface} in {}: {e}", netns.name()));
        Self { socket, to }
    }

    /// Sends a frame.
    ///
    /// # Panics
    /// When it cannot be sent.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let sent = loop {
            match sendto(self.socket.as_raw_fd(), frame, &self.to, MsgFlags::empty()) {
                // The interface's queue is full for the moment.
                Err(Errno::ENOBUFS) => thread::yield_now(),
                sent => break sent,
            }
        };
        let sent = sent.unwrap_or_else(|e| panic!("send a frame of {} bytes: {e}", frame.len()));
        assert_eq!(sent, frame.len());
    }
}

/// Sends one frame out of an interface, as [`Injector`] does.
///
/// # Panics
/// When it cannot be sent.
#[track_caller]
pub fn inject(netns: &Netns, interface: &str, frame: &[u8]) {
    Injector::new(netns, interface).send(frame);
}

/// The hardware address of an interface.
///
/// # Panics
/// When there is none of that name.
#[must_use]
#[track_caller]
pub fn interface_mac(netns: &Netns, interface: &str) -> Mac {
    let link = netns.ip(&format!("-j link show dev {interface}")).json();
    let text = link[0]["address"].as_str().expect("a hardware address").to_owned();
    let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    Mac::new(bytes.try_into().unwrap_or_else(|_| panic!("{text} is not an Ethernet address")))
}

#[track_caller]
pub(super) fn interface_index(netns: &Netns, interface: &str) -> usize {
    let index = netns.enter(|| nix::net::if_::if_nametoindex(interface));
    let index = index.unwrap_or_else(|e| panic!("interface {interface} in {}: {e}", netns.name()));
    usize::try_from(index).expect("interface indexes fit")
}

pub(super) fn link_addr(ifindex: usize) -> LinkAddr {
    let addr = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("address families fit"),
        sll_protocol: 0,
        sll_ifindex: i32::try_from(ifindex).expect("interface indexes fit"),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = u32::try_from(size_of_val(&addr)).expect("a small struct");
    // SAFETY: the pointer is to a live sockaddr_ll whose family says so, and the length is its own.
    let addr = unsafe { LinkAddr::from_raw((&raw const addr).cast(), Some(length)) };
    addr.expect("a link address")
}
