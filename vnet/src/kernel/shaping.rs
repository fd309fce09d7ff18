//! Where what limited cgroups send waits on an uplink: its queueing discipline.
//!
//! ```text
//! fq    7e7: fq                    packets come with the time at which they leave
//!       7e7: mq -- 7001: fq ...    the same on each queue of an interface with several
//! htb   7e7: htb                   packets come with their class
//!          '-- 7e7:2N              limit N
//!                 |-- 7e7:2N+1     what is in no limit inside it, in a plain queue
//!                 '-- 7e7:2M ...   limits inside it
//! ```
//!
//! It takes the place of what the kernel gives an interface by itself, which has no handle, and of nothing else: somebody
//! has chosen any other. The kernel gives the interface its own again when this one goes.

use netlink_packet_route::tc::TcHandle;

use super::error::Error;
use super::interface::{find, require};
use super::netlink::{Discipline, FQ, HTB, HtbClass, HtbRate, MQ, Made, Netlink, NetlinkError};
use crate::plan::{Class, Pacing, Queue, State};

/// By what vnet's own is known: the same as limits of endpoints.
const MAJOR: u16 = 0x7e7;
const HANDLE: TcHandle = TcHandle { major: MAJOR, minor: 0 };
/// Majors of the disciplines of hardware queues, one for each.
const OF_QUEUES: u16 = 0x7000;
/// Majors of the plain queues of limits: 4,001 to 8,000 of decimal counting at most.
const OF_LIMITS: u16 = 0x1000;

/// The class of what a limit is for, as a packet's priority names it.
pub(super) fn priority(number: u16) -> u32 {
    let TcHandle { major, minor } = leaf(number);
    u32::from(major) << 16 | u32::from(minor)
}

fn node(number: u16) -> TcHandle {
    TcHandle { major: MAJOR, minor: 2 * number }
}

fn leaf(number: u16) -> TcHandle {
    TcHandle { major: MAJOR, minor: 2 * number + 1 }
}

/// How the kernel makes packets wait; `None` if it has nothing for it.
pub(super) async fn possible(netlink: &Netlink) -> Result<Option<Pacing>, Error> {
    let failed = |source| queue_error("lo", source);
    for pacing in [Pacing::Fq, Pacing::Htb] {
        if netlink.has_discipline(pacing.discipline()).await.map_err(failed)? {
            return Ok(Some(pacing));
        }
    }
    Ok(None)
}

/// How it stands.
pub(super) async fn state(netlink: &Netlink, queue: &Queue) -> Result<State, Error> {
    let failed = |source| queue_error(&queue.interface, source);
    let Some(link) = find(netlink, &queue.interface).await? else { return Ok(State::Absent) };
    let found = netlink.disciplines(link.index).await.map_err(failed)?;
    let Some(root) = own_root(&found) else { return Ok(State::Absent) };
    let classes = match (queue.pacing, root.kind.as_str()) {
        (Pacing::Fq, FQ) => return Ok(State::Present),
        (Pacing::Fq, MQ) if of_queues(&found).all(|it| it.kind == FQ) => return Ok(State::Present),
        (Pacing::Htb, HTB) => netlink.htb_classes(link.index).await.map_err(failed)?,
        (_, kind) => return Ok(State::Differs(format!("it is {kind}"))),
    };
    let wanted = wanted(&queue.classes);
    let as_wanted = |class: &HtbClass| classes.iter().any(|it| it.is_like(*class));
    let waits = |class: &Class| {
        found.iter().any(|it| it.parent == leaf(class.number) && it.queue() == Some(class.queue))
    };
    if classes.len() == wanted.len() && wanted.iter().all(as_wanted) && queue.classes.iter().all(waits) {
        return Ok(State::Present);
    }
    Ok(State::Differs("its classes are not those of the limits".to_owned()))
}

/// Makes it, or brings it to its description.
pub(super) async fn create(netlink: &Netlink, queue: &Queue) -> Result<(), Error> {
    let interface = &queue.interface;
    let failed = |source| queue_error(interface, source);
    let index = require(netlink, interface).await?.index;
    let found = netlink.disciplines(index).await.map_err(failed)?;
    if let Some(other) = chosen(&found) {
        let (interface, kind, handle) = (interface.clone(), other.kind.clone(), other.handle.major);
        return Err(Error::ForeignQueue { interface, kind, handle });
    }
    let root = own_root(&found);
    match queue.pacing {
        Pacing::Fq => {
            let has_several = found.iter().any(|it| it.kind == MQ && it.parent == TcHandle::ROOT);
            let (made, kind) = if has_several { (Made::Mq, MQ) } else { (Made::Fq, FQ) };
            let right = root.is_some_and(|root| root.kind == kind);
            if !right {
                remove(netlink, interface).await?;
                netlink.set_discipline(index, (HANDLE, TcHandle::ROOT), &made).await.map_err(failed)?;
            }
            let found = netlink.disciplines(index).await.map_err(failed)?;
            for one in of_queues(&found).filter(|it| it.kind != FQ) {
                let handle = TcHandle { major: OF_QUEUES + one.parent.minor, minor: 0 };
                netlink.set_discipline(index, (handle, one.parent), &Made::Fq).await.map_err(failed)?;
            }
            Ok(())
        }
        Pacing::Htb => {
            if root.is_none_or(|root| root.kind != HTB) {
                remove(netlink, interface).await?;
                netlink.set_discipline(index, (HANDLE, TcHandle::ROOT), &Made::Htb).await.map_err(failed)?;
            }
            set_classes(netlink, index, &queue.classes).await.map_err(failed)
        }
    }
}

/// Brings the classes of an interface to their description. One that is elsewhere among the others is made anew with all
/// of them: its place cannot be changed, and what waits in them is lost.
async fn set_classes(netlink: &Netlink, index: u32, classes: &[Class]) -> Result<(), NetlinkError> {
    let wanted = wanted(classes);
    let mut found = netlink.htb_classes(index).await?;
    let is_elsewhere =
        |class: &HtbClass| wanted.iter().any(|it| it.handle == class.handle && it.parent != class.parent);
    if found.iter().any(is_elsewhere) {
        netlink.remove_discipline(index, HANDLE).await?;
        netlink.set_discipline(index, (HANDLE, TcHandle::ROOT), &Made::Htb).await?;
        found.clear();
    }
    for class in wanted.iter().filter(|class| !found.iter().any(|it| it.is_like(**class))) {
        netlink.set_htb_class(index, *class).await?;
    }
    let disciplines = netlink.disciplines(index).await?;
    for class in classes {
        let parent = leaf(class.number);
        let waits = disciplines.iter().any(|it| it.parent == parent && it.queue() == Some(class.queue));
        if !waits {
            let handle = TcHandle { major: OF_LIMITS + class.number, minor: 0 };
            netlink.set_discipline(index, (handle, parent), &Made::Bfifo(class.queue)).await?;
        }
    }
    // What is inside another goes before it, however many there are around one another.
    let mut gone: Vec<HtbClass> = found;
    gone.retain(|class| wanted.iter().all(|it| it.handle != class.handle));
    while !gone.is_empty() {
        let (inner, outer): (Vec<_>, Vec<_>) = gone
            .iter()
            .partition::<Vec<HtbClass>, _>(|class| gone.iter().all(|other| other.parent != class.handle));
        for class in &inner {
            netlink.remove_htb_class(index, *class).await?;
        }
        if inner.is_empty() {
            break;
        }
        gone = outer;
    }
    Ok(())
}

/// Removes it, if there is one.
pub(super) async fn remove(netlink: &Netlink, interface: &str) -> Result<(), Error> {
    let failed = |source| queue_error(interface, source);
    let Some(link) = find(netlink, interface).await? else { return Ok(()) };
    let found = netlink.disciplines(link.index).await.map_err(failed)?;
    if own_root(&found).is_some() {
        netlink.remove_discipline(link.index, HANDLE).await.map_err(failed)?;
    }
    Ok(())
}

/// The classes of limits: each with one for what is in no limit inside it.
///
/// `htb` lets a class send what it is assured of even when those around it have nothing left; they bound only what is
/// borrowed from them. So all is borrowed from the outermost limit, which alone has its rate assured.
fn wanted(classes: &[Class]) -> Vec<HtbClass> {
    /// The least that the kernel takes: not 0. It lets a debt of a minute at most add up, so this is a packet in a minute.
    const BORROWED: HtbRate = HtbRate { rate: 1, burst: 0 };
    let both = |class: &Class| {
        let limit = HtbRate { rate: class.rate.bytes(), burst: class.burst };
        let (node, leaf) = (node(class.number), leaf(class.number));
        let (around, assured) = match class.parent {
            Some(parent) => (self::node(parent), BORROWED),
            None => (HANDLE, limit),
        };
        [
            HtbClass { handle: node, parent: around, assured, ceil: limit },
            HtbClass { handle: leaf, parent: node, assured: BORROWED, ceil: limit },
        ]
    };
    classes.iter().flat_map(both).collect()
}

fn own_root(found: &[Discipline]) -> Option<&Discipline> {
    found.iter().find(|it| it.parent == TcHandle::ROOT && it.handle == HANDLE)
}

/// The disciplines of the hardware queues, below vnet's own.
fn of_queues(found: &[Discipline]) -> impl Iterator<Item = &Discipline> {
    found.iter().filter(|it| it.parent.major == MAJOR && it.parent.minor != 0)
}

/// A discipline that somebody has chosen: it has a handle, and is neither below vnet's own nor where programs and filters
/// are attached, which delays nothing.
fn chosen(found: &[Discipline]) -> Option<&Discipline> {
    let own = own_root(found).is_some();
    found.iter().find(|it| {
        let is_hook = it.handle.major == u16::MAX || it.parent == TcHandle::CLSACT;
        let below_own = own && (it.handle == HANDLE || it.parent.major == MAJOR);
        it.handle.major != 0 && !is_hook && !below_own
    })
}

fn queue_error(interface: &str, source: NetlinkError) -> Error {
    Error::Shape { interface: interface.to_owned(), source }
}
