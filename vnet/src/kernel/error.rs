//! What can go wrong between vnet and the kernel.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use ipnet::IpNet;

pub use super::netlink::NetlinkError;
pub use super::takeover::Obstacle;
use crate::plan::{CgroupPath, TableSizes};

/// A failed dealing with the kernel: what was attempted, on what, and why it failed; where there is a way out,
/// the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not do what vnet does.
    #[error("run vnet as root, or grant it what is missing: {missing}")]
    Capabilities {
        /// The capabilities, each with what it is for.
        missing: String,
    },
    /// The kernel does not say which it is.
    #[error("ask which kernel is running")]
    KernelRelease {
        /// Why.
        source: io::Error,
    },
    /// The kernel is older than vnet's means.
    #[error(
        "the running kernel, {release}, has not {feature}, which vnet needs: that came with Linux {since}"
    )]
    KernelTooOld {
        /// The running kernel.
        release: String,
        /// What it lacks.
        feature: &'static str,
        /// Which version brought it.
        since: String,
    },
    /// A file of the kernel's or of the instance's cannot be read.
    #[error("read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the instance's cannot be written.
    #[error("write {}", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("start a thread to enter a namespace with")]
    Thread {
        /// Why.
        source: io::Error,
    },

    /// No netlink socket could be opened.
    #[error("open a netlink socket")]
    NetlinkSocket {
        /// Why.
        source: io::Error,
    },
    /// The interfaces cannot be listed.
    #[error("list the interfaces and their addresses")]
    ReadInterfaces {
        /// Why.
        source: NetlinkError,
    },
    /// The routes cannot be listed.
    #[error("list the routes")]
    ReadRoutes {
        /// Why.
        source: NetlinkError,
    },
    /// The sockets cannot be listed.
    #[error("list the {proto} sockets (CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG)")]
    ReadSockets {
        /// Their protocol.
        proto: vnet_common::Proto,
        /// Why.
        source: io::Error,
    },
    /// The rules of the host's firewall cannot be listed.
    #[error("list the rules of the host's firewall")]
    ReadFirewall {
        /// Why.
        source: io::Error,
    },
    /// An interface cannot be looked at.
    #[error("look at interface {interface}")]
    ReadInterface {
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },
    /// An interface's number cannot be found out.
    #[error("look up the index of interface {interface}")]
    InterfaceIndex {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {interface}; if it is the instance's own, `vnet up` brings it back")]
    NoInterface {
        /// The interface.
        interface: String,
    },
    /// An interface cannot be made.
    #[error("make interface {interface}")]
    MakeInterface {
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },
    /// A bridge takes no more ports.
    #[error(
        "bridge {bridge} takes no more ports: the kernel gives a bridge 1,023 of them; a network without a bridge \
         (`vnet network create --no-bridge`) has room for as many endpoints as it has addresses"
    )]
    BridgeFull {
        /// The bridge.
        bridge: String,
    },
    /// An interface's queueing discipline cannot be read or set.
    #[error("give interface {interface} a token bucket filter")]
    Queue {
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },
    /// The queueing disciplines of an interface cannot be read or set.
    #[error("read or set the queueing disciplines of interface {interface}")]
    Shape {
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },
    /// It cannot be asked what is attached to an interface.
    #[error("ask what is attached to {interface}")]
    Query {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody has given an interface a queueing discipline.
    #[error(
        "somebody has given interface {interface} the queueing discipline {kind} {handle:x}:, which vnet does not take \
         away: limits of cgroups need one of vnet's own in its place; `tc qdisc del dev {interface} root` removes it, \
         or limit the cgroups there with it"
    )]
    ForeignQueue {
        /// The interface.
        interface: String,
        /// What it is.
        kind: String,
        /// Its major number.
        handle: u16,
    },
    /// An interface cannot be changed.
    #[error("configure interface {interface} of {place} and set it up")]
    ChangeInterface {
        /// The interface.
        interface: String,
        /// Where it is.
        place: String,
        /// Why.
        source: NetlinkError,
    },
    /// An interface cannot be removed.
    #[error("remove interface {interface}")]
    RemoveInterface {
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },
    /// The name belongs to something else.
    #[error(
        "{interface} is there already and is a {kind}, not a {wanted}: vnet leaves it alone; choose another name"
    )]
    InterfaceTaken {
        /// The name.
        interface: String,
        /// What has it.
        kind: String,
        /// What was to have it.
        wanted: &'static str,
    },
    /// The namespace has an interface of that name.
    #[error(
        "{} has an interface {interface} already, a {kind}: choose another name with --ifname",
        namespace.display()
    )]
    NameInNamespaceTaken {
        /// The name.
        interface: String,
        /// What has it.
        kind: String,
        /// The namespace.
        namespace: PathBuf,
    },
    /// An address cannot be given or taken.
    #[error("set address {address} of {interface}")]
    Address {
        /// The address.
        address: IpNet,
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },
    /// A route cannot be made.
    #[error("make the route to {route} in {}", namespace.display())]
    Route {
        /// Where it leads, and by which router.
        route: String,
        /// The namespace.
        namespace: PathBuf,
        /// Why.
        source: NetlinkError,
    },
    /// The namespace has a route to the same destination that is not vnet's.
    #[error(
        "{} has a route to the same destination already, by another interface; vnet does not replace it with one to \
         {route}: remove it first",
        namespace.display()
    )]
    RouteTaken {
        /// The route that was to be.
        route: String,
        /// The namespace.
        namespace: PathBuf,
    },
    /// Rules of routing by source address cannot be dealt with.
    #[error(
        "route by the source address, in table {table} (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES)"
    )]
    BySource {
        /// Number of the table.
        table: u32,
        /// Why.
        source: NetlinkError,
    },
    /// The filters of an interface cannot be dealt with.
    #[error("deal with the filters of {interface}")]
    Filters {
        /// The interface.
        interface: String,
        /// Why.
        source: NetlinkError,
    },

    /// A namespace cannot be opened.
    #[error("open the network namespace {}", path.display())]
    OpenNamespace {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is not a namespace.
    #[error("{} is not a namespace", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// A router's link cannot be reached from inside it.
    #[error("the bridge outside is not reached from inside the router: run the command on its host")]
    NotEntered,
    /// The bridge that a router's link was a port of is not there.
    #[error(
        "bridge {bridge} outside is gone: whoever has made it has to make it again; then `vnet up` puts the router's \
         link on it"
    )]
    OutsideGone {
        /// The bridge.
        bridge: String,
    },
    /// A namespace of somebody else's has a name that is wanted.
    #[error("{} is another network namespace than the router's: remove it or give it another name", path.display())]
    OtherNamespaceThere {
        /// Its path.
        path: PathBuf,
    },
    /// A namespace cannot be entered.
    #[error("enter the network namespace {}", path.display())]
    EnterNamespace {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A namespace cannot be made.
    #[error("make the network namespace {}", path.display())]
    MakeNamespace {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A namespace cannot be removed.
    #[error("remove the network namespace {}", path.display())]
    RemoveNamespace {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not number the namespace.
    #[error("ask for the number of the network namespace (SO_NETNS_COOKIE, Linux 5.14)")]
    NamespaceCookie {
        /// Why.
        source: io::Error,
    },
    /// Nothing is to be executed.
    #[error("no command to execute")]
    NoCommand,
    /// A command cannot be executed.
    #[error("execute {} in {place}", program.display())]
    Execute {
        /// The program.
        program: OsString,
        /// Its network namespace.
        place: String,
        /// Why.
        source: io::Error,
    },

    /// A kernel parameter cannot be read.
    #[error("read {}", path.display())]
    ReadSysctl {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A kernel parameter cannot be written.
    #[error("write {value:?} to {}", path.display())]
    WriteSysctl {
        /// Its file.
        path: PathBuf,
        /// The value it was to have.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A list of ports is not one.
    #[error("{} holds {text:?}, which is not a list of ports", path.display())]
    NotPorts {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// Nothing would be left for the host's own automatic choice.
    #[error(
        "reserving ports {reserved} would leave the host none to choose from: its own range \
         (net.ipv4.ip_local_port_range) is {automatic}; widen that range, or have vnet use other ports, with --nat-ports"
    )]
    NoAutomaticPorts {
        /// The host's range.
        automatic: String,
        /// All that would be reserved.
        reserved: String,
    },

    /// The binary holds no programs.
    #[error("this vnet was built without its eBPF programs: run `cargo xtask build` where its source is")]
    BuiltWithoutPrograms,
    /// The BPF file system cannot be mounted.
    #[error("mount a BPF file system at {}", path.display())]
    MountBpffs {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is mounted would not last.
    #[error(
        "there is no BPF file system at {}, and one mounted by this process would vanish with it, because it has \
         mounts of its own (`ip netns exec` does that: `nsenter --net=/run/netns/NAME` does not); mount one \
         there, or say with VNET_BPFFS where one is",
        path.display()
    )]
    PrivateMounts {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no unified cgroup hierarchy.
    #[error(
        "no cgroup2 file system is mounted where this process sees it, and vnet attaches to its root what makes \
         published ports work from the host itself; `ip netns exec` hides it (`nsenter --net=/run/netns/NAME` \
         does not); where there is none, `mount -t cgroup2 none DIRECTORY` gives one"
    )]
    NoCgroups,
    /// Something else than a cgroup of the unified hierarchy.
    #[error(
        "{path} is no cgroup of version 2: {cause}; version 2 is mounted at {root} here: name the cgroup by its directory \
         there ({root}/NAME) or by its path below that (/NAME, as in /proc/PID/cgroup); classes of net_cls, of version 1, \
         are limited with `--classid MAJOR:MINOR`",
        root = root.display()
    )]
    NotACgroup {
        /// What was asked for.
        path: CgroupPath,
        /// What it is.
        cause: NotACgroup,
        /// Where the unified hierarchy is mounted.
        root: PathBuf,
    },
    /// The object cannot be loaded.
    #[error("load the eBPF object")]
    LoadObject {
        /// Why.
        source: Box<EbpfError>,
    },
    /// The kernel has no memory for a map, all of which it takes at once.
    #[error(
        "the kernel has no memory for map {map}, with room for {} flows that are answered and {} that are not: name \
         less with --max-flows and --max-unanswered", sizes.flows, sizes.unanswered
    )]
    NoMemory {
        /// The map.
        map: String,
        /// What there was to be room for.
        sizes: TableSizes,
        /// Why.
        source: std::io::Error,
    },
    /// The verifier refuses a program.
    #[error("load program {program}: the kernel's verifier refuses it, and its last words are\n{last_words}")]
    Refused {
        /// The program.
        program: String,
        /// The end of the verifier's log, which as a whole has thousands of lines.
        last_words: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program cannot be loaded.
    #[error("load program {program}")]
    LoadProgram {
        /// The program.
        program: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A program cannot be attached to the root cgroup.
    #[error("attach program {program} to the root cgroup")]
    AttachToCgroup {
        /// The program.
        program: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// Something cannot be pinned.
    #[error("pin {}", pin.display())]
    Pin {
        /// Where.
        pin: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pin cannot be removed.
    #[error("remove {}", pin.display())]
    Unpin {
        /// Where.
        pin: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The maps are of another version, and in use.
    #[error(
        "the maps in {} are of another version of vnet (this one has ABI version {wanted}), and interfaces use \
         them: `vnet up` takes them over",
        pins.display()
    )]
    ForeignVersion {
        /// Where they are pinned.
        pins: PathBuf,
        /// The version of this binary.
        wanted: u32,
    },
    /// The maps are of another version, in use, and cannot be taken over.
    #[error(
        "the maps in {} are of another version of vnet (this one has ABI version {wanted}), interfaces use them, \
         and map {map} cannot be taken over: `vnet down` first, after `vnet export`",
        pins.display()
    )]
    NotTakenOver {
        /// Where they are pinned.
        pins: PathBuf,
        /// The version of this binary.
        wanted: u32,
        /// One of them.
        map: &'static str,
        /// What is in the way.
        #[source]
        obstacle: Obstacle,
    },
    /// Entries cannot be carried over into a map of this version.
    #[error("carry the entries of map {map} over from another version of vnet")]
    Carry {
        /// The map.
        map: &'static str,
        /// What is in the way.
        #[source]
        obstacle: Obstacle,
    },
    /// The programs are not loaded.
    #[error("there is no program {}: `vnet up` loads it", pin.display())]
    NotLoaded {
        /// Where it would be pinned.
        pin: PathBuf,
    },
    /// The kernel cannot be asked by a program.
    #[error("ask the kernel where it sends packets, by a program that is run for the answer")]
    Probe {
        /// Why.
        source: io::Error,
    },
    /// Dropped packets cannot be captured.
    #[error("capture dropped packets")]
    Capture {
        /// Why.
        source: io::Error,
    },
    /// There is one capture at a time.
    #[error("another `vnet drops --pcapng` is capturing what this instance drops: end that first")]
    CaptureUnderWay,
    /// A pinned program cannot be used.
    #[error("open program {}", pin.display())]
    OpenProgram {
        /// Where it is pinned.
        pin: PathBuf,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A pinned link cannot be used.
    #[error("open link {}", pin.display())]
    OpenLink {
        /// Where it is pinned.
        pin: PathBuf,
        /// Why.
        source: LinkError,
    },
    /// A program cannot be attached to, or detached from, an interface.
    #[error("attach program {program} to {interface}, or detach it")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        source: Box<ProgramError>,
    },

    /// The driver cannot run XDP programs.
    #[error(
        "the driver of {interface} has no native XDP: leave it off (`vnet up --xdp {interface}=off`), or force the \
         slower generic XDP with `vnet up --xdp {interface}=generic`"
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
    },
    /// The driver can, but not as things are.
    #[error(
        "the driver of {interface} does not take an XDP program (it may have an MTU that is too large for that, \
         receive offloads that exclude it, or too few queues; the kernel's log may say which): leave it off \
         (`vnet up --xdp {interface}=off`), or force the slower generic XDP with `vnet up --xdp {interface}=generic`"
    )]
    NativeXdp {
        /// The interface.
        interface: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// Somebody else has an XDP program there.
    #[error(
        "{interface} has an XDP program already, {other}: vnet's goes only where there is none; have its owner take it \
         away, or leave XDP off with `vnet up --xdp {interface}=off`"
    )]
    OtherXdp {
        /// The interface.
        interface: String,
        /// What it has.
        other: String,
    },

    /// A map does not exist, or is of another version.
    #[error("there is no map {map} of this version of vnet at {}: `vnet up` makes it", pin.display())]
    NoMap {
        /// The map.
        map: &'static str,
        /// Where it would be pinned.
        pin: PathBuf,
    },
    /// A map cannot be read.
    #[error("read map {map}")]
    ReadMap {
        /// The map.
        map: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map cannot be written.
    #[error("write an entry of map {map}")]
    WriteMap {
        /// The map.
        map: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map has no room.
    #[error("map {map} is full: remove some of its entries")]
    MapFull {
        /// The map.
        map: &'static str,
    },
    /// The events cannot be read.
    #[error("read the events")]
    Events {
        /// Why.
        source: io::Error,
    },
    /// What the programs log cannot be read.
    #[error("read what the programs log")]
    ReadLog {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel's news cannot be heard.
    #[error("listen to the kernel's news of interfaces, addresses and routes")]
    Watch {
        /// Why.
        source: io::Error,
    },
    /// A directory cannot be watched.
    #[error("watch {} (how many a user may is the parameter fs.inotify.max_user_watches)", path.display())]
    WatchDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why something is no cgroup of the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotACgroup {
    /// It is a cgroup of version 1.
    Version1 {
        /// The controllers of its hierarchy, or its name.
        controllers: String,
    },
    /// It is on a file system of another kind.
    OtherFileSystem {
        /// Which.
        file_system: String,
    },
    /// It does not exist, and nothing of the hierarchy leads there.
    Missing {
        /// What there is of the path.
        nearest: PathBuf,
        /// The file system of that.
        file_system: String,
    },
    /// It is a file of a cgroup.
    File,
    /// It is in a part of the hierarchy that the mounted one does not show.
    Outside,
}

impl fmt::Display for NotACgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version1 { controllers } => write!(f, "it is of version 1 ({controllers})"),
            Self::OtherFileSystem { file_system } => {
                write!(f, "it is on another file system ({file_system})")
            }
            Self::Missing { nearest, file_system } => {
                write!(
                    f,
                    "it does not exist, and {} is on another file system ({file_system})",
                    nearest.display()
                )
            }
            Self::File => f.write_str("it is a file and not a directory"),
            Self::Outside => f.write_str("it is in a part of the hierarchy that cannot be seen from there"),
        }
    }
}
