//! Filters of clsact qdiscs.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use nix::libc;
use rtnetlink::packet_core::NLM_F_DUMP;

use super::{Netlink, Result};

/// A BPF filter of a clsact qdisc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct BpfFilter {
    /// The program's number in the kernel; `None` for a filter of another kind.
    pub(in crate::kernel) program: Option<u32>,
    pub(in crate::kernel) priority: u16,
    pub(in crate::kernel) handle: TcHandle,
}

impl Netlink {
    /// The filters at one of the two hooks of an interface's clsact qdisc; none if it has no such qdisc.
    pub(in crate::kernel) async fn filters(&self, index: u32, hook: TcHandle) -> Result<Vec<BpfFilter>> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.parent = hook;
        let answer = match self.request(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP).await {
            Err(error) if error.is(libc::EINVAL) || error.is(libc::ENOENT) => Vec::new(),
            answer => answer?,
        };
        let filters = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => Some(filter(message)),
            _ => None,
        });
        // The kernel also lists each priority as such, without a handle.
        Ok(filters.filter(|filter| filter.handle != TcHandle::UNSPEC).collect())
    }

    /// Removes an interface's clsact qdisc.
    pub(in crate::kernel) async fn delete_clsact(&self, index: u32) -> Result<()> {
        let mut message = TcMessage::default();
        message.header.index = index.cast_signed();
        message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        message.header.parent = TcHandle::CLSACT;
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        match self.command(RouteNetlinkMessage::DelQueueDiscipline(message), 0).await {
            Err(error) if [libc::ENOENT, libc::EINVAL].iter().any(|&e| error.is(e)) => Ok(()),
            done => done,
        }
    }
}

fn filter(message: &TcMessage) -> BpfFilter {
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let program = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    });
    // The upper half of `info` is the priority, the lower the protocol.
    let priority = (message.header.info >> 16) as u16;
    BpfFilter { program, priority, handle: message.header.handle }
}
