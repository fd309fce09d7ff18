//! Netfilter's netlink: lists of things, and the attributes they consist of.

use std::io;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NlasIterator,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// Bytes of `struct nfgenmsg`: the family, a version, and 16 bits that do not matter here.
const GENERIC_HEADER: usize = 4;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel fills at most 32 KiB at once.
const BUFFER: usize = 1 << 16;
/// The kernel answers a list at once.
const PATIENCE_SECONDS: i64 = 10;
/// How often a list is taken again because something changed meanwhile.
const TRIES: usize = 8;

/// One thing of a list.
#[derive(Debug)]
pub(super) struct Message {
    /// `NFPROTO_…`.
    pub(super) family: u8,
    attributes: Vec<u8>,
}

impl Message {
    pub(super) fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.attributes)
    }
}

/// A socket in the network namespace of the calling thread.
pub(super) struct Nfnetlink {
    socket: Socket,
    sequence: u32,
}

impl Nfnetlink {
    /// Opens it; `None` where the kernel has no netfilter.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let mut socket = match Socket::new(NETLINK_NETFILTER) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
            socket => socket?,
        };
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Some(Self { socket, sequence: 0 }))
    }

    /// Everything of a kind (`NFT_MSG_GET…`), of one family or (0) of all; `None` where there is no such
    /// thing, or no nftables.
    pub(super) fn list(&mut self, kind: u8, family: u8, filter: &Filter) -> io::Result<Option<Vec<Message>>> {
        for _ in 1..TRIES {
            match self.list_once(kind, family, filter) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
        self.list_once(kind, family, filter)
    }

    fn list_once(&mut self, kind: u8, family: u8, filter: &Filter) -> io::Result<Option<Vec<Message>>> {
        self.sequence += 1;
        self.socket.send(&request(kind, family, filter, self.sequence), 0)?;
        let mut list = Vec::new();
        let mut interrupted = false;
        let mut bytes = Vec::with_capacity(BUFFER);
        loop {
            bytes.clear();
            self.socket.recv(&mut bytes, 0)?;
            let mut rest = bytes.as_slice();
            while rest.len() >= HEADER {
                let message = NetlinkBuffer::new_checked(&rest).map_err(invalid)?;
                let length = (message.length() as usize).next_multiple_of(4).min(rest.len());
                let payload = message.payload();
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                // What is left of an earlier list that was given up.
                if message.sequence_number() == self.sequence {
                    match message.message_type() {
                        NLMSG_DONE if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                        NLMSG_DONE => return Ok(Some(list)),
                        NLMSG_ERROR => return refusal(payload),
                        _ => list.push(parse(payload)?),
                    }
                }
                rest = &rest[length..];
            }
        }
    }
}

fn request(kind: u8, family: u8, filter: &Filter, sequence: u32) -> Vec<u8> {
    let length = u32::try_from(HEADER + GENERIC_HEADER + filter.0.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend((NFTABLES << 8 | u16::from(kind)).to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request.extend([family, 0, 0, 0]);
    request.extend(&filter.0);
    request
}

/// A refusal: the kernel has no nftables (`EINVAL`, `EOPNOTSUPP`), the thing has gone since it was listed (`ENOENT`),
/// or worse.
fn refusal(payload: &[u8]) -> io::Result<Option<Vec<Message>>> {
    let number = payload.first_chunk().map_or(libc::EPROTO, |bytes| -i32::from_ne_bytes(*bytes));
    match number {
        libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT => Ok(None),
        libc::EINTR => Err(io::ErrorKind::Interrupted.into()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

fn parse(payload: &[u8]) -> io::Result<Message> {
    let (header, attributes) =
        payload.split_at_checked(GENERIC_HEADER).ok_or_else(|| invalid("a message without a header"))?;
    Ok(Message { family: header[0], attributes: attributes.to_vec() })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Which things are asked for: strings that they have as attributes.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<u8>);

impl Filter {
    /// Only those with this attribute.
    pub(super) fn with(mut self, kind: u16, value: &str) -> Self {
        let length = u16::try_from(4 + value.len() + 1).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value.as_bytes());
        self.0.push(0);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// Attributes, one after the other. Numbers are in network order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// All of them: kind and value. Ends where they make no sense.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        NlasIterator::new(self.0).map_while(Result::ok).map(|attribute| {
            let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
            (kind, &attribute.into_inner()[NLA_HEADER_SIZE..length])
        })
    }

    /// The values of a list: attributes that are all of one kind.
    pub(super) fn values(self) -> impl Iterator<Item = Self> {
        self.iter().map(|(_, value)| Self(value))
    }

    pub(super) fn bytes(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.bytes(kind).map(Self)
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        self.bytes(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(super) fn string(self, kind: u16) -> Option<String> {
        let bytes = self.bytes(kind)?;
        let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An attribute and its padding.
    pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn attributes_are_found_by_kind_and_end_where_they_are_cut() {
        let bytes = [attribute(1, b"filter\0"), attribute(3, &7_u32.to_be_bytes())].concat();
        let attributes = Attributes(&bytes);
        assert_eq!(attributes.string(1).as_deref(), Some("filter"));
        assert_eq!(attributes.u32(3), Some(7));
        assert_eq!(attributes.u32(2), None);
        assert_eq!(Attributes(&bytes[..bytes.len() - 1]).iter().count(), 1);
        assert_eq!(Attributes(&[200, 0, 1, 0]).iter().count(), 0);
    }

    #[test]
    fn a_filter_is_an_attribute_of_text() {
        assert_eq!(Filter::default().with(1, "nat").0, attribute(1, b"nat\0"));
    }
}
