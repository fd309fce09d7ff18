//! Maps and programs: loaded, pinned, the host-local ones attached to the root cgroup.
//!
//! ```text
//! vnet/NAME+new   where a set is put together; it appears as a whole, by being renamed
//! vnet/NAME       the set in use
//! vnet/NAME+old   the set before, for as long as it takes to remove it
//! ```
//!
//! A set that is being put together holds its build's mark (a directory) last of all, so whatever a killed
//! process leaves is recognised: a set without a mark is thrown away, one with a mark is put into its place.
//!
//! Another build of vnet with the same ABI takes over the maps, so that flows and published ports live on, and
//! exchanges the programs of attachments in place, so that no packet meets an interface without a program. One with
//! another ABI makes maps of its own and carries the entries over ([`super::takeover`]).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapError;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use nix::libc;
use vnet_common::{ABI_VERSION, DatapathConfig, Hook, features, maps};

use super::attachment::{self, Attachment};
use super::capabilities::check_loading;
use super::error::Error;
use super::maps::{self as tables, Table};
use super::netlink::Netlink;
use super::pins::{self, InterfaceLinks};
use super::takeover::{self, Takeover};
use super::xdp::XdpAttachment;
use super::{cgroup, features as kernel_features, object};
use crate::instance::Instance;
use crate::plan::{State, TableSizes};

/// Where the host-local programs are attached, as links are named for it.
const CGROUP: &str = "cgroup";
/// The programs that are attached to the root cgroup.
const HOST_PROGRAMS: [&str; 10] = [
    "host_bind4",
    "host_bind6",
    "host_connect4",
    "host_connect6",
    "host_sendmsg4",
    "host_sendmsg6",
    "host_recvmsg4",
    "host_recvmsg6",
    "host_getpeername4",
    "host_getpeername6",
];

/// A directory with a set of pins, laid out as an instance's.
pub(super) struct Place<'a> {
    instance: &'a Instance,
    root: PathBuf,
}

impl<'a> Place<'a> {
    fn live(instance: &'a Instance) -> Self {
        Self { instance, root: instance.pin_dir() }
    }

    fn new(instance: &'a Instance) -> Self {
        Self { instance, root: beside(instance, "+new") }
    }

    fn old(instance: &'a Instance) -> Self {
        Self { instance, root: beside(instance, "+old") }
    }

    fn exists(&self) -> bool {
        self.root.exists()
    }

    /// A path of the instance's own set, in this one.
    pub(super) fn path(&self, live: &Path) -> PathBuf {
        live.strip_prefix(self.instance.pin_dir())
            .map_or_else(|_| self.root.clone(), |path| self.root.join(path))
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.path(&self.instance.map_pin(name))
    }

    /// Its directory.
    pub(super) fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn program(&self, name: &str) -> PathBuf {
        self.path(&self.instance.program_pin(name))
    }

    fn cgroup_link(&self, program: &str) -> PathBuf {
        self.path(&self.instance.link_pin(program, CGROUP))
    }

    fn make(&self) -> Result<(), Error> {
        for directory in [self.program(""), self.path(&links_of(self.instance))] {
            pins::make_directory(&directory)
                .map_err(|source| Error::Pin { pin: directory.clone(), source })?;
        }
        Ok(())
    }

    /// Of which build its programs are, if it is complete.
    fn mark(&self) -> Option<String> {
        let entries = fs::read_dir(&self.root).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.into_iter().find(|name| name.starts_with("build-"))
    }

    /// What is missing of what every complete set has.
    fn gap(&self) -> Option<String> {
        let program =
            |name: &str| (!self.program(name).exists()).then(|| format!("program {name} is not pinned"));
        let link = |name: &&str| {
            (!self.cgroup_link(name).exists())
                .then(|| format!("program {name} is not attached to the root cgroup"))
        };
        let names = Hook::ALL.iter().map(|hook| hook.name()).chain(HOST_PROGRAMS);
        self.missing_map()
            .or_else(|| names.into_iter().find_map(program))
            .or_else(|| HOST_PROGRAMS.iter().find_map(link))
    }

    /// A map that every complete set has, and this one has not.
    fn missing_map(&self) -> Option<String> {
        let missing = maps::ALL.iter().find(|name| !self.map(name).exists());
        missing.map(|name| format!("map {name} is not pinned"))
    }

    /// The programs whose links to the root cgroup are pinned, but link them no more.
    fn detached(&self) -> impl Iterator<Item = &'static str> {
        // Not knowing is no reason to do anything about it.
        HOST_PROGRAMS.into_iter().filter(|name| pins::is_detached(&self.cgroup_link(name)).unwrap_or(false))
    }

    /// That there is one.
    fn any_detached(&self) -> Option<String> {
        self.detached().next().map(|name| format!("program {name} was detached from the root cgroup"))
    }
}

/// The directory of an instance's links.
pub(super) fn links_of(instance: &Instance) -> PathBuf {
    instance.link_pin("", "").with_file_name("")
}

fn beside(instance: &Instance, suffix: &str) -> PathBuf {
    // No instance has such a name: '+' cannot be in one.
    instance.pin_dir().with_file_name(format!("{}{suffix}", instance.name()))
}

/// How the maps and programs stand.
pub(super) fn state(instance: &Instance) -> State {
    let live = Place::live(instance);
    if !live.exists() {
        let interrupted = Place::new(instance).exists() || Place::old(instance).exists();
        return if interrupted {
            State::Differs("loading was interrupted".to_owned())
        } else {
            State::Absent
        };
    }
    if let Some(gap) = live.gap() {
        return State::Differs(gap);
    }
    match takeover::abi_version(&live) {
        Some(ABI_VERSION) => {}
        Some(other) => return State::Differs(format!("maps of ABI version {other}, not {ABI_VERSION}")),
        None => return State::Differs("maps of an unknown ABI version".to_owned()),
    }
    match (live.mark(), object::build()) {
        (Some(mark), Some(build)) if mark != build => State::Differs("programs of another build".to_owned()),
        (None, Some(_)) => State::Differs("loading was interrupted".to_owned()),
        _ => live.any_detached().map_or(State::Present, State::Differs),
    }
}

/// The programs that are to be attached to the root cgroup, and were detached from it.
pub(super) fn detached_from_cgroup(instance: &Instance) -> Vec<&'static str> {
    Place::live(instance).detached().collect()
}

/// Refuses maps of another version of vnet that are in use: what this one would write there, the programs that use them
/// would not understand.
pub(super) fn check_version(instance: &Instance) -> Result<(), Error> {
    let live = Place::live(instance);
    if is_of_other_version(&live)? {
        return Err(Error::ForeignVersion { pins: live.root, wanted: ABI_VERSION });
    }
    Ok(())
}

/// Refuses maps of another version of vnet that are in use and whose entries cannot be carried over: to make them anew
/// would end every flow.
pub(super) fn check_takeover(instance: &Instance) -> Result<(), Error> {
    let live = Place::live(instance);
    if is_of_other_version(&live)? { takeover::check(&live) } else { Ok(()) }
}

/// Whether a complete set of another build is in use.
pub(super) fn has_other_build(instance: &Instance) -> bool {
    let mark = Place::live(instance).mark();
    mark.zip(object::build()).is_some_and(|(mark, build)| mark != build)
}

/// Whether its maps are of another version, and interfaces use them.
fn is_of_other_version(live: &Place<'_>) -> Result<bool, Error> {
    if takeover::abi_version(live) == Some(ABI_VERSION) || !live.map(maps::CONFIG).exists() {
        return Ok(false);
    }
    Ok(!attachment::pinned_in(&links_of(live.instance))?.is_empty())
}

/// Loads what is missing. Maps that are there keep their sizes.
pub(super) async fn create(instance: &Instance, sizes: TableSizes, netlink: &Netlink) -> Result<(), Error> {
    let object = object::bytes()?;
    pins::mount_bpffs(instance.bpffs())?;
    let cgroup = cgroup::root()?;
    let (live, new, old) = (Place::live(instance), Place::new(instance), Place::old(instance));
    if !live.exists() && new.mark().is_some() {
        rename(&new, &live)?;
    }
    undo_unfinished(&new, netlink).await?;
    pins::remove_tree(&old.root, InterfaceLinks::Leave)?;
    if state(instance) == State::Present {
        return Ok(());
    }
    let former = former(&live, netlink).await?;
    let filled = match load(object, former.kept(), sizes) {
        Ok(ebpf) => fill(&new, &former, ebpf, &cgroup, netlink).await,
        Err(error) => Err(error),
    };
    if let Err(error) = filled {
        // Best effort: the error to report is the first one.
        let _ = pins::remove_tree(&new.root, InterfaceLinks::Leave);
        return Err(error);
    }
    if !matches!(former, Former::Nothing) {
        rename(&live, &old)?;
    }
    rename(&new, &live)?;
    pins::remove_tree(&old.root, InterfaceLinks::Leave)
}

/// Removes what a killed process has put together of a set, and what of that took the place of the set in use.
async fn undo_unfinished(new: &Place<'_>, netlink: &Netlink) -> Result<(), Error> {
    if new.exists() {
        // Best effort: what is not attached as it should be is found to be so, and attached again.
        let _ = exchange_back(new, netlink).await;
    }
    pins::remove_tree(&new.root, InterfaceLinks::Leave)
}

/// Removes all of it: links, programs, maps.
pub(super) async fn remove(instance: &Instance, netlink: &Netlink) -> Result<(), Error> {
    if !pins::is_bpffs(instance.bpffs()) {
        return Ok(());
    }
    let (live, new) = (Place::live(instance), Place::new(instance));
    if live.exists() {
        undo_unfinished(&new, netlink).await?;
    } else if new.mark().is_some() {
        rename(&new, &live)?;
    }
    remove_live(instance, netlink).await?;
    for place in [Place::new(instance), Place::old(instance)] {
        pins::remove_tree(&place.root, InterfaceLinks::Detach)?;
    }
    // The directory of all instances goes with the last one.
    if let Some(all) = instance.pin_dir().parent() {
        let _ = fs::remove_dir(all);
    }
    Ok(())
}

/// Removes the set in use, with what is attached to interfaces: a filter does not end with its pin.
async fn remove_live(instance: &Instance, netlink: &Netlink) -> Result<(), Error> {
    for (hook, interface) in attachment::pinned_in(&links_of(instance))? {
        Attachment { instance, hook, interface: &interface }.remove(netlink).await?;
    }
    pins::remove_tree(&instance.pin_dir(), InterfaceLinks::Detach)
}

/// The set in use, for the one that comes after it.
enum Former<'a> {
    /// There is none, or it was of no use.
    Nothing,
    /// Its maps are kept.
    Kept(Place<'a>),
    /// The entries of its maps are carried over into others.
    CarriedOver(Place<'a>),
}

impl<'a> Former<'a> {
    fn kept(&self) -> Option<&Place<'a>> {
        if let Self::Kept(place) = self { Some(place) } else { None }
    }
}

/// What becomes of the set in use, whatever of it is missing; removes what there is of it if it is of no use.
async fn former<'a>(live: &Place<'a>, netlink: &Netlink) -> Result<Former<'a>, Error> {
    let place = Place::live(live.instance);
    if is_of_other_version(live)? {
        takeover::check(live)?;
        return Ok(Former::CarriedOver(place));
    }
    if live.missing_map().is_none() && takeover::abi_version(live) == Some(ABI_VERSION) {
        return Ok(Former::Kept(place));
    }
    remove_live(live.instance, netlink).await?;
    Ok(Former::Nothing)
}

/// Puts a set together: with the maps of the former one, or with their entries.
async fn fill(
    new: &Place<'_>,
    former: &Former<'_>,
    mut ebpf: Ebpf,
    cgroup: &Path,
    netlink: &Netlink,
) -> Result<(), Error> {
    new.make()?;
    for (name, map) in ebpf.maps() {
        // Names with a dot are sections of constants, which live as long as the programs; and bpffs has no dots.
        if !name.contains('.') {
            pin(new.map(name), |pin| map.pin(pin))?;
        }
    }
    let cgroup_dir =
        File::open(cgroup).map_err(|source| Error::ReadFile { path: cgroup.to_owned(), source })?;
    verify_all(&mut ebpf)?;
    match former {
        Former::Nothing => {
            let config = Table::<u32, DatapathConfig>::pinned_at(new.map(maps::CONFIG), maps::CONFIG);
            config.insert(0, DatapathConfig::DEFAULT)?;
            attach_to_cgroups(new, &mut ebpf, &cgroup_dir)?;
            mark(new)
        }
        Former::Kept(_) => {
            attach_to_cgroups(new, &mut ebpf, &cgroup_dir)?;
            exchange_attached(new, &mut ebpf, netlink).await?;
            mark(new)
        }
        Former::CarriedOver(old) => {
            let mut takeover = Takeover::between(old, new)?;
            takeover.follow()?;
            let done = carry_over(&mut takeover, new, &mut ebpf, &cgroup_dir, netlink).await;
            if done.is_err() {
                // Best effort: the error to report is the first one. What a killed process leaves is no worse.
                let _ = exchange_back(new, netlink).await;
                let _ = takeover.give_up();
            }
            done
        }
    }
}

/// Has the programs of a new set, with maps of its own, go on where those of the old one stop.
async fn carry_over(
    takeover: &mut Takeover,
    new: &Place<'_>,
    ebpf: &mut Ebpf,
    cgroup: &File,
    netlink: &Netlink,
) -> Result<(), Error> {
    takeover.freeze()?;
    takeover.follow()?;
    attach_to_cgroups(new, ebpf, cgroup)?;
    exchange_attached(new, ebpf, netlink).await?;
    takeover.complete()?;
    mark(new)?;
    takeover.thaw()
}

/// Marks a set as complete.
fn mark(new: &Place<'_>) -> Result<(), Error> {
    let mark = new.root.join(object::build().unwrap_or_default());
    fs::create_dir(&mark).map_err(|source| Error::Pin { pin: mark, source })
}

/// Pins the programs of a set, those for the root cgroup attached.
fn attach_to_cgroups(new: &Place<'_>, ebpf: &mut Ebpf, cgroup: &File) -> Result<(), Error> {
    ebpf.programs_mut().try_for_each(|(name, program)| pin_and_attach(name, program, new, cgroup))
}

/// Gives what is attached to interfaces the programs of the set in use again, where an unfinished one has taken its place.
/// Every link is given them: one that was given the other's may not have been pinned in the unfinished set any more.
async fn exchange_back(new: &Place<'_>, netlink: &Netlink) -> Result<(), Error> {
    let instance = new.instance;
    for (hook, interface) in attachment::pinned_in(&links_of(instance))? {
        if hook == Hook::XdpUplink {
            let link = XdpAttachment { instance, interface: &interface, generic: false };
            link.exchange_back(&mut xdp(instance, hook)?)?;
        } else {
            let attachment = Attachment { instance, hook, interface: &interface };
            attachment.exchange_back(new, &mut classifier(instance, hook)?, netlink).await?;
        }
    }
    Ok(())
}

/// Gives what is attached to interfaces the programs of a new set.
async fn exchange_attached(new: &Place<'_>, ebpf: &mut Ebpf, netlink: &Netlink) -> Result<(), Error> {
    for (hook, interface) in attachment::pinned_in(&links_of(new.instance))? {
        let instance = new.instance;
        match ebpf.program_mut(hook.name()) {
            Some(Program::SchedClassifier(program)) => {
                let attachment = Attachment { instance, hook, interface: &interface };
                attachment.exchange(new, program, netlink).await?;
            }
            // In place, so its mode stays what it is.
            Some(Program::Xdp(program)) => {
                XdpAttachment { instance, interface: &interface, generic: false }.exchange(new, program)?;
            }
            _ => return Err(Error::NotLoaded { pin: new.program(hook.name()) }),
        }
    }
    Ok(())
}

/// Parses the object and creates its maps, or opens those of another set.
fn load(object: &[u8], kept: Option<&Place<'_>>, sizes: TableSizes) -> Result<Ebpf, Error> {
    let bits = kernel_features::of_running_kernel();
    let flow_slots = match kept {
        Some(kept) => tables::room(&kept.map(maps::FLOW_SLOTS), maps::FLOW_SLOTS)?,
        None => None,
    };
    let flow_slots = flow_slots.unwrap_or(sizes.flows);
    check_loading()?;
    let mut loader = EbpfLoader::new();
    loader.override_global(features::SYMBOL, &bits, false);
    loader.override_global(maps::FLOW_SLOTS_SYMBOL, &flow_slots, false);
    for (name, entries) in sizes.entries() {
        loader.map_max_entries(name, entries);
    }
    loader.map_max_entries(maps::LOGS, maps::LOG_BYTES);
    if let Some(kept) = kept {
        for name in maps::ALL {
            loader.map_pin_path(name, kept.map(name));
        }
    }
    loader.load(object).map_err(|source| match source {
        EbpfError::MapError(MapError::CreateError { name: map, io_error: source })
            if [Some(libc::ENOMEM), Some(libc::E2BIG)].contains(&source.raw_os_error()) =>
        {
            Error::NoMemory { map, sizes, source }
        }
        source => Error::LoadObject { source: Box::new(source) },
    })
}

/// Has the kernel check and translate all programs, each in a thread: it takes some tenths of a second in all,
/// and one processor for each.
fn verify_all(ebpf: &mut Ebpf) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let verify = |(name, program): (&str, _)| {
            let name = name.to_owned();
            let failed = |error| load_error(name, error);
            scope.spawn(move || verify(program).map_err(failed))
        };
        let threads: Vec<_> = ebpf.programs_mut().map(verify).collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect()
    })
}

fn verify(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Pins a program, attaches it to the root cgroup if that is its kind, and pins that.
fn pin_and_attach(name: &str, program: &mut Program, new: &Place<'_>, cgroup: &File) -> Result<(), Error> {
    pin(new.program(name), |pin| program.pin(pin))?;
    let link = attach_to_cgroup(program, cgroup)
        .map_err(|source| Error::AttachToCgroup { program: name.to_owned(), source: Box::new(source) })?;
    match link {
        Some(link) => pin(new.cgroup_link(name), |pin| link.pin(pin).map(drop)),
        None => Ok(()),
    }
}

/// Attaches a program to the root cgroup, beside others; does nothing with one that is for interfaces.
fn attach_to_cgroup(program: &mut Program, cgroup: &File) -> Result<Option<FdLink>, ProgramError> {
    // Links always allow others beside them: the mode is for the older way of attaching, and the kernel refuses
    // a link with the flag that stands for several.
    let beside_others = CgroupAttachMode::Single;
    let link = match program {
        Program::CgroupSockAddr(program) => {
            let link = program.attach(cgroup, beside_others)?;
            FdLink::try_from(program.take_link(link)?)
        }
        Program::CgroupSock(program) => {
            let link = program.attach(cgroup, beside_others)?;
            FdLink::try_from(program.take_link(link)?)
        }
        _ => return Ok(None),
    };
    // Since Linux 5.7 there is no other kind of link.
    link.map(Some).map_err(|_| ProgramError::NotAttached)
}

/// Pins something at a path.
pub(super) fn pin(
    path: PathBuf,
    pin: impl FnOnce(&Path) -> Result<(), aya::pin::PinError>,
) -> Result<(), Error> {
    pin(&path).map_err(|error| {
        let source = match error {
            aya::pin::PinError::SyscallError(error) => error.io_error,
            other => io::Error::other(other),
        };
        Error::Pin { pin: path, source }
    })
}

/// A hook's program, as it is pinned.
pub(super) fn classifier(instance: &Instance, hook: Hook) -> Result<SchedClassifier, Error> {
    let pin = instance.program_pin(hook.name());
    if !pin.exists() {
        return Err(Error::NotLoaded { pin });
    }
    SchedClassifier::from_pin(&pin).map_err(|source| Error::OpenProgram { pin, source: Box::new(source) })
}

/// A hook's XDP program, as it is pinned.
pub(super) fn xdp(instance: &Instance, hook: Hook) -> Result<Xdp, Error> {
    let pin = instance.program_pin(hook.name());
    if !pin.exists() {
        return Err(Error::NotLoaded { pin });
    }
    Xdp::from_pin(&pin, XdpAttachType::Interface)
        .map_err(|source| Error::OpenProgram { pin, source: Box::new(source) })
}

fn rename(from: &Place<'_>, to: &Place<'_>) -> Result<(), Error> {
    fs::rename(&from.root, &to.root).map_err(|source| Error::Pin { pin: to.root.clone(), source })
}
/// What went wrong with loading a program.
fn load_error(program: String, error: ProgramError) -> Error {
    /// Lines of the verifier's log that say what it stumbled over.
    const LAST_WORDS: usize = 12;
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let last_words = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
            Error::Refused { program, last_words, source: io_error }
        }
        error => Error::LoadProgram { program, source: Box::new(error) },
    }
}
