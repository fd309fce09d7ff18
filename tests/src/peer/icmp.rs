//! Echo requests, as `ping` sends them, and what comes back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::frame::Frame;
use crate::lab::Netns;

/// An echo request to be sent.
#[derive(Clone, Debug)]
#[must_use]
pub struct Ping {
    target: IpAddr,
    ttl: Option<u8>,
    size: usize,
    timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pong {
    /// The echo reply.
    Reply {
        /// Who sent it.
        from: IpAddr,
        /// How long it took.
        after: Duration,
    },
    /// An ICMP error about the request.
    Error {
        /// Who sent it.
        from: IpAddr,
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The MTU it reports, of those that do.
        mtu: u16,
    },
}

impl Pong {
    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> IpAddr {
        match *self {
            Self::Reply { from, .. } | Self::Error { from, .. } => from,
        }
    }

    /// An IPv4 or IPv6 "time exceeded in transit".
    #[must_use]
    pub fn is_time_exceeded(&self) -> bool {
        matches!(self, Self::Error { from, kind, code: 0, .. } if *kind == if from.is_ipv4() { 11 } else { 3 })
    }

    /// The MTU of an IPv4 "fragmentation needed" or IPv6 "packet too big".
    #[must_use]
    pub fn too_big(&self) -> Option<u16> {
        match *self {
            Self::Error { from, kind: 3, code: 4, mtu } if from.is_ipv4() => Some(mtu),
            Self::Error { from, kind: 2, mtu, .. } if from.is_ipv6() => Some(mtu),
            _ => None,
        }
    }
}

impl Ping {
    /// To this address, with 56 bytes of data.
    pub fn to(target: IpAddr) -> Self {
        Self { target, ttl: None, size: 56, timeout: Duration::from_secs(3) }
    }

    /// With this TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Gives up after this long instead of three seconds.
    pub fn patience(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// So that the whole IP packet has this many bytes. Larger ones than the path takes are not fragmented on
    /// the way.
    pub fn packet_size(mut self, bytes: usize) -> Self {
        self.size = bytes - if self.target.is_ipv4() { 28 } else { 48 };
        self
    }

    /// Sends one from inside a namespace and waits for what comes back.
    ///
    /// # Errors
    /// When it cannot be sent, or nothing comes back in time (`TimedOut`).
    pub fn try_in(&self, netns: &Netns) -> io::Result<Pong> {
        netns.enter(|| self.here())
    }

    /// Sends one from inside a namespace; the reply must come, from the target.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn in_netns(&self, netns: &Netns) {
        match self.try_in(netns) {
            Ok(Pong::Reply { from, .. }) if from == self.target => {}
            other => panic!("ping {} from {}: {other:?}", self.target, netns.name()),
        }
    }

    /// Sends one from inside a namespace; no reply must come. Returns what came instead.
    ///
    /// # Panics
    /// When a reply comes.
    #[track_caller]
    pub fn fails_in(&self, netns: &Netns) -> io::Result<Pong> {
        match self.clone().patience(Duration::from_millis(700)).try_in(netns) {
            Ok(reply @ Pong::Reply { .. }) => {
                panic!("ping {} from {} must fail: {reply:?}", self.target, netns.name())
            }
            other => other,
        }
    }

    /// Sends one from the calling thread's namespace and waits for what comes back.
    ///
    /// # Errors
    /// When it cannot be sent, or nothing comes back in time (`TimedOut`).
    pub fn here(&self) -> io::Result<Pong> {
        // The identifier tells the answers of concurrent pings apart.
        static IDS: AtomicU16 = AtomicU16::new(1);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let (family, protocol) = if self.target.is_ipv4() {
            (AddressFamily::Inet, SockProtocol::Icmp)
        } else {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        if let Some(ttl) = self.ttl {
            match self.target {
                IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Ttl, &i32::from(ttl))?,
                IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6Ttl, &i32::from(ttl))?,
            }
        }
        // The kernel writes the IP header; of ICMPv6 also the checksum.
        let request = Frame::echo_request(self.target, self.target, id, 1).payload(&vec![0x5a; self.size]);
        let header = 14 + if self.target.is_ipv4() { 20 } else { 40 };
        let target = SockaddrStorage::from(SocketAddr::new(self.target, 0));
        let sent = Instant::now();
        sendto(socket.as_raw_fd(), &request.build()[header..], &target, MsgFlags::empty())?;
        self.wait(&socket, id, sent)
    }

    fn wait(&self, socket: &impl std::os::fd::AsFd, id: u16, sent: Instant) -> io::Result<Pong> {
        let mut buffer = vec![0; 65536];
        loop {
            let left = self.timeout.saturating_sub(sent.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let micros = i64::try_from(left.as_micros()).expect("short").max(1);
            setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(micros))?;
            let (length, from) = match recvfrom::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut buffer) {
                Ok(received) => received,
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            let from = from.as_ref().and_then(ip_of).unwrap_or(self.target);
            if let Some(pong) = self.read(&buffer[..length], from, id, sent.elapsed()) {
                return Ok(pong);
            }
        }
    }

    /// What a received message means, if it answers the request with this id.
    fn read(&self, packet: &[u8], from: IpAddr, id: u16, after: Duration) -> Option<Pong> {
        let v4 = self.target.is_ipv4();
        // Raw IPv4 sockets are given the IP header as well.
        let message = if v4 { packet.get(usize::from(packet.first()? & 0x0f) * 4..)? } else { packet };
        let header: &[u8; 8] = message.first_chunk()?;
        let is_id = |bytes: &[u8]| bytes == id.to_be_bytes();
        let (reply, request) = if v4 { (0, 8) } else { (129, 128) };
        if header[0] == reply {
            return is_id(&header[4..6]).then_some(Pong::Reply { from, after });
        }
        let quoted_header = if v4 { usize::from(message.get(8)? & 0x0f) * 4 } else { 40 };
        let quoted = message.get(8 + quoted_header..)?;
        let about_us = quoted.first() == Some(&request) && quoted.get(4..6).is_some_and(is_id);
        let mtu = u16::from_be_bytes([header[6], header[7]]);
        about_us.then_some(Pong::Error { from, kind: header[0], code: header[1], mtu })
    }
}

fn ip_of(addr: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = addr.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    addr.as_sockaddr_in6().map(|v6| v6.ip().into())
}
