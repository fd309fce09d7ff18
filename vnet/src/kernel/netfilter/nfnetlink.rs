//! Netfilter's netlink: lists of things, and the attributes they consist of.

use std::io;

use nix::libc;
use rtnetlink::packet_core::{NLA_HEADER_SIZE, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::kernel::dump::{Answer, DumpSocket, invalid};

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;
/// Bytes of `struct nfgenmsg`: the family, a version, and 16 bits that do not matter here.
const GENERIC_HEADER: usize = 4;
/// The kernel answers a list at once.
const PATIENCE_SECONDS: i64 = 10;

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
    socket: DumpSocket,
}

impl Nfnetlink {
    /// Opens it; `None` where the kernel has no netfilter.
    pub(super) fn open() -> io::Result<Option<Self>> {
        match DumpSocket::open(NETLINK_NETFILTER, PATIENCE_SECONDS) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
            socket => Ok(Some(Self { socket: socket? })),
        }
    }

    /// Everything of a kind (`NFT_MSG_GET…`), of one family or (0) of all; `None` where there is no such
    /// thing, or no nftables.
    pub(super) fn list(&self, kind: u8, family: u8, filter: &Filter) -> io::Result<Option<Vec<Message>>> {
        let question = [&[family, 0, 0, 0], filter.0.as_slice()].concat();
        let of_kind = NFTABLES << 8 | u16::from(kind);
        match self.socket.list_raw(of_kind, &question, &|_, payload| parse(payload)) {
            // The kernel has no nftables, or the thing has gone since it was listed.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT)) =>
            {
                Ok(None)
            }
            Ok(Answer { interrupted: true, .. }) => Err(io::ErrorKind::Interrupted.into()),
            answer => Ok(Some(answer?.messages)),
        }
    }
}

fn parse(payload: &[u8]) -> io::Result<Message> {
    let (header, attributes) =
        payload.split_at_checked(GENERIC_HEADER).ok_or_else(|| invalid("a message without a header"))?;
    Ok(Message { family: header[0], attributes: attributes.to_vec() })
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
