//! Programs attached to interfaces: by TCX links, and by filters of a clsact qdisc on kernels before 6.6.
//!
//! ```text
//! links/PROGRAM@INTERFACE          a TCX link
//! links/PROGRAM+clsact@INTERFACE   a filter: the program once more, to recognise the filter by
//! links/clsact@INTERFACE           the qdisc is vnet's: any program
//! ```
//!
//! A link whose interface went away stays pinned without doing anything, and the interface's name may belong to
//! a new one since; so what counts is what the kernel says is attached to the interface of that name now.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, Link, LinkError, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::sys::SyscallError;
use netlink_packet_route::tc::TcHandle;
use nix::libc;
use vnet_common::Hook;

use super::error::Error;
use super::interface;
use super::netlink::{BpfFilter, Netlink};
use super::pins;
use super::programs::{self, Place};
use crate::instance::Instance;
use crate::plan::State;

/// Marks the pins of filters and of the qdisc they are in.
const CLSACT: &str = "clsact";

/// A hook of an interface of an instance.
#[derive(Clone, Copy)]
pub(super) struct Attachment<'a> {
    pub(super) instance: &'a Instance,
    pub(super) hook: Hook,
    pub(super) interface: &'a str,
}

/// The hooks and interfaces whose attachments are pinned in a directory.
pub(super) fn pinned_in(links: &Path) -> Result<Vec<(Hook, String)>, Error> {
    let pins = pins::list(links)?;
    let mut found: Vec<_> = pins.iter().filter_map(|pin| parse(pin.file_name()?.to_str()?)).collect();
    found.dedup();
    Ok(found)
}

/// The interface that an attachment's pin is named for; `None` if the pin is another.
pub(super) fn interface_of_pin(name: &str) -> Option<String> {
    parse(name).map(|(_, interface)| interface)
}

/// What is attached where an instance's attachments are pinned for: the kernel's count of changes there, and the
/// programs' numbers. Nothing is known of filters, of which there are news, and of interfaces that are gone.
///
/// It is asked every second, so each attachment costs two system calls and no lock.
pub(super) fn attached(instance: &Instance) -> Result<BTreeMap<AttachedAt, Option<Attached>>, Error> {
    let links = programs::links_of(instance);
    let pinned = pinned_in(&links)?.into_iter().filter(|(hook, _)| *hook != Hook::XdpUplink);
    let netlink = Netlink::open_as_needed().map_err(|source| Error::NetlinkSocket { source })?;
    let mut attached = BTreeMap::new();
    for (hook, interface) in pinned {
        let index = interface::index_if_any(&netlink, &interface)?;
        let found = index.and_then(|index| query(index, direction(hook)).ok());
        attached.insert((hook.name(), interface), found);
    }
    Ok(attached)
}

/// The XDP programs whose links are pinned, and whether each was detached. Of a program that is attached otherwise there
/// are news.
pub(super) fn xdp_links(instance: &Instance) -> Result<Vec<(String, bool)>, Error> {
    let links = programs::links_of(instance);
    let pinned = pinned_in(&links)?.into_iter().filter(|(hook, _)| *hook == Hook::XdpUplink);
    let told = pinned.map(|(hook, interface)| {
        // Not knowing is no reason to do anything about it.
        let is_detached = pins::is_detached(&instance.link_pin(hook.name(), &interface)).unwrap_or(false);
        (interface, is_detached)
    });
    Ok(told.collect())
}

/// Programs of others that see packets before an instance's own: by hook and interface, their numbers in their order.
/// Nothing is known of filters, whose order is that of their priorities.
pub(super) fn in_front(instance: &Instance) -> Result<Vec<(Hook, String, Vec<u32>)>, Error> {
    let mut own = BTreeMap::new();
    for hook in Hook::ALL.into_iter().filter(|hook| *hook != Hook::XdpUplink) {
        let pin = instance.program_pin(hook.name());
        if let Some(program) = open_program(&pin)? {
            own.insert(hook.name(), (hook, program_id(&program, &pin)?));
        }
    }
    let mut found = Vec::new();
    for ((name, interface), attached) in attached(instance)? {
        let (Some((hook, number)), Some((_, programs))) = (own.get(name), attached) else { continue };
        let before = programs.iter().copied().take_while(|other| other != number).collect::<Vec<u32>>();
        if before.len() == programs.len() {
            continue;
        }
        // An uplink may have two of the instance's, in either order.
        let others: Vec<u32> =
            before.into_iter().filter(|other| own.values().all(|(_, own)| own != other)).collect();
        if !others.is_empty() {
            found.push((*hook, interface, others));
        }
    }
    Ok(found)
}

/// What is attached to an interface by TCX (`BPF_PROG_QUERY`, Linux 6.6). aya opens each program to tell its number.
fn query(index: u32, direction: TcAttachType) -> io::Result<Attached> {
    const PROG_QUERY: libc::c_long = 16;
    const TCX_INGRESS: u32 = 46;
    const TCX_EGRESS: u32 = 47;
    /// The part of the kernel's `union bpf_attr` that is for queries.
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }
    // As many as the kernel takes (`BPF_MPROG_MAX`).
    let mut programs = [0_u32; 64];
    let mut query = Query {
        target: index,
        attach_type: if matches!(direction, TcAttachType::Egress) { TCX_EGRESS } else { TCX_INGRESS },
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        ..Query::default()
    };
    // SAFETY: the attribute is the caller's alone and as long as is said; it points to room for so many numbers, which
    // outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    let error = io::Error::last_os_error();
    if done < 0 && error.raw_os_error() != Some(libc::ENOSPC) {
        return Err(error);
    }
    let told = programs.len().min(query.count as usize);
    Ok((query.revision, programs[..told].to_vec()))
}

/// A program's name, and the interface that it is attached to.
pub(super) type AttachedAt = (&'static str, String);
/// The kernel's count of changes, and the numbers of the programs in their order.
pub(super) type Attached = (u64, Vec<u32>);

/// Whether a link's pin is that of a program attached to an interface, or a mark that goes with one.
pub(super) fn is_pin(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    parse(name).is_some() || name.split_once('@').is_some_and(|(what, _)| what == CLSACT)
}

/// The hook and the interface that a pin is named for.
fn parse(name: &str) -> Option<(Hook, String)> {
    let (what, interface) = name.split_once('@')?;
    let program = what.strip_suffix(CLSACT).and_then(|what| what.strip_suffix('+')).unwrap_or(what);
    let hook = Hook::ALL.into_iter().find(|hook| hook.name() == program)?;
    Some((hook, interface.replace(':', ".")))
}

impl Attachment<'_> {
    fn link_pin(&self) -> PathBuf {
        self.instance.link_pin(self.hook.name(), self.interface)
    }

    fn filter_pin(&self) -> PathBuf {
        self.instance.link_pin(&format!("{}+{CLSACT}", self.hook.name()), self.interface)
    }

    fn qdisc_pin(&self) -> PathBuf {
        self.instance.link_pin(CLSACT, self.interface)
    }

    /// Whether anything of it is pinned.
    pub(super) fn is_pinned(&self) -> bool {
        self.link_pin().exists() || self.filter_pin().exists()
    }

    /// How it stands.
    pub(super) async fn state(&self, netlink: &Netlink) -> Result<State, Error> {
        let link = open_link(&self.link_pin())?;
        if link.is_none() && !self.filter_pin().exists() {
            return Ok(State::Absent);
        }
        let Some(index) = self.index(netlink).await? else {
            return Ok(State::Differs(format!("{} is gone", self.interface)));
        };
        let pin = self.instance.program_pin(self.hook.name());
        let Some(program) = open_program(&pin)? else {
            return Ok(State::Differs(format!("program {} is not loaded any more", self.hook.name())));
        };
        let wanted = program_id(&program, &pin)?;
        let attached = match link {
            Some(link) => self.link_is_attached(&link, index, wanted)?,
            None => self.filters(netlink, index).await?.iter().any(|filter| filter.program == Some(wanted)),
        };
        Ok(if attached {
            State::Present
        } else {
            State::Differs(format!("{} has another program, or none", self.interface))
        })
    }

    /// aya opens every program to tell its number, which takes `CAP_SYS_ADMIN`.
    fn link_is_attached(&self, link: &FdLink, index: u32, wanted: u32) -> Result<bool, Error> {
        let info = link.info().map_err(|source| Error::OpenLink { pin: self.link_pin(), source })?;
        let attached = query(index, direction(self.hook))
            .map_err(|source| Error::Query { interface: self.interface.to_owned(), source })?;
        Ok(info.program_id() == wanted && attached.1.contains(&wanted))
    }

    /// Attaches the program, in front of others.
    pub(super) async fn create(&self, netlink: &Netlink) -> Result<(), Error> {
        let mut program = programs::classifier(self.instance, self.hook)?;
        if self.state(netlink).await? == State::Present {
            return Ok(());
        }
        self.remove(netlink).await?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(self.interface, direction(self.hook), order) {
            Ok(id) => {
                let link = program.take_link(id).map_err(|source| self.failed(source))?;
                pin_link(link, self.link_pin())
            }
            Err(ProgramError::SyscallError(SyscallError { io_error, .. })) if has_no_tcx(&io_error) => {
                self.create_filter(&mut program, netlink).await
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Attaches the program as a filter. The pins come first: what is attached can always be found again.
    pub(super) async fn create_filter(
        &self,
        program: &mut SchedClassifier,
        netlink: &Netlink,
    ) -> Result<(), Error> {
        self.create_qdisc(program)?;
        programs::pin(self.filter_pin(), |pin| program.pin(pin))?;
        // Without a priority the kernel puts it in front of those that are there.
        let options = TcAttachOptions::Netlink(NlOptions::default());
        let attached = program.attach_with_options(self.interface, direction(self.hook), options);
        match attached.and_then(|id| program.take_link(id)) {
            Ok(link) => {
                // Dropping it would remove the filter; it owns nothing but numbers.
                std::mem::forget(link);
                Ok(())
            }
            Err(source) => {
                self.remove(netlink).await?;
                Err(self.failed(source))
            }
        }
    }

    /// Adds the qdisc, marked as vnet's, unless there is one. A mark that is there already may be of an interface
    /// that had the name before.
    fn create_qdisc(&self, program: &mut SchedClassifier) -> Result<(), Error> {
        let marked = self.qdisc_pin().exists();
        if !marked {
            programs::pin(self.qdisc_pin(), |pin| program.pin(pin))?;
        }
        match tc::qdisc_add_clsact(self.interface) {
            Ok(()) => Ok(()),
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                // Somebody else's, unless it has been vnet's before.
                if marked { Ok(()) } else { pins::unpin(&self.qdisc_pin()) }
            }
            Err(source) => {
                pins::unpin(&self.qdisc_pin())?;
                Err(self.failed(source.into()))
            }
        }
    }

    /// Detaches the program, and nothing else.
    pub(super) async fn remove(&self, netlink: &Netlink) -> Result<(), Error> {
        if interface::index_if_any(netlink, self.interface)?.is_none() {
            // What was attached went with the interface; detaching a link of it would wait for the kernel to say so.
            return [self.link_pin(), self.filter_pin(), self.qdisc_pin()]
                .iter()
                .try_for_each(|pin| pins::unpin(pin));
        }
        pins::detach(&self.link_pin())?;
        let Some(ours) = open_program(&self.filter_pin())? else { return Ok(()) };
        if let Some(index) = self.index(netlink).await? {
            let ours = program_id(&ours, &self.filter_pin())?;
            for filter in self.filters(netlink, index).await? {
                if filter.program == Some(ours) {
                    self.filter_link(&filter)?.detach().map_err(|source| self.failed(source))?;
                }
            }
            self.remove_qdisc(netlink, index).await?;
        }
        pins::unpin(&self.filter_pin())
    }

    /// Removes the qdisc if it is vnet's and nobody uses it any more.
    async fn remove_qdisc(&self, netlink: &Netlink, index: u32) -> Result<(), Error> {
        if !self.qdisc_pin().exists() {
            return Ok(());
        }
        for hook in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
            if !self.filters_at(netlink, index, hook).await?.is_empty() {
                return Ok(());
            }
        }
        let removed = netlink.delete_clsact(index).await;
        removed.map_err(|source| Error::Filters { interface: self.interface.to_owned(), source })?;
        pins::unpin(&self.qdisc_pin())
    }

    /// Gives what is attached another program, in place, and pins it in another set. What is attached no more
    /// is left out of that set.
    pub(super) async fn exchange(
        &self,
        new: &Place<'_>,
        program: &mut SchedClassifier,
        netlink: &Netlink,
    ) -> Result<(), Error> {
        if let Some(link) = self.exchange_link(program)? {
            pin_link(link, new.path(&self.link_pin()))?;
        }
        if self.filter_pin().exists() {
            // Before the filter has it: what is attached can always be found again.
            let pin = new.path(&self.filter_pin());
            programs::pin(pin.clone(), |pin| program.pin(pin))?;
            if !self.exchange_filters(&self.filter_pin(), program, netlink).await? {
                pins::unpin(&pin)?;
            }
        }
        let mark = new.path(&self.qdisc_pin());
        if self.qdisc_pin().exists() && !mark.exists() {
            programs::pin(mark, |pin| program.pin(pin))?;
        }
        Ok(())
    }

    /// Gives what is attached a program of the set in use again, after another set's has taken its place.
    pub(super) async fn exchange_back(
        &self,
        new: &Place<'_>,
        program: &mut SchedClassifier,
        netlink: &Netlink,
    ) -> Result<(), Error> {
        // It is pinned, and stays when this descriptor of it is closed.
        drop(self.exchange_link(program)?);
        self.exchange_filters(&new.path(&self.filter_pin()), program, netlink).await.map(drop)
    }

    /// Gives the pinned link another program; `None` if there is no link, or its interface is gone.
    fn exchange_link(&self, program: &mut SchedClassifier) -> Result<Option<SchedClassifierLink>, Error> {
        let Some(link) = open_link(&self.link_pin())? else { return Ok(None) };
        let link = link.try_into().map_err(|source| Error::OpenLink { pin: self.link_pin(), source })?;
        match program.attach_to_link(link) {
            Ok(id) => program.take_link(id).map(Some).map_err(|source| self.failed(source)),
            Err(ProgramError::SyscallError(error)) if is_detached(&error.io_error) => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Gives the filters that have the program pinned at a path another one; says whether there are any.
    async fn exchange_filters(
        &self,
        pin: &Path,
        program: &mut SchedClassifier,
        netlink: &Netlink,
    ) -> Result<bool, Error> {
        let (Some(former), Some(index)) = (open_program(pin)?, self.index(netlink).await?) else {
            return Ok(false);
        };
        let former = program_id(&former, pin)?;
        let mut found = false;
        for filter in self.filters(netlink, index).await? {
            if filter.program == Some(former) {
                let exchanged = program.attach_to_link(self.filter_link(&filter)?);
                let link = exchanged.and_then(|id| program.take_link(id));
                // Dropping it would remove the filter; it owns nothing but numbers.
                std::mem::forget(link.map_err(|source| self.failed(source))?);
                found = true;
            }
        }
        Ok(found)
    }

    async fn index(&self, netlink: &Netlink) -> Result<Option<u32>, Error> {
        let link = netlink.link(self.interface).await;
        let link =
            link.map_err(|source| Error::ReadInterface { interface: self.interface.to_owned(), source })?;
        Ok(link.map(|link| link.index))
    }

    async fn filters(&self, netlink: &Netlink, index: u32) -> Result<Vec<BpfFilter>, Error> {
        let hook = match direction(self.hook) {
            TcAttachType::Egress => TcHandle::MIN_EGRESS,
            _ => TcHandle::MIN_INGRESS,
        };
        self.filters_at(netlink, index, hook).await
    }

    async fn filters_at(&self, netlink: &Netlink, index: u32, hook: u16) -> Result<Vec<BpfFilter>, Error> {
        let hook = TcHandle { major: TcHandle::CLSACT.major, minor: hook };
        let filters = netlink.filters(index, hook).await;
        filters.map_err(|source| Error::Filters { interface: self.interface.to_owned(), source })
    }

    fn filter_link(&self, filter: &BpfFilter) -> Result<SchedClassifierLink, Error> {
        let handle = tc::TcHandle::new(filter.handle.major, filter.handle.minor);
        let link = SchedClassifierLink::attached(
            self.interface,
            direction(self.hook),
            filter.priority,
            handle,
            None,
        );
        link.map_err(|source| self.failed(TcError::IoError(source).into()))
    }

    fn failed(&self, source: ProgramError) -> Error {
        match source {
            ProgramError::TcError(TcError::IoError(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                Error::NoInterface { interface: self.interface.to_owned() }
            }
            source => Error::Attach {
                program: self.hook.name(),
                interface: self.interface.to_owned(),
                source: Box::new(source),
            },
        }
    }
}

/// On which side of its interface a hook is.
const fn direction(hook: Hook) -> TcAttachType {
    match hook {
        Hook::FromEndpoint | Hook::FromUplink | Hook::FromHold | Hook::XdpUplink => TcAttachType::Ingress,
        Hook::ToUplink | Hook::ToBridge | Hook::ToNetwork | Hook::Shape => TcAttachType::Egress,
    }
}

/// Whether this is how a kernel without TCX answers. It may have other reasons, but then a filter fails as well.
fn has_no_tcx(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Whether this is what the kernel says of a link whose interface is gone.
fn is_detached(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOLINK)
}

fn pin_link(link: SchedClassifierLink, pin: PathBuf) -> Result<(), Error> {
    let link = FdLink::try_from(link).map_err(|source| Error::OpenLink { pin: pin.clone(), source })?;
    programs::pin(pin, |pin| link.pin(pin).map(drop))
}

/// Opens a pinned link; `None` if nothing is pinned there.
pub(super) fn open_link(pin: &Path) -> Result<Option<FdLink>, Error> {
    match PinnedLink::from_pin(pin) {
        Ok(link) => Ok(Some(link.into())),
        Err(LinkError::SyscallError(error)) if is_missing(&error) => Ok(None),
        Err(source) => Err(Error::OpenLink { pin: pin.to_owned(), source }),
    }
}

/// Opens a pinned program; `None` if nothing is pinned there.
fn open_program(pin: &Path) -> Result<Option<SchedClassifier>, Error> {
    match SchedClassifier::from_pin(pin) {
        Ok(program) => Ok(Some(program)),
        Err(ProgramError::SyscallError(error)) if is_missing(&error) => Ok(None),
        Err(source) => Err(Error::OpenProgram { pin: pin.to_owned(), source: Box::new(source) }),
    }
}

fn is_missing(error: &SyscallError) -> bool {
    error.io_error.kind() == io::ErrorKind::NotFound
}

/// The program's number in the kernel.
fn program_id(program: &SchedClassifier, pin: &Path) -> Result<u32, Error> {
    let info = program.info();
    let info = info.map_err(|source| Error::OpenProgram { pin: pin.to_owned(), source: Box::new(source) })?;
    Ok(info.id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_named_for_hook_and_interface() {
        assert_eq!(parse("from_uplink@eth0"), Some((Hook::FromUplink, "eth0".to_owned())));
        assert_eq!(parse("to_uplink+clsact@eth0:100"), Some((Hook::ToUplink, "eth0.100".to_owned())));
        assert_eq!(parse("xdp_uplink@eth0"), Some((Hook::XdpUplink, "eth0".to_owned())));
        assert_eq!(parse("from_uplink@cgroup"), Some((Hook::FromUplink, "cgroup".to_owned())));
        for other in ["clsact@eth0", "host_connect4@cgroup", "from_uplink", "from_uplink+x@eth0"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(is_pin(Path::new("/x/clsact@eth0")) && is_pin(Path::new("from_uplink@cgroup")));
        assert!(!is_pin(Path::new("/x/host_connect4@cgroup")));
    }
}
