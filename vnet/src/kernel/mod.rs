//! The only module that may name aya, rtnetlink, nix or `/proc`: everything above deals in plain values.
//!
//! ```text
//! Kernel --+-- programs       maps and programs: loaded, pinned, exchanged    -- object, features, cgroup, pins
//!          +-- attachment, xdp   programs on interfaces
//!          +-- entries        resources that are one entry of a map           -- maps
//!          +-- bridge, veth, direct, hold, limit   interfaces and what is set on them       -- interface, netlink (dump), sysctl
//!          +-- shaping        where what limited cgroups send waits                       -- netlink (dump)
//!          +-- live           tables and routing, for packets that are only described, read only   -- maps, probe
//!          +-- capture        what the programs drop, for whoever asks for the packets    -- maps
//!          +-- log            what the programs log, by aya-log                          -- maps, programs
//!          +-- gateway        sockets that one network reaches
//!          +-- traffic        what interfaces count                                   -- netlink
//!          +-- netns          namespaces
//!          +-- home, leg      a router's namespace, and its way out                     -- netns, veth
//!          +-- watch          what happens beside vnet                           -- netlink, inotify
//!          +-- netfilter      the rules of the host's firewall, read only        -- dump
//!          +-- reserved_ports, forwarding   parameters of the host                -- sysctl, former
//!          '-- sockets        of the host's own programs                         -- dump
//! ```
//!
//! "The host" is the network namespace in which the process runs; a router's, where it has entered that ([`Kernel::enter`]).

mod attachment;
mod batch;
mod bridge;
pub mod btf;
mod capabilities;
mod capture;
mod cgroup;
mod cgroup_limit;
mod direct;
mod dump;
mod entries;
mod environment;
mod error;
mod events;
mod exec;
mod features;
mod flows;
mod former;
mod forwarding;
mod gateway;
mod hold;
mod home;
mod interface;
mod leg;
mod limit;
mod live;
mod log;
mod maps;
mod netfilter;
mod netlink;
mod netns;
mod object;
mod object_info;
mod pins;
mod probe;
mod programs;
mod reserved_ports;
mod shaping;
mod sockets;
mod stdout;
mod sysctl;
mod takeover;
mod traffic;
mod veth;
mod watch;
mod xdp;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use vnet_common::{
    Addr, CaptureFilter, CtEntry, DatapathConfig, DropKey, EndpointUse, Event, Hook, LogLevel, Mac,
    MappingEntry, PortRange, Proto, Tuple,
};

pub use capture::{Capture, Captured};
pub use environment::Environment;
pub use error::{Error, NetlinkError, NotACgroup, Obstacle};
pub use live::Live;
pub use log::Log;
pub use object::{GENERATOR, OBJECT, PROBE, RUNNERS};
pub use traffic::InterfaceTraffic;
pub use watch::{Change, Hooks, Watch};

use self::attachment::Attachment;
use self::bridge::Bridge;
use self::hold::Hold;
use self::maps::Maps;
use self::netlink::Netlink;
use self::netns::Namespace;
use self::xdp::XdpAttachment;
use crate::firewall::Netfilter;
use crate::flow::{self, Counted, Room, Stats, Tables, Usage};
use crate::instance::Instance;
use crate::plan::{Cgroup, GsoSizes, Op, Pacing, Queue, Resource, State, TableSizes, Veth};

/// Opens a file that is there for reading and writing, unless it is a symbolic link.
///
/// # Errors
/// When it cannot be opened, or is one.
pub fn open_without_link(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().read(true).write(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)
}

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it is an Ethernet interface.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Most bytes that it is handed at once.
    pub gso: GsoSizes,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its kind, as netlink says ("veth", "bridge"), if it has one.
    pub kind: Option<String>,
    /// Its addresses with their prefixes, in the kernel's order.
    pub addresses: Vec<IpNet>,
}

/// The addresses of an interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// The interface's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its addresses with their prefixes, in the kernel's order.
    pub addresses: Vec<IpNet>,
}

impl From<&Interface> for Addressed {
    fn from(interface: &Interface) -> Self {
        let Interface { index, name, addresses, .. } = interface;
        Self { index: *index, name: name.clone(), addresses: addresses.clone() }
    }
}

/// A route of the host's main or local table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it leads to; a zero prefix length is the default route.
    pub destination: IpNet,
    /// The interface it leads out of.
    pub interface: Option<String>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// Its metric: lower is preferred.
    pub metric: u32,
}

/// A socket of the host that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    /// The address it is bound to, unspecified for all. An IPv4 address in IPv6 form is an IPv4 address here.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// Whether it is an IPv6 socket that IPv4 clients do not reach (`IPV6_V6ONLY`).
    pub v6only: bool,
    /// Number of its file, 0 if it has none any more.
    pub inode: u32,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name, as `ps` shows it.
    pub name: String,
    /// Its number.
    pub pid: u32,
}

/// A command to run in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The namespace, as a path that can be opened; that of this process without.
    pub namespace: Option<PathBuf>,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
}

fn looked_at_together(one: &Resource, next: &Resource) -> bool {
    matches!(
        (one, next),
        (Resource::PortMap { .. }, Resource::PortMap { .. })
            | (Resource::CgroupLimit(_), Resource::CgroupLimit(_))
    )
}

/// The kernel as one instance sees it.
#[derive(Debug)]
pub struct Kernel {
    instance: Instance,
    netlink: Netlink,
    maps: Maps,
}

impl Kernel {
    /// Opens the kernel for an instance, in the network namespace of the calling process. Needs a tokio runtime
    /// with I/O and time.
    ///
    /// # Errors
    /// When a capability is missing (named) or the kernel lacks what vnet needs (named, with the version that
    /// brought it).
    pub async fn open(instance: &Instance) -> Result<Self, Error> {
        capabilities::check_capabilities()?;
        capabilities::check_kernel()?;
        let netlink = Netlink::open_as_needed().map_err(|source| Error::NetlinkSocket { source })?;
        Ok(Self { instance: instance.clone(), netlink, maps: Maps::of(instance) })
    }

    /// How a resource stands.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn state(&self, resource: &Resource) -> Result<State, Error> {
        match resource {
            Resource::DataPath(_) => {
                // Another process may have replaced the maps since they were opened.
                self.maps.close();
                Ok(programs::state(&self.instance))
            }
            Resource::Attachment { hook, interface } => {
                Attachment { instance: &self.instance, hook: *hook, interface }.state(&self.netlink).await
            }
            Resource::Xdp { interface, generic } => self.xdp(interface, *generic).state(&self.netlink).await,
            Resource::ReservedPorts { first, last } => {
                reserved_ports::state(&self.instance, PortRange { first: *first, last: *last })
            }
            Resource::Forwarding { interface } => forwarding::state(&self.instance, interface),
            Resource::Bridge { name, far_end, mac, mtu, gso, addresses } => {
                let far_end = far_end.as_deref();
                let bridge = Bridge { name, far_end, mac: *mac, mtu: *mtu, gso: *gso, addresses };
                bridge.state(&self.netlink).await
            }
            Resource::Namespace { name } => netns::state(name),
            Resource::Veth(veth) => veth::state(&self.netlink, veth).await,
            Resource::Home { name } => home::state(name),
            Resource::Leg(veth) => leg::state(veth).await,
            Resource::ExternalAddress { address, interface } => {
                leg::address_state(&self.netlink, interface, *address)
            }
            Resource::Direct(pair) => direct::state(pair).await,
            Resource::Limit(shaper) => limit::state(&self.netlink, shaper).await,
            Resource::Queue(queue) => shaping::state(&self.netlink, queue).await,
            Resource::Hold { entrance, exit } => Hold { entrance, exit }.state(&self.netlink).await,
            Resource::Config { .. }
            | Resource::Uplink { .. }
            | Resource::HostAddress { .. }
            | Resource::Network { .. }
            | Resource::Masquerade { .. }
            | Resource::Unmasqueraded { .. }
            | Resource::Floating { .. }
            | Resource::Denied { .. }
            | Resource::CgroupLimit(_)
            | Resource::Endpoint { .. }
            | Resource::AllowFrom { .. }
            | Resource::PortMap { .. } => entries::state(&self.maps, &self.netlink, resource),
        }
    }

    /// How resources stand, each as by [`Self::state`].
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub async fn states(&self, resources: &[Resource]) -> Result<Vec<State>, Error> {
        let mut states = Vec::with_capacity(resources.len());
        for alike in resources.chunk_by(looked_at_together) {
            match entries::states_together(&self.maps, alike) {
                Some(together) => states.extend(together?),
                None => {
                    for resource in alike {
                        states.push(self.state(resource).await?);
                    }
                }
            }
        }
        Ok(states)
    }

    /// Whether there is anything of each of these resources, as by [`Self::is_there`].
    pub async fn are_there(&self, resources: &[Resource]) -> Vec<Result<bool, Error>> {
        let mut there = Vec::with_capacity(resources.len());
        for alike in resources.chunk_by(looked_at_together) {
            if let Some(Ok(states)) = entries::states_together(&self.maps, alike) {
                there.extend(states.into_iter().map(|state| Ok(state != State::Absent)));
                continue;
            }
            for resource in alike {
                there.push(self.is_there(resource).await);
            }
        }
        there
    }

    /// Whether there is anything of a resource, as described or not. Of interfaces and what is attached to them that
    /// is asked without the lock of the kernel's networking, which may be held for long after a removal.
    ///
    /// # Errors
    /// When it cannot be looked for.
    pub async fn is_there(&self, resource: &Resource) -> Result<bool, Error> {
        match resource {
            Resource::Attachment { hook, interface } => {
                Ok(Attachment { instance: &self.instance, hook: *hook, interface }.is_pinned())
            }
            Resource::Bridge { name, .. } => self.has_interface(name),
            Resource::Veth(veth) => self.has_interface(&veth.host),
            Resource::Home { name } => home::is_there(name),
            Resource::Leg(veth) => leg::is_there(veth).await,
            other => Ok(self.state(other).await? != State::Absent),
        }
    }

    /// Does one step. Doing it again is doing it once.
    ///
    /// # Errors
    /// When it cannot be done.
    pub async fn apply(&self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Create(resource) | Op::Change(resource) => self.create(resource).await,
            Op::Remove(resource) => self.remove(resource).await,
        }
    }

    /// Does steps that [join](Op::joins) each other by as few requests to the kernel as it takes.
    ///
    /// # Errors
    /// The first that cannot be done, with the number of those done before it.
    pub async fn apply_joined(&self, ops: &[Op]) -> Result<(), (usize, Error)> {
        match ops {
            [op] => self.apply(op).await.map_err(|error| (0, error)),
            several => entries::apply_joined(&self.maps, several).map_err(|(done, error)| (done, *error)),
        }
    }

    async fn create(&self, resource: &Resource) -> Result<(), Error> {
        match resource {
            Resource::DataPath(sizes) => {
                self.maps.close();
                programs::create(&self.instance, *sizes, &self.netlink).await
            }
            Resource::Attachment { hook, interface } => {
                Attachment { instance: &self.instance, hook: *hook, interface }.create(&self.netlink).await
            }
            Resource::Xdp { interface, generic } => self.xdp(interface, *generic).create(&self.netlink).await,
            Resource::ReservedPorts { first, last } => {
                reserved_ports::create(&self.instance, PortRange { first: *first, last: *last })
            }
            Resource::Forwarding { interface } => forwarding::create(&self.instance, interface),
            Resource::Bridge { name, far_end, mac, mtu, gso, addresses } => {
                let far_end = far_end.as_deref();
                let bridge = Bridge { name, far_end, mac: *mac, mtu: *mtu, gso: *gso, addresses };
                bridge.create(&self.netlink).await
            }
            Resource::Namespace { name } => netns::create(name).await,
            Resource::Veth(veth) => {
                let host = veth::Host { netlink: &self.netlink, namespace: None };
                veth::create(host, veth, veth::Others::Go).await
            }
            Resource::Home { name } => home::create(name),
            Resource::Leg(veth) => leg::create(veth).await,
            Resource::ExternalAddress { address, interface } => {
                leg::add_address(&self.netlink, interface, *address).await
            }
            Resource::Direct(pair) => direct::create(pair).await,
            Resource::Limit(shaper) => limit::create(&self.netlink, shaper).await,
            Resource::Queue(queue) => shaping::create(&self.netlink, queue).await,
            Resource::Hold { entrance, exit } => Hold { entrance, exit }.create(&self.netlink).await,
            Resource::Config { .. }
            | Resource::Uplink { .. }
            | Resource::HostAddress { .. }
            | Resource::Network { .. }
            | Resource::Masquerade { .. }
            | Resource::Unmasqueraded { .. }
            | Resource::Floating { .. }
            | Resource::Denied { .. }
            | Resource::CgroupLimit(_)
            | Resource::Endpoint { .. }
            | Resource::AllowFrom { .. }
            | Resource::PortMap { .. } => entries::create(&self.maps, &self.netlink, resource).await,
        }
    }

    async fn remove(&self, resource: &Resource) -> Result<(), Error> {
        match resource {
            Resource::DataPath(_) => {
                self.maps.close();
                programs::remove(&self.instance, &self.netlink).await
            }
            Resource::Attachment { hook, interface } => {
                Attachment { instance: &self.instance, hook: *hook, interface }.remove(&self.netlink).await
            }
            Resource::Xdp { interface, generic } => self.xdp(interface, *generic).remove(),
            Resource::ReservedPorts { .. } => reserved_ports::remove(&self.instance),
            Resource::Forwarding { interface } => forwarding::remove(&self.instance, interface),
            Resource::Bridge { name, far_end, .. } => {
                bridge::remove(&self.netlink, name, far_end.is_none()).await
            }
            Resource::Namespace { name } => netns::remove(name),
            Resource::Veth(veth) => veth::remove(&self.netlink, veth).await,
            Resource::Home { name } => home::remove(name),
            Resource::Leg(veth) => leg::remove(veth).await,
            Resource::ExternalAddress { address, interface } => {
                leg::delete_address(&self.netlink, interface, *address).await
            }
            Resource::Direct(pair) => direct::remove(pair).await,
            Resource::Limit(shaper) => limit::remove(&self.netlink, shaper).await,
            Resource::Queue(queue) => shaping::remove(&self.netlink, &queue.interface).await,
            Resource::Hold { entrance, exit } => Hold { entrance, exit }.remove(&self.netlink).await,
            Resource::Config { .. }
            | Resource::Uplink { .. }
            | Resource::HostAddress { .. }
            | Resource::Network { .. }
            | Resource::Masquerade { .. }
            | Resource::Unmasqueraded { .. }
            | Resource::Floating { .. }
            | Resource::Denied { .. }
            | Resource::CgroupLimit(_)
            | Resource::Endpoint { .. }
            | Resource::AllowFrom { .. }
            | Resource::PortMap { .. } => entries::remove(&self.maps, &self.netlink, resource).await,
        }
    }

    fn xdp<'a>(&'a self, interface: &'a str, generic: bool) -> XdpAttachment<'a> {
        XdpAttachment { instance: &self.instance, interface, generic }
    }

    /// The host's interfaces.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        interface::all(&self.netlink).await
    }

    /// The interfaces of the namespace that the process came from, if it has entered a router's.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn outside(&self) -> Result<Option<Vec<Interface>>, Error> {
        match home::origin() {
            Some(namespace) => Ok(Some(interface::all(&namespace.netlink()?).await?)),
            None => Ok(None),
        }
    }

    /// The number of that namespace.
    ///
    /// # Errors
    /// When the kernel does not number namespaces.
    pub fn origin(&self) -> Result<Option<u64>, Error> {
        home::origin().map(home::cookie).transpose()
    }

    /// Whether the process has entered a router's namespace: what files say of addresses holds where it came from.
    #[must_use]
    pub fn has_moved() -> bool {
        home::origin().is_some()
    }

    /// The number of the network namespace that the process is in.
    ///
    /// # Errors
    /// When the kernel does not number namespaces.
    pub fn here() -> Result<u64, Error> {
        home::own_cookie()
    }

    /// Moves the process into the namespace of a router, if that of its name has this number; says whether it is there
    /// now. To be called before there is another thread.
    ///
    /// # Errors
    /// When it may not be entered, or a capability is missing (named).
    pub fn enter(router: &str, number: u64) -> Result<bool, Error> {
        home::enter(router, number)
    }

    /// Whether the namespace of a router is there, under its name.
    ///
    /// # Errors
    /// When it cannot be asked for its number.
    pub fn has_home(router: &str, number: u64) -> Result<bool, Error> {
        home::has(router, number)
    }

    /// Moves the process into the namespace of this number, which has lost its name, if some process lives there; says
    /// whether it is there now. To be called before there is another thread.
    ///
    /// # Errors
    /// When processes cannot be listed, or a capability is missing (named).
    pub fn enter_nameless(number: u64) -> Result<bool, Error> {
        home::enter_nameless(number)
    }

    /// Moves the process into a new namespace, for a router that has none. To be called before there is another thread.
    ///
    /// # Errors
    /// When it cannot be made, or a capability is missing (named).
    pub fn enter_new() -> Result<(), Error> {
        home::enter_new()
    }

    /// The addresses of the host, by interface: of those that have some, and of those of these names that there are.
    /// Links to endpoints have none, so this takes as long as the host has addresses and not interfaces, and the lock
    /// of the kernel's networking is not asked for.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn addressed(&self, named: &[&str]) -> Result<Vec<Addressed>, Error> {
        let failed = |source| Error::ReadInterfaces { source };
        let mut by_index: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
        for address in self.netlink.addresses(None).map_err(failed)? {
            by_index.entry(address.index).or_default().push(address.net);
        }
        for name in named {
            if let Some(index) = interface::index_if_any(&self.netlink, name)? {
                by_index.entry(index).or_default();
            }
        }
        let mut addressed = Vec::with_capacity(by_index.len());
        for (index, addresses) in by_index {
            let name = self.netlink.name_of(index);
            let name = name.map_err(|source| Error::ReadInterfaces { source: source.into() })?;
            // One that has gone since has no name any more.
            if let Some(name) = name {
                addressed.push(Addressed { index, name, addresses });
            }
        }
        Ok(addressed)
    }

    /// What interfaces of the host have received and sent, by name.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn traffic(&self, names: &[&str]) -> Result<HashMap<String, InterfaceTraffic>, Error> {
        traffic::of_interfaces(&self.netlink, names).await
    }

    /// What endpoints have received and sent, by the host's ends of their links.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn traffic_of_endpoints(
        &self,
        links: &[&str],
    ) -> Result<HashMap<String, InterfaceTraffic>, Error> {
        traffic::of_far_ends(&self.netlink, links).await
    }

    /// The names of the host's interfaces, by number.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn interface_names(&self) -> Result<BTreeMap<u32, String>, Error> {
        let names = nix::net::if_::if_nameindex();
        let names = names.map_err(|errno| Error::ReadInterfaces { source: io::Error::from(errno).into() })?;
        let names = names.to_slice().iter();
        Ok(names.map(|it| (it.index(), it.name().to_string_lossy().into_owned())).collect())
    }

    /// How many entries a map has room for; `None` when there is no data path.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn room(&self, map: &'static str) -> Result<Option<u32>, Error> {
        maps::room(&self.instance.map_pin(map), map)
    }

    /// Whether the host has an interface of this name.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn has_interface(&self, name: &str) -> Result<bool, Error> {
        Ok(interface::index_if_any(&self.netlink, name)?.is_some())
    }

    /// The host's unicast routes, main table. A route with several next hops is several routes.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let links = self.netlink.links().await.map_err(|source| Error::ReadInterfaces { source })?;
        let names: HashMap<u32, String> = links.into_iter().map(|link| (link.index, link.name)).collect();
        let hops = self.netlink.hops().await.map_err(|source| Error::ReadRoutes { source })?;
        let route = |hop: netlink::Hop| Route {
            destination: hop.destination,
            interface: hop.index.and_then(|index| names.get(&index).cloned()),
            gateway: hop.gateway,
            metric: hop.metric,
        };
        Ok(hops.into_iter().map(route).collect())
    }

    /// The host's sockets that hold one of these ports: TCP sockets that listen, UDP sockets of any kind.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn bound_sockets(proto: Proto, ports: RangeInclusive<u16>) -> Result<Vec<BoundSocket>, Error> {
        sockets::bound(proto, &ports)
    }

    /// A process that has a socket, if it may be seen.
    #[must_use]
    pub fn holder_of(socket: &BoundSocket) -> Option<Process> {
        sockets::holder(socket.inode)
    }

    /// The rules of the host's firewall, of every kind.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn netfilter(&self) -> Result<Netfilter, Error> {
        netfilter::read().map_err(|source| Error::ReadFirewall { source })
    }

    /// The tracked flows: both directions of each, as the map has them. Empty when there is no data path.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn flows(&self) -> Result<Vec<(Tuple, CtEntry)>, Error> {
        Ok(flows::all(&self.maps)?.into_iter().collect())
    }

    /// The tracked flows, table by table. Empty when there is no data path.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn flow_tables(&self) -> Result<Tables, Error> {
        flows::tables(&self.maps)
    }

    /// The entries of the flow that begins with this tuple, as many as there are.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn flow(&self, tuple: &Tuple) -> Result<Tables, Error> {
        flows::halves(&self.maps, tuple)
    }

    /// The entries of the endpoint-independent mappings.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn mappings(&self) -> Result<HashMap<Tuple, MappingEntry>, Error> {
        self.maps.mappings.entries()
    }

    /// How many datagrams in fragments the data path knows.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn fragments(&self) -> Result<usize, Error> {
        Ok(self.maps.fragments.entries()?.len())
    }

    /// What the endpoint with one of these addresses has in use; nothing if it has not sent anything yet.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn endpoint_use(&self, addresses: &[IpAddr]) -> Result<Option<EndpointUse>, Error> {
        for addr in addresses {
            if let Some(endpoint) = self.maps.endpoints.get(&Addr::from(*addr))? {
                return self.maps.endpoint_use.get(&endpoint.ifindex);
            }
        }
        Ok(None)
    }

    /// What flows use of what there is, counted now; `endpoints` are those to count for, with their names and addresses.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn flow_stats(&self, endpoints: &[(String, Vec<IpAddr>)], room: Room) -> Result<Stats, Error> {
        // Without a data path there are no flows.
        let config = self.datapath_config()?.unwrap_or(DatapathConfig::DEFAULT);
        let mut used: Vec<(String, EndpointUse)> = Vec::with_capacity(endpoints.len());
        for (name, addresses) in endpoints {
            used.push((name.clone(), self.endpoint_use(addresses)?.unwrap_or(EndpointUse::NOTHING)));
        }
        let (flows, mappings) = (flow::pair(&self.flow_tables()?), self.mappings()?);
        let fragments = self.fragments()?;
        let counted = Counted { flows: &flows, mappings: &mappings, fragments, endpoints: &used, room };
        Ok(Stats::count(&counted, &config, Self::now()))
    }

    /// What of the machine matters to vnet beside what it cannot do without.
    ///
    /// # Errors
    /// When the kernel's release, or the instance's own files, cannot be looked at.
    pub fn environment(&self) -> Result<Environment, Error> {
        environment::of(&self.instance)
    }

    /// How much is in use of each map whose entries can be counted, but for the flow tables; nothing when there is no
    /// data path.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn map_usage(&self) -> Result<Vec<(&'static str, Usage)>, Error> {
        self.maps.usage()
    }

    /// The configuration of the data path; `None` when there is none.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn datapath_config(&self) -> Result<Option<DatapathConfig>, Error> {
        // Read anew: the map that was opened before may be that of an instance which has been taken down since.
        Ok(self.maps.config.entries()?.remove(&0))
    }

    /// Sets how much the programs log; nothing to do without a data path. Whoever calls this holds the instance's lock:
    /// what else stands in the entry is read and written back.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn set_log_level(&self, level: LogLevel) -> Result<(), Error> {
        match self.datapath_config()? {
            Some(config) if config.log_level != level as u32 => {
                self.maps.config.insert(0, DatapathConfig { log_level: level as u32, ..config })
            }
            _ => Ok(()),
        }
    }

    /// Sockets at a port of a gateway's address, for datagrams and for connections, which only its bridge leads to.
    ///
    /// # Errors
    /// When the bridge has not that address, or somebody else has the port.
    pub fn gateway_sockets(
        addr: IpAddr,
        port: u16,
        bridge: &str,
    ) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
        gateway::sockets(addr, port, bridge)
    }

    /// Begins to read what the programs log, which should be nothing at the moment.
    ///
    /// # Errors
    /// When there is no data path, or its log cannot be read.
    pub fn log(&self) -> Result<Log, Error> {
        Log::open(&self.instance)
    }

    /// Forgets the flows for which `doomed` holds, together with their twins; returns how many entries went.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn forget_flows(&self, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, Error> {
        flows::forget(&self.maps, doomed)
    }

    /// The drop counters, summed over the CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn drops(&self) -> Result<Vec<(DropKey, u64)>, Error> {
        self.maps.drops()
    }

    /// The tables and the kernel's routing, to be asked what would become of packets; nothing of them is changed.
    ///
    /// # Errors
    /// When there is no data path, or the kernel refuses the program that asks.
    pub async fn live(&self) -> Result<Live<'_>, Error> {
        Live::open(&self.instance, &self.maps, &self.netlink).await
    }

    /// Whether an uplink has a program in front of the host's stack (XDP).
    #[must_use]
    pub fn has_xdp(&self, interface: &str) -> bool {
        self.xdp(interface, false).is_pinned()
    }

    /// Whether both ends of an endpoint's pair are there and in their places, though not all of it may be as described.
    ///
    /// # Errors
    /// When they cannot be looked at.
    pub async fn is_whole(&self, veth: &Veth) -> Result<bool, Error> {
        veth::is_whole(&self.netlink, veth).await
    }

    /// Whether the kernel has what fragments wait in for the first of their datagram.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn can_hold_fragments(&self) -> Result<bool, Error> {
        hold::is_possible(&self.netlink).await
    }

    /// How what limited cgroups send can be made to wait; `None` if the kernel has nothing for it.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn pacing(&self) -> Result<Option<Pacing>, Error> {
        shaping::possible(&self.netlink).await
    }

    /// A cgroup as it is recorded: by its place below the root of its hierarchy, however it was written.
    ///
    /// # Errors
    /// When the unified hierarchy is not mounted, or it is something else.
    pub fn cgroup(asked: Cgroup) -> Result<Cgroup, Error> {
        match asked {
            Cgroup::Path(path) => cgroup::recorded(path).map(Cgroup::Path),
            class @ Cgroup::ClassId(_) => Ok(class),
        }
    }

    /// Whether there is such a cgroup; of a class, whether there are any.
    ///
    /// # Errors
    /// When it cannot be looked for.
    pub fn has_cgroup(asked: &Cgroup) -> Result<bool, Error> {
        match asked {
            Cgroup::Path(path) => Ok(cgroup::number(path)?.is_some()),
            Cgroup::ClassId(_) => cgroup::has_classes(),
        }
    }

    /// Checks that a network namespace can be opened at a path.
    ///
    /// # Errors
    /// When there is none, something else, or it may not be opened.
    pub fn check_namespace(path: &Path) -> Result<(), Error> {
        Namespace::open(path).map(drop)
    }

    /// Whether the kernel has IPv6.
    #[must_use]
    pub fn has_ipv6() -> bool {
        sysctl::has_ipv6()
    }

    /// What there is of the instance, as far as that can be found without its record: maps and programs, and parameters
    /// of the host of which it is noted what they were before.
    ///
    /// # Errors
    /// When it cannot be looked for.
    pub async fn without_record(&self) -> Result<Vec<Resource>, Error> {
        let mut found = Vec::new();
        let data_path = Resource::DataPath(TableSizes::default());
        if self.state(&data_path).await? != State::Absent {
            found.push(data_path);
        }
        found.extend(reserved_ports::noted(&self.instance)?);
        found.extend(forwarding::noted(&self.instance)?);
        let attached = attachment::pinned_in(&programs::links_of(&self.instance))?;
        for (_, interface) in attached.into_iter().filter(|(hook, _)| *hook == Hook::Shape) {
            let queue = Queue { interface, pacing: Pacing::Fq, classes: Vec::new() };
            found.push(Resource::Queue(queue));
        }
        Ok(found)
    }

    /// Refuses maps of another version of vnet that are in use.
    ///
    /// # Errors
    /// When they are that, with the way out.
    pub fn check_version(&self) -> Result<(), Error> {
        programs::check_version(&self.instance)
    }

    /// Refuses maps of another version of vnet that are in use and cannot be taken over.
    ///
    /// # Errors
    /// When they are that, with the way out.
    pub fn check_takeover(&self) -> Result<(), Error> {
        programs::check_takeover(&self.instance)
    }

    /// Whether the programs in use are those of another build of vnet.
    #[must_use]
    pub fn has_other_build(&self) -> bool {
        programs::has_other_build(&self.instance)
    }

    /// The number of the host's network namespace: no other has it until the next boot.
    ///
    /// # Errors
    /// When the kernel does not number namespaces.
    pub fn namespace(&self) -> Result<u64, Error> {
        self.netlink.cookie().map_err(|source| Error::NamespaceCookie { source })
    }

    /// Seconds since boot, on the clock of the flow table: without those in which the machine slept, and no nearer than
    /// its tick (`CLOCK_MONOTONIC_COARSE`).
    #[must_use]
    pub fn now() -> u32 {
        // The clock exists since Linux 2.6.32, and 136 years fit.
        clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| time.tv_sec() as u32)
    }

    /// What the running kernel offers beyond the oldest supported one, as bits of [`vnet_common::features`].
    #[must_use]
    pub fn features() -> u32 {
        features::of_running_kernel()
    }

    /// Reads events as they come and hands each to `each`, until it returns `false` or the future is dropped.
    ///
    /// # Errors
    /// When there is no data path, or the ring buffer cannot be read.
    pub async fn events(&self, each: &mut dyn FnMut(&Event) -> bool) -> Result<(), Error> {
        events::read(self.maps.events()?, each).await
    }

    /// Captures the packets that are dropped from now on, of one that the filter selects its first bytes.
    ///
    /// # Errors
    /// When there is no data path, somebody else captures, or the kernel has no memory for it.
    pub fn capture(&self, filter: &CaptureFilter) -> Result<Capture, Error> {
        Capture::begin(&self.instance, &self.maps, filter)
    }

    /// Begins to listen to what happens around the instance. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn watch(instance: &Instance) -> Result<Watch, Error> {
        Watch::open(instance)
    }

    /// What is attached now where the instance's attachments are pinned for.
    ///
    /// # Errors
    /// When the pins cannot be listed.
    pub fn hooks(instance: &Instance) -> Result<Hooks, Error> {
        watch::hooks(instance)
    }

    /// Waits until nobody can read standard output any more: for ever if it is a file.
    pub async fn output_closed() {
        stdout::closed().await;
    }

    /// Replaces the process by a command in a namespace; returns only on failure.
    #[must_use]
    pub fn exec(command: &Command) -> Error {
        exec::replace_process(command)
    }
}
