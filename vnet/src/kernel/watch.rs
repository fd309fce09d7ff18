//! What happens beside vnet: the kernel's news of interfaces, addresses, routes and queues, and files that go.
//!
//! ```text
//! rtnetlink groups, of the host and of every namespace that an interface of the host leads to --.
//! inotify: the pins, /run/netns, the instance's directory, cgroups that are limited              >-- Change, Change, …
//! BPF links that are detached: no news at all; `hooks` tells whether there were any             --'
//! ```
//!
//! News say where to look and no more: what is there is for the record and the kernel to say. So what is not understood
//! is no loss, and when some are lost, everything is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{NLM_F_REPLACE, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vnet_common::Hook;

use super::attachment::{self, Attached, AttachedAt};
use super::error::Error;
use super::netlink::Netlink;
use super::{cgroup, netns, programs};
use crate::instance::Instance;
use crate::plan::CgroupPath;

/// Room for news that nobody has read yet, in bytes.
const BUFFER: usize = 4 << 20;
/// How many datagrams are taken in one go: a flood of news must not keep the runtime from hearing a signal.
const AT_ONCE: usize = 256;
/// The kernel fills at most 32 KiB at once.
const DATAGRAM: usize = 1 << 15;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The record, among the files of an instance.
const RECORD: &str = "state.redb";
/// In the place of an interface's name, for the programs that are attached to the root cgroup.
const CGROUP: &str = "the root cgroup";
/// What the kernel says beside a message from another namespace (`include/uapi/linux/netlink.h`).
const LISTEN_ALL_NSID: libc::c_int = 8;
/// `RTM_NEWNETCONF` and `RTM_DELNETCONF`, which the crate does not know.
const NETCONF: [u16; 2] = [80, 81];

/// Something that has happened, as far as it says where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface of the host, or something that is set on it: its flags, its MTU, its queue, its filters.
    Interface {
        /// Its name.
        name: String,
    },
    /// An address of the host came or went.
    Address,
    /// A route of the host's main table came or went.
    Route {
        /// Whether it is a default route: no other concerns vnet.
        default: bool,
    },
    /// A parameter of the host's or an interface's, forwarding among them, was set.
    Parameter,
    /// Something in another namespace.
    Elsewhere,
    /// A program's attachment is pinned no more.
    Attachment {
        /// The interface that it is named for.
        interface: String,
    },
    /// A pinned map or program, or all of them, went.
    Pins,
    /// A name of a namespace went.
    Namespace {
        /// The name.
        name: String,
    },
    /// The record of the instance went.
    Record,
    /// A cgroup that is limited came or went, or what it is in.
    Cgroup,
    /// More happened than could be kept.
    Lost,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { name } => write!(f, "interface {name}"),
            Self::Address => f.write_str("an address of the host"),
            Self::Route { default: true } => f.write_str("a default route of the host"),
            Self::Route { default: false } => f.write_str("a route of the host"),
            Self::Parameter => f.write_str("a parameter of the host or of an interface"),
            Self::Elsewhere => f.write_str("something in another namespace"),
            Self::Attachment { interface } => write!(f, "a program's attachment to {interface}"),
            Self::Pins => f.write_str("pinned maps or programs"),
            Self::Namespace { name } => write!(f, "the name of namespace {name}"),
            Self::Record => f.write_str("the record"),
            Self::Cgroup => f.write_str("a limited cgroup"),
            Self::Lost => f.write_str("more than could be kept"),
        }
    }
}

impl Change {
    /// What it is about, in a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Interface { .. } => "interface",
            Self::Address => "address",
            Self::Route { .. } => "route",
            Self::Parameter => "parameter",
            Self::Elsewhere => "elsewhere",
            Self::Attachment { .. } => "attachment",
            Self::Pins => "pins",
            Self::Namespace { .. } => "namespace",
            Self::Record => "record",
            Self::Cgroup => "cgroup",
            Self::Lost => "lost",
        }
    }

    /// Every kind.
    pub const KINDS: [&'static str; 11] = [
        "interface",
        "address",
        "route",
        "parameter",
        "elsewhere",
        "attachment",
        "pins",
        "namespace",
        "record",
        "cgroup",
        "lost",
    ];
}

/// Descriptors that are never closed while they are waited for.
struct Waited<T>(T);

impl<T: AsRawFd> AsRawFd for Waited<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A watcher of what happens around an instance.
pub struct Watch {
    instance: Instance,
    news: AsyncFd<Waited<Socket>>,
    files: AsyncFd<Waited<InotifyFd>>,
    /// Names of interfaces by number.
    names: Netlink,
    watched: Vec<(WatchDescriptor, Watched)>,
    /// Where cgroups come and go, with the names there that lead to limited ones.
    cgroups: HashMap<WatchDescriptor, HashSet<OsString>>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// What the files of a directory mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Pins,
    Links,
    Namespaces,
    Record,
}

struct InotifyFd(Inotify);

impl AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> RawFd {
        use std::os::fd::AsFd as _;
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Begins to listen. Needs a tokio runtime with I/O.
    pub(super) fn open(instance: &Instance) -> Result<Self, Error> {
        let failed = |source| Error::Watch { source };
        let news = subscribe().map_err(failed)?;
        let files = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let files = files.map_err(|errno| failed(errno.into()))?;
        let mut watch = Self {
            instance: instance.clone(),
            news: wait_for(Waited(news)).map_err(failed)?,
            files: wait_for(Waited(InotifyFd(files))).map_err(failed)?,
            names: Netlink::open_as_needed().map_err(failed)?,
            watched: Vec::new(),
            cgroups: HashMap::new(),
            buffer: Vec::with_capacity(DATAGRAM),
        };
        watch.renew()?;
        Ok(watch)
    }

    /// Watches directories that have been made anew, or were not there before; says whether there are such. What has
    /// happened in those until now has not been heard.
    ///
    /// # Errors
    /// When the kernel watches no more files.
    pub fn renew(&mut self) -> Result<bool, Error> {
        let flags = AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let pins = self.instance.pin_dir();
        let directories: [(PathBuf, Watched); 5] = [
            (pins.join("programs"), Watched::Pins),
            (pins.join("links"), Watched::Links),
            (pins, Watched::Pins),
            (Path::new(netns::DIRECTORY).to_owned(), Watched::Namespaces),
            (self.instance.run_dir(), Watched::Record),
        ];
        let before = std::mem::take(&mut self.watched);
        for (directory, what) in directories {
            match self.files.get_ref().0.0.add_watch(&directory, flags) {
                // The same directory has the same number again.
                Ok(descriptor) => self.watched.push((descriptor, what)),
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(Error::WatchDirectory { path: directory, source: errno.into() }),
            }
        }
        Ok(self.watched.iter().any(|watched| !before.contains(watched)))
    }

    /// Watches where these cgroups come and go, and no others any more; says whether that is anywhere else than before.
    /// What has happened there until now has not been heard. What cannot be watched is not: looking from time to time
    /// finds it.
    pub fn follow_cgroups(&mut self, paths: &[CgroupPath]) -> bool {
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        let mut wanted: HashMap<PathBuf, HashSet<OsString>> = HashMap::new();
        if let Some(root) = (!paths.is_empty()).then(cgroup::root).and_then(Result::ok) {
            for path in paths {
                if let Some((directory, name)) = nearest_above(&root, path) {
                    wanted.entry(directory).or_default().insert(name);
                }
            }
        }
        let mut cgroups = HashMap::new();
        for (directory, names) in wanted {
            if let Ok(descriptor) = self.files.get_ref().0.0.add_watch(&directory, flags) {
                cgroups.insert(descriptor, names);
            }
        }
        let before = std::mem::replace(&mut self.cgroups, cgroups);
        for descriptor in before.keys().filter(|it| !self.cgroups.contains_key(*it)) {
            // The kernel has done it if the directory is gone.
            let _ = self.files.get_ref().0.0.rm_watch(*descriptor);
        }
        self.cgroups.iter().any(|(descriptor, names)| before.get(descriptor) != Some(names))
    }

    /// What has happened since the last time; waits until something has. Nothing is lost if this is dropped.
    ///
    /// # Errors
    /// When the kernel tells nothing any more.
    pub async fn next(&mut self) -> Result<Vec<Change>, Error> {
        let failed = |source| Error::Watch { source };
        loop {
            tokio::select! {
                ready = self.news.readable() => {
                    let mut ready = ready.map_err(failed)?;
                    let (changes, all) = take_news(ready.get_inner(), &self.names, &mut self.buffer).map_err(failed)?;
                    if all {
                        ready.clear_ready();
                    }
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                }
                ready = self.files.readable() => {
                    let mut ready = ready.map_err(failed)?;
                    let events = match ready.get_inner().0.0.read_events() {
                        Ok(events) => events,
                        Err(Errno::EAGAIN) => {
                            ready.clear_ready();
                            continue;
                        }
                        Err(errno) => return Err(failed(errno.into())),
                    };
                    let changes: Vec<Change> =
                        events.iter().filter_map(|event| of_file(&self.watched, &self.cgroups, event)).collect();
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                }
            }
        }
    }
}

/// What is attached to the interfaces that attachments are pinned for, to be compared with what was: a program that is
/// detached is the one thing of which there are no news.
pub(super) fn hooks(instance: &Instance) -> Result<Hooks, Error> {
    let mut attached = attachment::attached(instance)?;
    for (interface, is_detached) in attachment::xdp_links(instance)? {
        attached.insert((Hook::XdpUplink.name(), interface), (!is_detached).then_some((0, Vec::new())));
    }
    for program in programs::detached_from_cgroup(instance) {
        attached.insert((program, CGROUP.to_owned()), None);
    }
    Ok(Hooks(attached))
}

/// What was attached at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks(BTreeMap<AttachedAt, Option<Attached>>);

impl Hooks {
    /// The interfaces where something else is attached than in `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> BTreeSet<String> {
        let names = self.0.keys().chain(other.0.keys());
        names.filter(|key| self.0.get(*key) != other.0.get(*key)).map(|(_, name)| name.clone()).collect()
    }
}

fn wait_for<T: AsRawFd>(file: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both kinds of descriptor that are waited for here stay open and the same until they are dropped; they are
    // moved into the `AsyncFd` and never taken out.
    let registered = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
    registered.map_err(Into::into)
}

/// A socket that is told of everything that could concern an instance.
fn subscribe() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    // What is sent where nobody reads is lost, and that is told. Best effort: without it there is less room.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
    // Of what happens inside endpoints as well, where that is allowed (CAP_NET_BROADCAST); the check from time to time
    // finds it otherwise.
    let _ = socket.set_listen_all_namespaces(true);
    let groups = [
        libc::RTNLGRP_LINK,
        libc::RTNLGRP_TC,
        libc::RTNLGRP_IPV4_IFADDR,
        libc::RTNLGRP_IPV6_IFADDR,
        libc::RTNLGRP_IPV4_ROUTE,
        libc::RTNLGRP_IPV6_ROUTE,
        libc::RTNLGRP_IPV4_RULE,
        libc::RTNLGRP_IPV6_RULE,
        libc::RTNLGRP_IPV4_NETCONF,
        libc::RTNLGRP_IPV6_NETCONF,
    ];
    for group in groups {
        socket.add_membership(group)?;
    }
    Ok(socket)
}

/// Reads what is there, or as much as is taken at once; says whether that was all.
fn take_news(
    socket: &Waited<Socket>,
    names: &Netlink,
    buffer: &mut Vec<u8>,
) -> io::Result<(Vec<Change>, bool)> {
    let mut changes = Vec::new();
    let mut add = |change: Change| {
        // Of an interface that comes up there are many.
        if !changes.contains(&change) {
            changes.push(change);
        }
    };
    for _ in 0..AT_ONCE {
        match receive(socket.as_raw_fd(), buffer) {
            Ok(Whose::Host) => each_message(buffer, |message| {
                if let Some(change) = of_message(message, names) {
                    add(change);
                }
            }),
            Ok(Whose::Other) => each_message(buffer, |message| {
                if concerns_endpoints(message) {
                    add(Change::Elsewhere);
                }
            }),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok((changes, true)),
                Some(libc::ENOBUFS) => add(Change::Lost),
                Some(libc::EINTR) => {}
                _ => return Err(error),
            },
        }
    }
    Ok((changes, false))
}

/// In whose namespace something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Host,
    Other,
}

/// Receives a datagram; beside it the kernel says from which namespace it is, if that is another (`netlink(7)`).
fn receive(socket: RawFd, buffer: &mut Vec<u8>) -> io::Result<Whose> {
    // Long enough for the one number, aligned as the header wants it.
    let mut control = [0_u64; 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.capacity() };
    // SAFETY: a `struct msghdr` consists of numbers and of pointers that may be null, so all zeros are one.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    buffer.clear();
    // SAFETY: the header points to memory of the caller's alone, with its lengths, which outlives the call.
    let length = unsafe { libc::recvmsg(socket, &raw mut header, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written so many bytes, and never more than there was room for.
    unsafe { buffer.set_len(length.min(buffer.capacity())) };
    let mut whose = Whose::Host;
    // SAFETY: the header is as the kernel has left it, and its control messages are where it says.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: it is not null, so it is a control message of this header.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        if (level, kind) == (libc::SOL_NETLINK, LISTEN_ALL_NSID) {
            whose = Whose::Other;
        }
        // SAFETY: both are of this header.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(whose)
}

/// A message, as far as it is understood.
enum Message {
    /// With what the kernel says of it (`NLM_F_…`).
    Known(Box<RouteNetlinkMessage>, u16),
    Netconf,
    Unknown,
}

fn each_message(datagram: &[u8], mut take: impl FnMut(Message)) {
    let mut rest = datagram;
    while rest.len() >= HEADER {
        let Ok(message) = NetlinkBuffer::new_checked(&rest) else { return };
        let length = (message.length() as usize).next_multiple_of(4).clamp(HEADER, rest.len());
        let mut header = NetlinkHeader::default();
        header.message_type = message.message_type();
        take(match RouteNetlinkMessage::deserialize(&header, message.payload()) {
            _ if NETCONF.contains(&header.message_type) => Message::Netconf,
            Ok(known) => Message::Known(Box::new(known), message.flags()),
            Err(_) => Message::Unknown,
        });
        rest = &rest[length..];
    }
}

/// Where to look on the host because of a message.
fn of_message(message: Message, names: &Netlink) -> Option<Change> {
    let message = match message {
        Message::Known(message, _) => message,
        // Which one, and of which interface, is not worth finding out.
        Message::Netconf => return Some(Change::Parameter),
        Message::Unknown => return Some(Change::Lost),
    };
    let interface = |index: i32| {
        let name = names.name_of(u32::try_from(index).ok()?).ok()??;
        Some(Change::Interface { name })
    };
    match *message {
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => of_link(message),
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Some(Change::Address),
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            let table = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Table(number) => Some(*number),
                _ => None,
            });
            let main = table.unwrap_or(message.header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN);
            main.then_some(Change::Route { default: message.header.destination_prefix_length == 0 })
        }
        RouteNetlinkMessage::NewQueueDiscipline(message)
        | RouteNetlinkMessage::DelQueueDiscipline(message)
        | RouteNetlinkMessage::NewTrafficClass(message)
        | RouteNetlinkMessage::DelTrafficClass(message)
        | RouteNetlinkMessage::NewTrafficFilter(message)
        | RouteNetlinkMessage::DelTrafficFilter(message) => interface(message.header.index),
        _ => None,
    }
}

/// Of bridges there are messages of another family about each of their ports: nothing of them is vnet's.
fn of_link(message: LinkMessage) -> Option<Change> {
    let own = message.header.interface_family == AddressFamily::Unspec;
    let name = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    name.filter(|_| own).map(|name| Change::Interface { name })
}

/// Whether a message from another namespace may be about what vnet has set there.
fn concerns_endpoints(message: Message) -> bool {
    match message {
        Message::Known(message, flags) => match *message {
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message) => {
                of_link(message).is_some()
            }
            RouteNetlinkMessage::DelAddress(_)
            | RouteNetlinkMessage::NewQueueDiscipline(_)
            | RouteNetlinkMessage::DelQueueDiscipline(_) => true,
            RouteNetlinkMessage::DelRoute(message) => is_set_by_somebody(&message),
            RouteNetlinkMessage::NewRoute(message) => {
                flags & NLM_F_REPLACE != 0 && is_set_by_somebody(&message)
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => true,
            _ => false,
        },
        Message::Netconf | Message::Unknown => false,
    }
}

/// Whether a route is none that the kernel makes with each address.
fn is_set_by_somebody(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unicast && route.header.protocol != RouteProtocol::Kernel
}

/// Of a cgroup, the nearest directory above that is there, and what leads to the cgroup in it; nothing of the root.
fn nearest_above(root: &Path, path: &CgroupPath) -> Option<(PathBuf, OsString)> {
    let mut place = cgroup::place(root, path);
    while place != root {
        let name = place.file_name()?.to_owned();
        place.pop();
        if place.is_dir() {
            return Some((place, name));
        }
    }
    None
}

/// Where to look because a file went, or a cgroup came or went.
fn of_file(
    watched: &[(WatchDescriptor, Watched)],
    cgroups: &HashMap<WatchDescriptor, HashSet<OsString>>,
    event: &InotifyEvent,
) -> Option<Change> {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return Some(Change::Lost);
    }
    if let Some(names) = cgroups.get(&event.wd) {
        let concerns = event.name.as_ref().is_some_and(|name| names.contains(name));
        return concerns.then_some(Change::Cgroup);
    }
    let (_, what) = watched.iter().find(|(descriptor, _)| *descriptor == event.wd)?;
    let itself = event.mask.intersects(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF);
    let name = event.name.as_deref().and_then(OsStr::to_str);
    match (what, name) {
        (Watched::Record, None) if itself => Some(Change::Record),
        (Watched::Record, Some(name)) => (name == RECORD).then_some(Change::Record),
        (Watched::Pins | Watched::Links, None) if itself => Some(Change::Pins),
        (Watched::Pins, Some(_)) => Some(Change::Pins),
        (Watched::Links, Some(name)) => Some(match attachment::interface_of_pin(name) {
            Some(interface) => Change::Attachment { interface },
            None => Change::Pins,
        }),
        (Watched::Namespaces, Some(name)) => Some(Change::Namespace { name: name.to_owned() }),
        _ => None,
    }
}
