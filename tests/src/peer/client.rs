//! A client that asks one question and reports every address on the way.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::lab::Netns;

/// A question to an echo server.
#[derive(Clone, Debug)]
#[must_use]
pub struct Ask {
    transport: Transport,
    target: SocketAddr,
    from: Option<SocketAddr>,
    payload: Vec<u8>,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    ConnectedUdp,
    UnconnectedUdp,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The client's address as the server saw it.
    pub seen: SocketAddr,
    /// The client's address as the client sees it.
    pub local: SocketAddr,
    /// The server's address as the client sees it: `getpeername`, or the source of the answer.
    pub peer: SocketAddr,
    /// What came back.
    pub payload: Vec<u8>,
}

impl Ask {
    /// Over TCP.
    pub fn tcp(target: SocketAddr) -> Self {
        Self::new(Transport::Tcp, target)
    }

    /// Over a UDP socket that is connected: the kernel lets only the target answer.
    pub fn udp(target: SocketAddr) -> Self {
        Self::new(Transport::ConnectedUdp, target)
    }

    /// Over a UDP socket that anybody could answer.
    pub fn udp_unconnected(target: SocketAddr) -> Self {
        Self::new(Transport::UnconnectedUdp, target)
    }

    /// From this address and port instead of any.
    pub fn from(mut self, from: SocketAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// With this question instead of a few letters.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Gives up after this long instead of five seconds: for what is expected not to be answered.
    pub fn patience(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks from inside a namespace.
    ///
    /// # Errors
    /// When there is no connection or no answer in time.
    pub fn try_in(&self, netns: &Netns) -> io::Result<Answer> {
        netns.enter(|| self.here())
    }

    /// Asks from inside a namespace; the answer must come and be the question.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn in_netns(&self, netns: &Netns) -> Answer {
        let answer = self.try_in(netns);
        let answer = answer.unwrap_or_else(|e| panic!("{self} from {}: {e}", netns.name()));
        assert_eq!(answer.payload, self.payload, "{self} from {}: the echo differs", netns.name());
        answer
    }

    /// Asks from inside a namespace; no answer must come.
    ///
    /// # Panics
    /// When one does.
    #[track_caller]
    pub fn fails_in(&self, netns: &Netns) -> io::Error {
        match self.clone().patience(Duration::from_millis(700)).try_in(netns) {
            Ok(answer) => panic!("{self} from {} must fail, but was answered: {answer:?}", netns.name()),
            Err(error) => error,
        }
    }

    /// Asks from the calling thread's namespace.
    ///
    /// # Errors
    /// When there is no connection or no answer in time.
    pub fn here(&self) -> io::Result<Answer> {
        match self.transport {
            Transport::Tcp => self.over_tcp(),
            Transport::ConnectedUdp => self.over_connected_udp(),
            Transport::UnconnectedUdp => self.over_unconnected_udp(),
        }
    }

    fn new(transport: Transport, target: SocketAddr) -> Self {
        let payload = b"ask and it shall be given".to_vec();
        Self { transport, target, from: None, payload, timeout: Duration::from_secs(5) }
    }

    fn over_tcp(&self) -> io::Result<Answer> {
        let mut stream = TcpStream::from(self.connected(SockType::Stream)?);
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        stream.write_all(&self.payload)?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        answer(&text, local, peer)
    }

    fn over_connected_udp(&self) -> io::Result<Answer> {
        let socket = UdpSocket::from(self.connected(SockType::Datagram)?);
        let (local, peer) = (socket.local_addr()?, socket.peer_addr()?);
        socket.send(&self.payload)?;
        let mut buffer = vec![0; 65536];
        let length = retried(|| socket.recv(&mut buffer))?;
        answer(&buffer[..length], local, peer)
    }

    fn over_unconnected_udp(&self) -> io::Result<Answer> {
        let socket = UdpSocket::from(self.bound(SockType::Datagram)?);
        socket.send_to(&self.payload, self.target)?;
        let mut buffer = vec![0; 65536];
        let (length, peer) = retried(|| socket.recv_from(&mut buffer))?;
        answer(&buffer[..length], socket.local_addr()?, peer)
    }

    fn connected(&self, kind: SockType) -> io::Result<OwnedFd> {
        let socket = self.bound(kind)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(self.target)) {
            // It goes on all the same: wait for its end.
            Err(Errno::EINTR) => self.settled(&socket)?,
            result => result?,
        }
        Ok(socket)
    }

    /// Waits for a connection that has begun.
    fn settled(&self, socket: &OwnedFd) -> io::Result<()> {
        let timeout = PollTimeout::try_from(self.timeout).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], timeout)?;
        match getsockopt(socket, sockopt::SocketError)? {
            0 if ready > 0 => Ok(()),
            0 => Err(io::ErrorKind::TimedOut.into()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn bound(&self, kind: SockType) -> io::Result<OwnedFd> {
        let family = if self.target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
        let timeout = TimeVal::milliseconds(i64::try_from(self.timeout.as_millis()).expect("short"));
        setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        if let Some(from) = self.from {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        }
        Ok(socket)
    }
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.transport {
            Transport::Tcp => "TCP",
            Transport::ConnectedUdp => "UDP (connected)",
            Transport::UnconnectedUdp => "UDP (unconnected)",
        };
        write!(f, "{how} to {}", self.target)
    }
}

/// A call with a time limit is not restarted by itself when a signal interrupts it.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Splits what an echo server sent.
fn answer(text: &[u8], local: SocketAddr, peer: SocketAddr) -> io::Result<Answer> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("not of an echo server: {text:?}"));
    let end = text.iter().position(|&byte| byte == b'\n').ok_or_else(invalid)?;
    let seen =
        std::str::from_utf8(&text[..end]).ok().and_then(|line| line.parse().ok()).ok_or_else(invalid)?;
    Ok(Answer { seen, local, peer, payload: text[end + 1..].to_vec() })
}
