//! A machine in memory that minds the order of things as the kernel does, and fails where a test says.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use ipnet::IpNet;
use vnet_common::{CtEntry, DatapathConfig, Mac, Proto, Tuple};

use super::Machine;
use crate::firewall::Netfilter;
use crate::flow::{self, Counted, Room, Stats, Tables};
use crate::kernel::{Addressed, BoundSocket, Environment, Interface, Process, Route};
use crate::plan::{self, Cgroup, Direct, GsoSizes, Op, Pacing, Resource, Shaper, State, Veth};

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing.
    Before,
    /// It does everything, and fails all the same.
    After,
    /// It does nothing, and neither does any step after it: the command was killed.
    Killed,
}

/// A machine in memory.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) present: RefCell<Vec<Resource>>,
    pub(crate) host: RefCell<Vec<Interface>>,
    pub(crate) routes: RefCell<Vec<Route>>,
    pub(crate) flows: RefCell<Vec<(Tuple, CtEntry)>>,
    pub(crate) sockets: RefCell<Vec<(Proto, BoundSocket)>>,
    pub(crate) namespace: Cell<u64>,
    /// The number of the namespace that it was entered from, and the interfaces there.
    pub(crate) origin: Cell<Option<u64>>,
    pub(crate) outside: RefCell<Option<Vec<Interface>>>,
    /// The host's own firewall; `None` if it cannot be read.
    pub(crate) netfilter: RefCell<Option<Netfilter>>,
    /// What of the machine matters besides.
    pub(crate) environment: RefCell<Environment>,
    /// Fragments have nowhere to wait.
    pub(crate) no_hold: Cell<bool>,
    /// How what limited cgroups send waits.
    pub(crate) pacing: Cell<Option<Pacing>>,
    /// How often it was asked or told something, by what.
    calls: RefCell<BTreeMap<&'static str, usize>>,
    fault: Cell<Option<(usize, Fault)>>,
    steps: Cell<usize>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FakeError(String);

impl Fake {
    /// A host with a loopback, an uplink with a default route, and nothing of vnet.
    pub(crate) fn host() -> Self {
        let fake = Self::default();
        *fake.host.borrow_mut() = vec![
            interface(1, "lo", None, &["127.0.0.1/8", "::1/128"]),
            interface(2, "eth0", Some(1), &["203.0.113.1/24", "2001:db8::1/64"]),
            interface(3, "eth1", Some(2), &["198.51.100.1/24"]),
        ];
        *fake.netfilter.borrow_mut() = Some(Netfilter::default());
        fake.environment.borrow_mut().forwards_v6 = true;
        fake.pacing.set(Some(Pacing::Fq));
        *fake.routes.borrow_mut() = vec![route("0.0.0.0/0", "eth0"), route("203.0.113.0/24", "eth0")];
        fake
    }

    /// Makes the `n`th step from now on fail, counted from 0.
    pub(crate) fn fail_at(&self, n: usize, fault: Fault) {
        self.steps.set(0);
        self.fault.set(Some((n, fault)));
    }

    /// How often it was asked or told something since the last time, by what.
    pub(crate) fn take_calls(&self) -> BTreeMap<&'static str, usize> {
        self.calls.take()
    }

    fn called(&self, what: &'static str) {
        *self.calls.borrow_mut().entry(what).or_default() += 1;
    }

    pub(crate) fn heal(&self) {
        self.fault.set(None);
    }

    /// What is there, in an order that does not depend on how it came about.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let mut present: Vec<String> =
            self.present.borrow().iter().map(|resource| format!("{resource:?}")).collect();
        present.sort();
        present
    }

    fn find(&self, resource: &Resource) -> Option<Resource> {
        self.present.borrow().iter().find(|other| other.same_identity(resource)).cloned()
    }

    fn act(&self, op: &Op) -> Result<(), FakeError> {
        match op {
            Op::Create(resource) | Op::Change(resource) => {
                if let Some(missing) = self.missing(resource) {
                    return Err(FakeError(format!("{resource} needs {missing}")));
                }
                let mut present = self.present.borrow_mut();
                present.retain(|other| !other.same_identity(resource));
                present.push(as_it_is(resource));
            }
            Op::Remove(Resource::DataPath(_)) => self.present.borrow_mut().retain(|resource| {
                !(resource.is_map_entry()
                    || matches!(
                        resource,
                        Resource::DataPath(_) | Resource::Attachment { .. } | Resource::Xdp { .. }
                    ))
            }),
            Op::Remove(Resource::Veth(veth)) => self.present.borrow_mut().retain(|other| match other {
                Resource::Veth(other) => other.host != veth.host,
                // It goes with its interface.
                Resource::Limit(Shaper { interface, namespace, .. }) => match namespace {
                    Some(namespace) => *namespace != veth.namespace || *interface != veth.ifname,
                    None => *interface != veth.host,
                },
                _ => true,
            }),
            Op::Remove(Resource::Leg(veth)) => self.present.borrow_mut().retain(|other| match other {
                Resource::Leg(_) => false,
                Resource::ExternalAddress { interface, .. } => *interface != veth.ifname,
                _ => true,
            }),
            Op::Remove(resource) => self.present.borrow_mut().retain(|other| !other.same_identity(resource)),
        }
        Ok(())
    }

    /// What a resource needs and has not got.
    fn missing(&self, resource: &Resource) -> Option<String> {
        let has = |test: &dyn Fn(&Resource) -> bool| self.present.borrow().iter().any(test);
        let needs_data_path =
            resource.is_map_entry() || matches!(resource, Resource::Attachment { .. } | Resource::Xdp { .. });
        if needs_data_path && !has(&|other| matches!(other, Resource::DataPath(_))) {
            return Some("maps and programs".to_owned());
        }
        let has_interface = |wanted: &str| {
            let made = |other: &Resource| match other {
                Resource::Bridge { name, far_end, .. } => {
                    name == wanted || far_end.as_deref() == Some(wanted)
                }
                Resource::Veth(veth) => veth.host == wanted,
                Resource::Leg(veth) => veth.ifname == wanted,
                Resource::Hold { entrance, exit } => entrance == wanted || exit == wanted,
                _ => false,
            };
            has(&made) || self.host.borrow().iter().any(|interface| interface.name == wanted)
        };
        let interfaces: Vec<&str> = match resource {
            Resource::Attachment { interface, .. }
            | Resource::Xdp { interface, .. }
            | Resource::Uplink { interface }
            | Resource::Forwarding { interface }
            | Resource::ExternalAddress { interface, .. }
            | Resource::HostAddress { interface, .. } => vec![interface],
            Resource::Network { bridge, .. } => vec![bridge],
            Resource::Config { hold: Some(hold), .. } => vec![hold],
            Resource::Endpoint { interface, bridge, .. } => vec![interface, bridge],
            Resource::Veth(veth) => veth.bridge.iter().map(String::as_str).collect(),
            Resource::Limit(Shaper { interface, namespace: None, .. })
            | Resource::Queue(plan::Queue { interface, .. }) => vec![interface],
            _ => Vec::new(),
        };
        if let Some(missing) = interfaces.into_iter().find(|name| !has_interface(name)) {
            return Some(format!("interface {missing}"));
        }
        let missing_namespace = |path: &Path| {
            let name = path.strip_prefix("/run/netns").ok()?.to_str()?;
            let there = has(&|other| matches!(other, Resource::Namespace { name: made } if made == name));
            (!there).then(|| format!("namespace {name}"))
        };
        if let Resource::Leg(link) = resource {
            let is_home = |other: &Resource| matches!(other, Resource::Home { .. });
            let outside = self.outside.borrow();
            let bridge =
                outside.iter().flatten().any(|interface| Some(&interface.name) == link.bridge.as_ref());
            return (!has(&is_home) || !bridge)
                .then(|| "a namespace with a name, and the bridge outside".to_owned());
        }
        if let Resource::Direct(Direct { ends, .. }) = resource {
            return ends.iter().find_map(|end| missing_namespace(&end.namespace));
        }
        let Resource::Veth(veth) = resource else { return None };
        let same_name = |other: &Resource| match other {
            Resource::Veth(other) => {
                other.namespace == veth.namespace && other.ifname == veth.ifname && other.host != veth.host
            }
            _ => false,
        };
        if has(&same_name) {
            return Some(format!("the name {}, which another interface has", veth.ifname));
        }
        // No two default routes of a family, but in place of another by a link of the same endpoint.
        let clashes = |other: &Resource| match other {
            Resource::Veth(other) => {
                let same_family = |gateway: &IpAddr| {
                    other.gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4())
                };
                other.namespace == veth.namespace
                    && other.host != veth.host
                    && veth.gateways.iter().any(same_family)
                    && !veth.siblings.contains(&other.ifname)
            }
            _ => false,
        };
        if has(&clashes) {
            return Some("the default route, which is by another interface".to_owned());
        }
        missing_namespace(&veth.namespace)
    }
}

impl Machine for Fake {
    type Error = FakeError;

    async fn state(&self, resource: &Resource) -> Result<State, FakeError> {
        self.called("state");
        Ok(match self.find(resource) {
            None => State::Absent,
            Some(other) if other == as_it_is(resource) => State::Present,
            Some(other) => State::Differs(format!("it is {other}")),
        })
    }

    async fn apply(&self, op: &Op) -> Result<(), FakeError> {
        self.called("apply");
        let step = self.steps.replace(self.steps.get() + 1);
        match self.fault.get() {
            Some((n, Fault::Before)) if n == step => {}
            Some((n, Fault::Killed)) if n <= step => {}
            Some((n, Fault::After)) if n == step => self.act(op)?,
            _ => return self.act(op),
        }
        Err(FakeError("as the test said".to_owned()))
    }

    async fn interfaces(&self) -> Result<Vec<Interface>, FakeError> {
        self.called("interfaces");
        let mut interfaces = self.host.borrow().clone();
        for (resource, index) in self.present.borrow().iter().zip(100..) {
            match resource {
                Resource::Bridge { name, addresses, .. } => {
                    let addresses: Vec<String> = addresses.iter().map(IpNet::to_string).collect();
                    let addresses: Vec<&str> =
                        addresses.iter().map(String::as_str).chain(["fe80::77/64"]).collect();
                    interfaces.push(interface(index, name, Some(3), &addresses));
                }
                Resource::Veth(veth) => {
                    interfaces.push(interface(index, &veth.host, Some(4), &["fe80::78/64"]));
                }
                Resource::Leg(veth) => {
                    let own = veth.addresses.iter().map(IpNet::to_string).collect::<Vec<_>>();
                    let own: Vec<&str> = own.iter().map(String::as_str).collect();
                    let mut leg =
                        Interface { mtu: veth.mtu, ..interface(index, &veth.ifname, Some(5), &own) };
                    leg.addresses.extend(self.present.borrow().iter().filter_map(|it| match it {
                        Resource::ExternalAddress { address, .. } => Some(*address),
                        _ => None,
                    }));
                    interfaces.push(leg);
                }
                _ => {}
            }
        }
        Ok(interfaces)
    }

    async fn addressed(&self, _named: &[&str]) -> Result<Vec<Addressed>, FakeError> {
        self.called("addressed");
        Ok(self.interfaces().await?.iter().map(Addressed::from).collect())
    }

    async fn has_interface(&self, name: &str) -> Result<bool, FakeError> {
        self.called("has_interface");
        Ok(self.interfaces().await?.iter().any(|interface| interface.name == name))
    }

    async fn routes(&self) -> Result<Vec<Route>, FakeError> {
        self.called("routes");
        Ok(self.routes.borrow().clone())
    }

    fn netfilter(&self) -> Result<Netfilter, FakeError> {
        self.called("netfilter");
        self.netfilter.borrow().clone().ok_or_else(|| FakeError("no rules for you".to_owned()))
    }

    fn flow_tables(&self) -> Result<Tables, FakeError> {
        self.called("flow_tables");
        Ok(Tables { confirmed: self.flows.borrow().iter().copied().collect(), ..Tables::default() })
    }

    fn flow_stats(&self, _endpoints: &[(String, Vec<IpAddr>)], room: Room) -> Result<Stats, FakeError> {
        self.called("flow_stats");
        let flows = flow::pair(&self.flow_tables()?);
        let mappings = HashMap::new();
        let counted = Counted { flows: &flows, mappings: &mappings, fragments: 0, endpoints: &[], room };
        Ok(Stats::count(&counted, &DatapathConfig::DEFAULT, 0))
    }

    fn environment(&self) -> Result<Environment, FakeError> {
        Ok(self.environment.borrow().clone())
    }

    fn forget_flows(&self, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, FakeError> {
        self.called("forget_flows");
        let mut flows = self.flows.borrow_mut();
        let before = flows.len();
        flows.retain(|(tuple, entry)| !doomed(tuple, entry));
        Ok(before - flows.len())
    }

    fn bound_sockets(&self, proto: Proto, ports: RangeInclusive<u16>) -> Result<Vec<BoundSocket>, FakeError> {
        self.called("bound_sockets");
        let sockets = self.sockets.borrow();
        let held = sockets.iter().filter(|(of, socket)| *of == proto && ports.contains(&socket.port));
        Ok(held.map(|(_, socket)| socket.clone()).collect())
    }

    fn holder_of(&self, socket: &BoundSocket) -> Option<Process> {
        self.called("holder_of");
        (socket.inode != 0).then(|| Process { name: "nginx".to_owned(), pid: 123 })
    }

    async fn is_whole(&self, veth: &Veth) -> Result<bool, FakeError> {
        self.called("is_whole");
        Ok(self.find(&Resource::Veth(veth.clone())).is_some())
    }

    async fn can_hold_fragments(&self) -> Result<bool, FakeError> {
        self.called("can_hold_fragments");
        Ok(!self.no_hold.get())
    }

    async fn pacing(&self) -> Result<Option<Pacing>, FakeError> {
        Ok(self.pacing.get())
    }

    fn cgroup(&self, asked: Cgroup) -> Result<Cgroup, FakeError> {
        Ok(match asked {
            Cgroup::Path(path) => Cgroup::Path(path.below(Path::new("/sys/fs/cgroup"))),
            class @ Cgroup::ClassId(_) => class,
        })
    }

    fn has_cgroup(&self, asked: &Cgroup) -> Result<bool, FakeError> {
        Ok(!asked.to_string().starts_with("/nowhere"))
    }

    fn check_namespace(&self, path: &Path) -> Result<(), FakeError> {
        if path.starts_with("/nowhere") {
            Err(FakeError(format!("nothing at {}", path.display())))
        } else {
            Ok(())
        }
    }

    fn has_ipv6(&self) -> bool {
        true
    }

    async fn outside(&self) -> Result<Option<Vec<Interface>>, FakeError> {
        Ok(self.outside.borrow().clone())
    }

    fn origin(&self) -> Result<Option<u64>, FakeError> {
        Ok(self.origin.get())
    }

    fn namespace(&self) -> Result<u64, FakeError> {
        Ok(self.namespace.get())
    }
}

/// The machine outlives the commands that a test gives it.
impl Machine for &Fake {
    type Error = FakeError;

    async fn state(&self, resource: &Resource) -> Result<State, FakeError> {
        (**self).state(resource).await
    }

    async fn apply(&self, op: &Op) -> Result<(), FakeError> {
        (**self).apply(op).await
    }

    async fn interfaces(&self) -> Result<Vec<Interface>, FakeError> {
        (**self).interfaces().await
    }

    async fn addressed(&self, named: &[&str]) -> Result<Vec<Addressed>, FakeError> {
        (**self).addressed(named).await
    }

    async fn has_interface(&self, name: &str) -> Result<bool, FakeError> {
        (**self).has_interface(name).await
    }

    async fn routes(&self) -> Result<Vec<Route>, FakeError> {
        (**self).routes().await
    }

    fn netfilter(&self) -> Result<Netfilter, FakeError> {
        (**self).netfilter()
    }

    fn flow_tables(&self) -> Result<Tables, FakeError> {
        (**self).flow_tables()
    }

    fn flow_stats(&self, endpoints: &[(String, Vec<IpAddr>)], room: Room) -> Result<Stats, FakeError> {
        (**self).flow_stats(endpoints, room)
    }

    fn environment(&self) -> Result<Environment, FakeError> {
        (**self).environment()
    }

    fn forget_flows(&self, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, FakeError> {
        (**self).forget_flows(doomed)
    }

    fn bound_sockets(&self, proto: Proto, ports: RangeInclusive<u16>) -> Result<Vec<BoundSocket>, FakeError> {
        (**self).bound_sockets(proto, ports)
    }

    fn holder_of(&self, socket: &BoundSocket) -> Option<Process> {
        (**self).holder_of(socket)
    }

    async fn is_whole(&self, veth: &Veth) -> Result<bool, FakeError> {
        (**self).is_whole(veth).await
    }

    async fn can_hold_fragments(&self) -> Result<bool, FakeError> {
        (**self).can_hold_fragments().await
    }

    async fn pacing(&self) -> Result<Option<Pacing>, FakeError> {
        (**self).pacing().await
    }

    fn cgroup(&self, asked: Cgroup) -> Result<Cgroup, FakeError> {
        (**self).cgroup(asked)
    }

    fn has_cgroup(&self, asked: &Cgroup) -> Result<bool, FakeError> {
        (**self).has_cgroup(asked)
    }

    fn check_namespace(&self, path: &Path) -> Result<(), FakeError> {
        (**self).check_namespace(path)
    }

    fn has_ipv6(&self) -> bool {
        (**self).has_ipv6()
    }

    async fn outside(&self) -> Result<Option<Vec<Interface>>, FakeError> {
        (**self).outside().await
    }

    fn origin(&self) -> Result<Option<u64>, FakeError> {
        (**self).origin()
    }

    fn namespace(&self) -> Result<u64, FakeError> {
        (**self).namespace()
    }
}

/// A resource without what says only how to come there.
fn as_it_is(resource: &Resource) -> Resource {
    match resource {
        Resource::Veth(veth) => Resource::Veth(Veth { siblings: Vec::new(), ..veth.clone() }),
        other => other.clone(),
    }
}

pub(crate) fn interface(index: u32, name: &str, mac: Option<u8>, addresses: &[&str]) -> Interface {
    Interface {
        index,
        name: name.to_owned(),
        mac: mac.map(|last| Mac::new([2, 0, 0, 0, 0, last])),
        mtu: 1500,
        gso: GsoSizes::LEGACY,
        up: true,
        kind: None,
        addresses: addresses.iter().map(|text| text.parse().expect("a prefix")).collect(),
    }
}

pub(crate) fn route(destination: &str, interface: &str) -> Route {
    let gateway = Some(IpAddr::from([203, 0, 113, 2]));
    let destination = destination.parse().expect("a prefix");
    Route { destination, interface: Some(interface.to_owned()), gateway, metric: 0 }
}
