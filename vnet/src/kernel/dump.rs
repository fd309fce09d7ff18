//! Lists that the kernel gives at once ("dumps"), by any of its netlink protocols: a question, and messages until it
//! says that these were all.
//!
//! The answer is waited for by the thread that asks, since it is there when the question has been sent. A socket that
//! is neither bound nor connected talks to the kernel, which gives it an address with the first question.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
};
use rtnetlink::sys::Socket;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The kernel fills at most 32 KiB at once.
const BUFFER: usize = 1 << 16;
/// How often a list is taken again because something changed meanwhile.
const TRIES: usize = 8;

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct DumpSocket {
    socket: Socket,
    sequence: Cell<u32>,
}

/// What the kernel answered.
#[derive(Debug)]
pub(super) struct Answer<M> {
    pub(super) messages: Vec<M>,
    /// Whether something changed each time the list was taken, so that it may lack something.
    pub(super) interrupted: bool,
}

impl DumpSocket {
    /// Opens one for a protocol (`NETLINK_…`). The kernel may take so many seconds for an answer.
    pub(super) fn open(protocol: isize, patience_seconds: i64) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(patience_seconds))?;
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// Has the kernel check what is asked for, and give no more than that.
    pub(super) fn set_strict_check(&self) -> io::Result<()> {
        self.socket.set_netlink_get_strict_chk(true)
    }

    /// Asks for a list. What it refuses comes as the error number.
    pub(super) fn list<M>(&self, question: &M) -> io::Result<Answer<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        self.list_raw(question.message_type(), &bytes, &|message_type, payload| {
            let mut header = NetlinkHeader::default();
            header.message_type = message_type;
            M::deserialize(&header, payload).map_err(io::Error::other)
        })
    }

    /// As [`Self::list`], of messages that no crate knows: of a type, with what follows the header; `parse` is given
    /// the same of each message of the answer.
    pub(super) fn list_raw<M>(
        &self,
        message_type: u16,
        question: &[u8],
        parse: &dyn Fn(u16, &[u8]) -> io::Result<M>,
    ) -> io::Result<Answer<M>> {
        for _ in 1..TRIES {
            match self.list_once(message_type, question, parse) {
                Ok(Answer { interrupted: true, .. }) => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::EINTR) => {}
                result => return result,
            }
        }
        self.list_once(message_type, question, parse)
    }

    fn list_once<M>(
        &self,
        message_type: u16,
        question: &[u8],
        parse: &dyn Fn(u16, &[u8]) -> io::Result<M>,
    ) -> io::Result<Answer<M>> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        self.socket.send(&request(message_type, question, sequence), 0)?;
        let mut answer = Answer { messages: Vec::new(), interrupted: false };
        let mut bytes = Vec::with_capacity(BUFFER);
        loop {
            bytes.clear();
            self.socket.recv(&mut bytes, 0)?;
            let mut rest = bytes.as_slice();
            while rest.len() >= HEADER {
                let message = NetlinkBuffer::new_checked(&rest).map_err(invalid)?;
                // Messages begin at multiples of four bytes.
                let length = (message.length() as usize).next_multiple_of(4).min(rest.len());
                let payload = message.payload();
                answer.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                // Others are what is left of an earlier list that was given up.
                if message.sequence_number() == sequence {
                    match message.message_type() {
                        NLMSG_DONE => return Ok(answer),
                        NLMSG_ERROR => return Err(refusal(payload)),
                        message_type => answer.messages.push(parse(message_type, payload)?),
                    }
                }
                rest = &rest[length..];
            }
        }
    }
}

impl AsFd for DumpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for DumpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn request(message_type: u16, question: &[u8], sequence: u32) -> Vec<u8> {
    let length = u32::try_from(HEADER + question.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(message_type.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request.extend(question);
    request
}

/// Why the kernel refuses.
fn refusal(payload: &[u8]) -> io::Error {
    let number = payload.first_chunk().map_or(nix::libc::EPROTO, |bytes| -i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(number)
}

/// An answer that makes no sense.
pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
