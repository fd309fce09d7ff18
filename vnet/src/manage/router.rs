//! Routers: instances in a namespace of their own, whose uplink is a link to somebody else's bridge.
//!
//! A router's record is its own instance's, and its host has none of it. The process that a command is has entered the
//! router's namespace before it does anything, so that "the host" means that here as well; only the link leads out of it
//! again. Where there is no namespace as yet, or no more, the process is in a new one without a name, and [`Resource::Home`]
//! names it.

use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::Mac;

use super::error::there_are;
use super::host::Host;
use super::up::everything;
use super::{Error, Manager, Mode, kernel};
use crate::instance::Instance;
use crate::kernel::Interface;
use crate::ours;
use crate::plan::{self, Resource};
use crate::reconcile::{self, Machine};
use crate::spec::{InterfaceName, Router, Settings, check_outside};
use crate::store::{self, Store, Transaction};

/// What a bridge is called by the kernel.
const BRIDGE: &str = "bridge";

/// What is to make an instance a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterRequest {
    /// The bridge outside.
    pub bridge: InterfaceName,
    /// Addresses outside, with their prefixes.
    pub addresses: Vec<IpNet>,
    /// Where the default routes lead, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Hardware address outside; one of our choice without.
    pub mac: Option<Mac>,
}

/// A router that is recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its instance.
    pub instance: Instance,
    /// What is recorded of that.
    pub settings: Settings,
    /// Its link to the outside.
    pub router: Router,
}

/// What is recorded of an instance, if it is a router.
///
/// # Errors
/// When its record cannot be read.
pub fn recorded_router(instance: &Instance) -> Result<Option<Recorded>, store::Error> {
    // Every command asks, and few instances are routers.
    if !instance.router_mark().exists() {
        return Ok(None);
    }
    let recorded = settings_of(instance)?.and_then(|settings| Some((settings.router.clone()?, settings)));
    Ok(recorded.map(|(router, settings)| Recorded { instance: instance.clone(), settings, router }))
}

/// Whether anything is recorded of an instance.
///
/// # Errors
/// When its record cannot be read.
pub fn is_recorded(instance: &Instance) -> Result<bool, store::Error> {
    Ok(settings_of(instance)?.is_some())
}

fn settings_of(instance: &Instance) -> Result<Option<Settings>, store::Error> {
    match Store::open(instance) {
        Ok(store) => store.begin()?.settings(),
        Err(store::Error::NotUp { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Refuses a bridge that is a network's of an instance in the same namespace, beside this one: the network's endpoints are
/// known by their addresses and reached past the bridge. And addresses that another router has on it. To be asked before
/// this instance is locked.
///
/// # Errors
/// When it is one, one is taken, or a record cannot be read.
pub fn check_outside_of(instance: &Instance, request: &RouterRequest, namespace: u64) -> Result<(), Error> {
    let bridge = &request.bridge;
    for addr in request.addresses.iter().map(IpNet::addr) {
        check_nobodys(instance, addr, bridge, namespace)?;
    }
    for other in siblings(instance)? {
        let store = match Store::open(&other) {
            Err(store::Error::NotUp { .. }) => continue,
            store => store?,
        };
        let transaction = store.begin()?;
        let Some(settings) = transaction.settings()? else { continue };
        let neighbour = settings.router.filter(|it| it.host == namespace && it.bridge == *bridge);
        if let Some(mac) = neighbour.and_then(|it| request.mac.filter(|mac| *mac == it.mac)) {
            let (bridge, instance) = (bridge.clone(), other.name().to_owned());
            return Err(Error::OutsideMacTaken { mac, instance, bridge });
        }
        if settings.namespace != namespace {
            continue;
        }
        if let Some(network) = transaction.networks()?.into_iter().find(|network| network.bridge == *bridge) {
            let (bridge, instance) = (bridge.clone(), other.name().to_owned());
            return Err(Error::OwnBridge { bridge, network: network.name, instance });
        }
    }
    Ok(())
}

/// Refuses an address that another router has on the bridge that this one is on. To be asked before this instance is locked;
/// says nothing of an instance that is no router.
///
/// # Errors
/// When one has it, or a record cannot be read.
pub fn check_external_of(instance: &Instance, external: IpAddr) -> Result<(), Error> {
    match recorded_router(instance)? {
        Some(Recorded { router, .. }) => check_nobodys(instance, external, &router.bridge, router.host),
        None => Ok(()),
    }
}

/// Refuses an address that another router on a bridge answers for: neighbours would find now one, now the other.
fn check_nobodys(
    instance: &Instance,
    addr: IpAddr,
    bridge: &InterfaceName,
    namespace: u64,
) -> Result<(), Error> {
    for other in siblings(instance)? {
        let Some(Recorded { router, .. }) = recorded_router(&other)? else { continue };
        if router.host != namespace || router.bridge != *bridge {
            continue;
        }
        let taken = |what| {
            let (bridge, instance) = (bridge.clone(), other.name().to_owned());
            Err(Error::OutsideTaken { addr, what, instance, bridge })
        };
        if router.addresses.iter().any(|net| net.addr() == addr) {
            return taken("an address");
        }
        let floating = match Store::open(&other) {
            Err(store::Error::NotUp { .. }) => continue,
            store => store?.begin()?.floating(addr)?,
        };
        if floating.is_some() {
            return taken("a floating address");
        }
    }
    Ok(())
}

/// The instances beside this one.
fn siblings(instance: &Instance) -> Result<Vec<Instance>, Error> {
    let all = instance.all().map_err(kernel("list the instances"))?;
    Ok(all.into_iter().filter(|other| other.name() != instance.name()).collect())
}

impl<M: Machine> Manager<M> {
    /// What is to lead out of the instance: what is recorded, with what the bridge has now, or what is asked for; nothing
    /// for an instance that is no router.
    pub(super) async fn describe_router(
        &self,
        recorded: Option<&Settings>,
        request: Option<&RouterRequest>,
    ) -> Result<Option<Router>, Error> {
        let outside = self.machine.outside().await.map_err(kernel("list the interfaces outside"))?;
        let recorded_router = recorded.and_then(|settings| settings.router.as_ref());
        match (recorded_router, request) {
            (Some(router), request) => {
                request.map_or(Ok(()), |request| check_same(&self.instance, request, router))?;
                let Some(outside) = outside else { return Ok(Some(router.clone())) };
                match bridge_of(router, &outside) {
                    Ok(Interface { mtu, gso, .. }) => {
                        Ok(Some(Router { mtu: *mtu, gso: *gso, ..router.clone() }))
                    }
                    Err(instead) => {
                        let (bridge, instance) = (router.bridge.clone(), self.instance.name().to_owned());
                        Err(Error::OutsideGone { bridge, instance, instead })
                    }
                }
            }
            (None, Some(_)) if recorded.is_some() => {
                Err(Error::NoRouter { instance: self.instance.name().to_owned() })
            }
            (None, Some(request)) => self.new_router(request, &outside.unwrap_or_default()).map(Some),
            // It has been taken down since this command found that it is one, and entered a namespace for it.
            (None, None) if outside.is_some() => Err(store::Error::not_up(&self.instance).into()),
            (None, None) => Ok(None),
        }
    }

    fn new_router(&self, request: &RouterRequest, outside: &[Interface]) -> Result<Router, Error> {
        let RouterRequest { bridge, addresses, gateways, mac } = request;
        check_outside(addresses, gateways)?;
        let bridges = outside.iter().filter(|interface| is_bridge(interface));
        let candidates = || there_are(bridges.map(|interface| &interface.name));
        let name = || bridge.clone();
        let Some(found) = outside.iter().find(|interface| interface.name == bridge.as_str()) else {
            return Err(Error::NoBridge { name: name(), candidates: candidates() });
        };
        if !is_bridge(found) {
            return Err(Error::NotABridge { name: name(), what: kind_of(found), candidates: candidates() });
        }
        let none_left = |what| Error::NoRouterNameLeft { what, instance: self.instance.name().to_owned() };
        let is_free = |name: &InterfaceName| outside.iter().all(|it| it.name != name.as_str());
        let host_interface = ours::leg_interfaces(self.instance.name()).find(is_free);
        let mac = mac.or_else(|| ours::leg_macs(self.instance.name()).next());
        let host = self.machine.origin().map_err(kernel("ask for the host's network namespace"))?;
        Ok(Router {
            // Without one there are no interfaces there, and so no bridge.
            host: host.unwrap_or_default(),
            bridge: bridge.clone(),
            host_interface: host_interface.ok_or_else(|| none_left("interface name"))?,
            ifname: Router::IFNAME.parse()?,
            mac: mac.ok_or_else(|| none_left("hardware address"))?,
            mtu: found.mtu,
            gso: found.gso,
            addresses: addresses.clone(),
            gateways: gateways.clone(),
        })
    }

    /// Takes programs from the interfaces of the namespace that a router had before: they are pinned, and some process may
    /// keep the interfaces alive, so they are not taken for those of the new one.
    pub(super) async fn leave_former_home(&self, transaction: &Transaction) -> Result<(), Error> {
        if self.mode == Mode::DryRun {
            return Ok(());
        }
        let mut resources = everything(&self.instance, transaction)?;
        resources.retain(|it| matches!(it, Resource::Attachment { .. } | Resource::Xdp { .. }));
        let observed = reconcile::observe_obsolete(&self.machine, resources).await;
        let plan = plan::plan(&[], &observed);
        let torn = reconcile::tear_down(&self.machine, &plan).await;
        torn.map_err(|failure| Error::RemovedInPart {
            what: "the router's former namespace".to_owned(),
            failure,
        })
    }

    /// Notes of a router's link what its bridge has now; says whether that is something else.
    pub(super) async fn follow_bridge(
        &self,
        transaction: &Transaction,
        settings: &mut Settings,
    ) -> Result<bool, Error> {
        let router = match self.describe_router(Some(settings), None).await {
            // The link says so when it is looked at; all else is looked at as well.
            Err(Error::OutsideGone { .. }) => return Ok(false),
            router => router?,
        };
        if router == settings.router {
            return Ok(false);
        }
        settings.router = router;
        transaction.set_settings(settings)?;
        Ok(true)
    }
}

fn is_bridge(interface: &Interface) -> bool {
    interface.kind.as_deref() == Some(BRIDGE)
}

/// What an interface is, for people.
fn kind_of(interface: &Interface) -> String {
    interface
        .kind
        .as_ref()
        .map_or_else(|| "an interface without a kind".to_owned(), |kind| format!("a {kind}"))
}

/// The bridge that a router is on, of the interfaces outside; if it is gone, what has its name now, after a comma.
pub(super) fn bridge_of<'o>(router: &Router, outside: &'o [Interface]) -> Result<&'o Interface, String> {
    match outside.iter().find(|interface| interface.name == router.bridge.as_str()) {
        Some(bridge) if is_bridge(bridge) => Ok(bridge),
        Some(other) => Err(format!(", and {} of its name is there", kind_of(other))),
        None => Err(String::new()),
    }
}

/// How a router stands, as far as its host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its namespace, its link and the bridge outside are there.
    Up,
    /// There is no namespace of its name, or that is another.
    NamespaceGone,
    /// The bridge outside is gone.
    BridgeGone,
    /// Its link to the outside is gone.
    LinkGone,
    /// One may not look.
    Unknown,
}

impl Standing {
    /// How a router stands that has its namespace or not, on a host with these interfaces; nothing is known of either that
    /// is missing.
    #[must_use]
    pub fn of(router: &Router, has_home: Option<bool>, outside: Option<&[Interface]>) -> Self {
        let (Some(has_home), Some(outside)) = (has_home, outside) else { return Self::Unknown };
        let has_link = outside.iter().any(|interface| interface.name == router.host_interface.as_str());
        match bridge_of(router, outside) {
            _ if !has_home => Self::NamespaceGone,
            Err(_) => Self::BridgeGone,
            Ok(_) if !has_link => Self::LinkGone,
            Ok(_) => Self::Up,
        }
    }

    /// It, in a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NamespaceGone => "namespace-gone",
            Self::BridgeGone => "bridge-gone",
            Self::LinkGone => "link-gone",
            Self::Unknown => "unknown",
        }
    }
}

impl Host {
    /// The host as it is once a router's link is as described.
    pub(super) fn with_leg(mut self, router: Option<&Router>) -> Self {
        let Some(router) = router else { return self };
        let link_local = router.addresses.iter().any(|net| net.addr().is_ipv6());
        let link_local = link_local.then(|| ours::link_local(router.mac));
        let link_local = link_local.and_then(|addr| IpNet::new(addr.into(), 64).ok());
        let wanted: Vec<IpNet> = router.addresses.iter().copied().chain(link_local).collect();
        let described = |index, others: Vec<IpNet>| Interface {
            index,
            name: router.ifname.to_string(),
            mac: Some(router.mac),
            mtu: router.mtu,
            gso: router.gso,
            up: true,
            kind: Some("veth".to_owned()),
            addresses: wanted.iter().copied().chain(others).collect(),
        };
        match self.interfaces.iter_mut().find(|interface| interface.name == router.ifname.as_str()) {
            Some(interface) => {
                let others = interface.addresses.iter().filter(|net| !wanted.contains(net));
                *interface = described(interface.index, others.copied().collect());
            }
            // The kernel numbers interfaces from 1.
            None => self.interfaces.push(described(0, Vec::new())),
        }
        self
    }
}

/// Checks that the router that is there is the one that is asked for. What was left to us may be anything.
fn check_same(instance: &Instance, request: &RouterRequest, router: &Router) -> Result<(), Error> {
    let list = |items: Vec<String>| items.join(" ");
    let texts = |items: &[IpNet]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut differences = Vec::new();
    if request.bridge != router.bridge {
        differences.push(format!("bridge {}", router.bridge));
    }
    let sorted = |items: &[IpNet]| {
        let mut items = items.to_vec();
        items.sort_unstable();
        items
    };
    if sorted(&request.addresses) != sorted(&router.addresses) {
        differences.push(format!("address {}", list(texts(&router.addresses))));
    }
    let sorted = |items: &[IpAddr]| {
        let mut items = items.to_vec();
        items.sort_unstable();
        items
    };
    if sorted(&request.gateways) != sorted(&router.gateways) {
        let gateways: Vec<String> = router.gateways.iter().map(ToString::to_string).collect();
        let none = gateways.is_empty();
        differences.push(if none { "no gateway".to_owned() } else { format!("gateway {}", list(gateways)) });
    }
    if request.mac.is_some_and(|mac| mac != router.mac) {
        differences.push(format!("hardware address {}", router.mac));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Differs {
        what: format!("router {}", instance.name()),
        differences: differences.join(", "),
        remove: format!("vnet router rm {}", instance.name()),
    })
}

/// The routers whose bridges are in a namespace; those that cannot be read, with the reason.
///
/// # Errors
/// When the instances cannot be listed.
pub fn routers(instance: &Instance, namespace: u64) -> Result<(Vec<Recorded>, Vec<String>), Error> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for other in instance.all().map_err(kernel("list the instances"))? {
        match recorded_router(&other) {
            Ok(recorded) => found.extend(recorded.filter(|it| it.router.host == namespace)),
            Err(error) => {
                let reason = super::reachable::in_full(&error);
                unread.push(format!("router {} is left out: {reason}", other.name()));
            }
        }
    }
    Ok((found, unread))
}
