//! The conversation with the kernel's networking: links, addresses, routes, filters, as plain values.
//!
//! A socket belongs to the network namespace of the thread that opens it, for ever: [`Netlink::open`] in a
//! thread inside a namespace gives a handle to that namespace which works from anywhere.
//!
//! Requests are not sent by `rtnetlink`'s own builders but by `Netlink::request`, because three things have to
//! hold for all of them: the kernel's own words (extended acknowledgement) reach the user, a dump that was
//! interrupted by a change is taken again, and an answer that cannot be decoded ends in an error and not in
//! waiting for ever (the codec drops what it does not understand).
//!
//! What every command asks, and the kernel answers at once, goes by a socket of its own past the runtime: addresses,
//! names and numbers of interfaces. A command that asks nothing else never opens the other one.

mod address;
mod discipline;
mod filter;
mod link;
mod names;
mod neighbour;
mod queue;
mod route;
mod rule;

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::dump::DumpSocket;

pub(super) use self::address::Address;
pub(super) use self::discipline::{Discipline, FQ, HTB, HtbClass, HtbRate, MQ, Made};
pub(super) use self::filter::BpfFilter;
pub(super) use self::link::{AttachedXdp, Counters, Link, OtherEnd, gso_attributes};
pub(super) use self::queue::TokenBucket;
pub(super) use self::route::{Existing, Hop, MAIN, NewRoute};
pub(super) use self::rule::SourceRule;

/// The kernel answers at once, or when others give back the lock of its networking. It keeps that itself while it takes
/// down namespaces, all that were given up meanwhile at once: of a thousand, more than ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a dump is taken again because something changed meanwhile.
const DUMP_TRIES: usize = 8;

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// It refused.
    #[error("{errno}{}", Detail(.detail))]
    Refused {
        /// The error number.
        errno: io::Error,
        /// What the kernel says beyond it.
        detail: Option<String>,
    },
    /// It did not answer, or in a way that is not understood.
    #[error("the kernel gave no answer that vnet understands within {} s", PATIENCE.as_secs())]
    Silent,
    /// There is no socket.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// The socket is gone.
    #[error("the netlink socket was closed")]
    Closed,
}

impl NetlinkError {
    /// Whether it refused with this error number.
    pub(super) fn is(&self, number: i32) -> bool {
        matches!(self, Self::Refused { errno, .. } if errno.raw_os_error() == Some(number))
    }
}

/// What became of a question that is answered at once.
impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::Silent,
            _ => Self::Refused { errno: error, detail: None },
        }
    }
}

struct Detail<'a>(&'a Option<String>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

type Result<T> = std::result::Result<T, NetlinkError>;

/// Sockets in one network namespace.
#[derive(Debug)]
pub(super) struct Netlink {
    /// For what has to be waited for, and may be refused with words.
    handle: OnceCell<rtnetlink::Handle>,
    /// For what is answered at once.
    at_once: DumpSocket,
}

impl Netlink {
    /// Opens sockets in the network namespace of the calling thread, which must be inside a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let netlink = Self::open_as_needed()?;
        let _ = netlink.handle.set(connect()?);
        Ok(netlink)
    }

    /// As [`Self::open`], for a thread that stays in its namespace and does all the asking: the socket for requests
    /// that have to be waited for is opened with the first of them.
    pub(super) fn open_as_needed() -> io::Result<Self> {
        let at_once = DumpSocket::open(NETLINK_ROUTE, PATIENCE.as_secs() as i64)?;
        at_once.set_strict_check()?;
        Ok(Self { handle: OnceCell::new(), at_once })
    }

    fn handle(&self) -> Result<rtnetlink::Handle> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle.clone());
        }
        let handle = connect().map_err(NetlinkError::Socket)?;
        Ok(self.handle.get_or_init(|| handle).clone())
    }

    async fn request(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 1..DUMP_TRIES {
            match self.request_once(message.clone(), flags).await? {
                Answer { interrupted: true, .. } => {}
                answer => return Ok(answer.messages),
            }
        }
        // A list that never stands still is still better than none.
        Ok(self.request_once(message, flags).await?.messages)
    }

    async fn request_once(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut handle = self.handle()?;
        let mut replies = handle.request(request).map_err(|_| NetlinkError::Closed)?;
        let mut answer = Answer { messages: Vec::new(), interrupted: false };
        while let Some(reply) =
            tokio::time::timeout(PATIENCE, replies.next()).await.map_err(|_| NetlinkError::Silent)?
        {
            answer.interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
            match reply.payload {
                NetlinkPayload::InnerMessage(message) => answer.messages.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    let detail = kernels_words(&error.header);
                    return Err(NetlinkError::Refused { errno: error.to_io(), detail });
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    async fn command(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.request(message, NLM_F_ACK | flags).await.map(drop)
    }
}

struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

/// A socket that the runtime serves.
fn connect() -> io::Result<rtnetlink::Handle> {
    let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
    let socket = connection.socket_mut().socket_mut();
    // The kernel's own words in refusals; without the request, which would stand in front of them.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The text of an extended acknowledgement: attributes behind the 16 bytes of the request's header, of which
/// number 1 is the message (`NLMSGERR_ATTR_MSG`).
fn kernels_words(payload: &[u8]) -> Option<String> {
    let mut rest = payload.get(16..)?;
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == 1 {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).trim_end_matches('.').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute of an extended acknowledgement.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_kernels_words_are_found_behind_other_attributes() {
        let mut payload = vec![0; 16];
        payload.extend(attribute(2, &7_u32.to_ne_bytes()));
        payload.extend(attribute(1, b"Device is already a port.\0"));
        assert_eq!(kernels_words(&payload).as_deref(), Some("Device is already a port"));
    }

    #[test]
    fn an_acknowledgement_without_words_or_cut_short_has_none() {
        assert_eq!(kernels_words(&[0; 16]), None);
        assert_eq!(kernels_words(&[0; 5]), None);
        assert_eq!(kernels_words(&[[0; 16].as_slice(), &[0; 4]].concat()), None);
        assert_eq!(kernels_words(&[[0; 16].as_slice(), &[200, 0, 1, 0]].concat()), None);
    }
}
