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

use std::collections::HashMap;

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
    let found_classes = by_minor(classes.iter().map(|class| (class.handle, class)));
    let as_wanted =
        |class: &HtbClass| found_classes.get(&class.handle.minor).is_some_and(|found| found.is_like(*class));
    let queues = queues(&found);
    let waits = |class: &Class| queues.get(&leaf(class.number).minor) == Some(&class.queue);
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
    let by_handle = by_minor(wanted.iter().map(|class| (class.handle, class)));
    let is_elsewhere = |class: &HtbClass| {
        by_handle.get(&class.handle.minor).is_some_and(|wanted| wanted.parent != class.parent)
    };
    if found.iter().any(is_elsewhere) {
        netlink.remove_discipline(index, HANDLE).await?;
        netlink.set_discipline(index, (HANDLE, TcHandle::ROOT), &Made::Htb).await?;
        found.clear();
    }
    let there = by_minor(found.iter().map(|class| (class.handle, *class)));
    let is_there = |class: &HtbClass| there.get(&class.handle.minor).is_some_and(|it| it.is_like(*class));
    for class in wanted.iter().filter(|class| !is_there(class)) {
        netlink.set_htb_class(index, *class).await?;
    }
    let disciplines = netlink.disciplines(index).await?;
    let queues = queues(&disciplines);
    for class in classes {
        let parent = leaf(class.number);
        if queues.get(&parent.minor) != Some(&class.queue) {
            let handle = TcHandle { major: OF_LIMITS + class.number, minor: 0 };
            netlink.set_discipline(index, (handle, parent), &Made::Bfifo(class.queue)).await?;
        }
    }
    // What is inside another goes before it, however many there are around one another.
    let mut gone: Vec<HtbClass> = found;
    gone.retain(|class| !by_handle.contains_key(&class.handle.minor));
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
/// `htb` lets a class send what it is assured of even when those around it have nothing left: they bound only what is
/// borrowed from them. So what a limit is assured of is divided among those directly inside it and the rest of what it
/// holds for, to the last of it; what one of them leaves, the others borrow, up to their own limits. What is borrowed is
/// got in turns of 64 KiB, and a class whose turn takes longer to come than its burst loses what it saves up meanwhile:
/// without a share of its own, a slow limit inside a fast one would stay below its rate.
fn wanted(classes: &[Class]) -> Vec<HtbClass> {
    let mut inside: HashMap<u16, Vec<&Class>> = HashMap::new();
    for class in classes {
        if let Some(parent) = class.parent {
            inside.entry(parent).or_default().push(class);
        }
    }
    let mut shares: HashMap<u16, HtbRate> = HashMap::new();
    let mut made = Vec::with_capacity(2 * classes.len());
    for class in classes {
        let limit = HtbRate { rate: class.rate.bytes(), burst: class.burst };
        let assured = shares.get(&class.number).copied().unwrap_or(limit);
        let inner = inside.get(&class.number).map_or(&[][..], Vec::as_slice);
        let most: Vec<u32> = inner.iter().map(|it| it.rate.bytes()).chain([limit.rate]).collect();
        let mut divided = fair_shares(assured.rate, &most);
        let rest = divided.pop().unwrap_or_default();
        // As long as the burst of the whole, so that those of the parts together are no more than that.
        let part = |rate: u32, most: u32| {
            let burst = u64::from(assured.burst) * u64::from(rate) / u64::from(assured.rate.max(1));
            HtbRate { rate: rate.max(LEAST), burst: u32::try_from(burst).unwrap_or(u32::MAX).min(most) }
        };
        for (inner, share) in inner.iter().zip(divided) {
            shares.insert(inner.number, part(share, inner.burst));
        }
        let (node, leaf) = (node(class.number), leaf(class.number));
        let around = class.parent.map_or(HANDLE, self::node);
        made.push(HtbClass { handle: node, parent: around, assured, ceil: limit });
        made.push(HtbClass { handle: leaf, parent: node, assured: part(rest, limit.burst), ceil: limit });
    }
    made
}

/// The least rate that the kernel takes: not 0.
const LEAST: u32 = 1;

/// Divides what there is among those who want no more than so much each: whoever wants no more than an equal part gets
/// what he wants, and the others divide the rest likewise (max-min fairness). Together they get no more than there is.
fn fair_shares(all: u32, wanted: &[u32]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|nth| wanted[*nth]);
    let mut shares = vec![0; wanted.len()];
    let (mut left, mut others) = (all, u32::try_from(wanted.len()).unwrap_or(u32::MAX));
    for nth in order {
        shares[nth] = wanted[nth].min(left / others);
        left -= shares[nth];
        others -= 1;
    }
    shares
}

/// Classes, or what is in them, by the minor number of their handle; the major is vnet's for all.
fn by_minor<T>(classes: impl Iterator<Item = (TcHandle, T)>) -> HashMap<u16, T> {
    classes.map(|(handle, class)| (handle.minor, class)).collect()
}

/// The bytes that may wait in the plain queues of classes.
fn queues(found: &[Discipline]) -> HashMap<u16, u32> {
    let of_classes = found.iter().filter(|it| it.parent.major == MAJOR);
    by_minor(of_classes.filter_map(|it| Some((it.parent, it.queue()?))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_divided_fairly_and_to_the_last() {
        for (all, wanted, shares) in [
            (40, &[10, 40][..], &[10, 30][..]),
            (40, &[40, 40, 40], &[13, 13, 14]),
            (40, &[5, 100, 10], &[5, 25, 10]),
            (40, &[40], &[40]),
            (40, &[10], &[10]),
            (2, &[9, 9, 9], &[0, 1, 1]),
            (40, &[], &[]),
        ] {
            assert_eq!(fair_shares(all, wanted), shares, "{all} among {wanted:?}");
        }
    }

    #[test]
    fn those_inside_a_limit_are_assured_of_no_more_than_it_together() {
        let class = |number, parent, rate: &str| Class {
            number,
            parent,
            rate: rate.parse().unwrap(),
            burst: 100_000,
            queue: 300_000,
        };
        let classes = [
            class(1, None, "80mbit"),
            class(2, Some(1), "16mbit"),
            class(3, Some(1), "80mbit"),
            class(4, Some(3), "8kbit"),
            class(9, None, "8mbit"),
        ];
        let made = wanted(&classes);
        let of = |handle: TcHandle| made.iter().find(|it| it.handle == handle).expect("a class");
        let rates = |number| (of(node(number)).assured.rate, of(leaf(number)).assured.rate);
        assert_eq!(rates(1), (10_000_000, 4_000_000));
        assert_eq!(rates(2), (2_000_000, 2_000_000));
        assert_eq!(rates(3), (4_000_000, 3_999_000));
        assert_eq!(rates(4), (1_000, 1_000));
        assert_eq!(rates(9), (1_000_000, 1_000_000));
        for class in &classes {
            let inside: Vec<_> = made.iter().filter(|it| it.parent == node(class.number)).collect();
            let whole = of(node(class.number)).assured;
            assert!(inside.iter().map(|it| it.assured.rate).sum::<u32>() <= whole.rate);
            assert!(inside.iter().map(|it| it.assured.burst).sum::<u32>() <= whole.burst);
            let limit = HtbRate { rate: class.rate.bytes(), burst: class.burst };
            assert!([node(class.number), leaf(class.number)].iter().all(|it| of(*it).ceil == limit));
        }
    }
}
