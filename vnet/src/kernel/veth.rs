//! An endpoint's veth pair: one end a port of the network's bridge, if it has one, the other configured in the namespace.
//!
//! The pair is made by one request, in its final places and under its final names. Everything after that can be
//! done again, so a creation that was killed is finished by the next one.

use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use vnet_common::Mac;

use super::bridge;
use super::error::Error;
use super::interface::{addresses, change_error, find, gso_text, index_if_any, remove_link, require, taken};
use super::netlink::{
    Existing, Hop, Link, MAIN, Netlink, NetlinkError, NewRoute, OtherEnd, SourceRule, gso_attributes,
};
use super::netns::Namespace;
use super::sysctl::Setting;
use crate::plan::{self, BySource, State, Veth};

const KIND: &str = "veth";

/// Where the end is that is a port of a bridge.
#[derive(Clone, Copy)]
pub(super) struct Host<'a> {
    pub(super) netlink: &'a Netlink,
    /// The namespace, if it is not the calling thread's.
    pub(super) namespace: Option<&'a Namespace>,
}

/// What becomes of what somebody else has set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Addresses of the end in the namespace go, and the bridge lets through what the pair does.
    Go,
    /// All that stays as it is.
    Stay,
}

impl Host<'_> {
    fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        match self.namespace {
            Some(namespace) => namespace.within(work),
            None => work(),
        }
    }
}
/// How long an interface may take to go with its namespace: it takes half a millisecond unless the kernel is busy with
/// other namespaces.
const GOING: Duration = Duration::from_millis(10);
/// How long an interface whose name is free already may take to be gone altogether.
const LEAVING: Duration = Duration::from_millis(500);

/// How a pair stands.
pub(super) async fn state(netlink: &Netlink, veth: &Veth) -> Result<State, Error> {
    let Some(host) = find(netlink, &veth.host).await? else { return Ok(State::Absent) };
    if !host.is(KIND) {
        return Ok(State::Differs(format!("{} is a {}, not a veth", veth.host, host.description())));
    }
    let bridge = match &veth.bridge {
        Some(bridge) => find(netlink, bridge).await?,
        None => None,
    };
    if let Some(difference) = host_difference(veth, &host, bridge.as_ref()) {
        return Ok(State::Differs(difference));
    }
    let Some(namespace) = Namespace::open_if_any(&veth.namespace)? else {
        return Ok(State::Differs(format!("there is no namespace at {}", veth.namespace.display())));
    };
    let inside = namespace.netlink()?;
    let Some(end) = other_end(&inside, veth, &host).await? else {
        return Ok(State::Differs(format!(
            "its other end is not {} in {}",
            veth.ifname,
            veth.namespace.display()
        )));
    };
    let present = addresses(&inside, &end)?;
    let routes = routes(&inside, MAIN).await?;
    let mut difference = end_difference(veth, &end, &present, &routes);
    if difference.is_none() {
        difference = neighbour_difference(&inside, veth, &end).await?;
    }
    if difference.is_none() {
        difference = by_source_difference(&inside, veth, &end).await?;
    }
    Ok(difference.map_or(State::Present, State::Differs))
}

/// Whether both ends are there, one of them under its name in its namespace.
pub(super) async fn is_whole(netlink: &Netlink, veth: &Veth) -> Result<bool, Error> {
    let Some(host) = find(netlink, &veth.host).await? else { return Ok(false) };
    let Some(namespace) = Namespace::open_if_any(&veth.namespace)? else { return Ok(false) };
    Ok(host.is(KIND) && other_end(&namespace.netlink()?, veth, &host).await?.is_some())
}

fn host_difference(veth: &Veth, host: &Link, bridge: Option<&Link>) -> Option<String> {
    if let Some(name) = &veth.bridge
        && (bridge.is_none() || host.master != bridge.map(|bridge| bridge.index))
    {
        return Some(format!("{} is not in {name}", veth.host));
    }
    if veth.bridge.is_none() && host.master.is_some() {
        return Some(format!("{} is a port of somebody's bridge", veth.host));
    }
    if host.mtu != veth.mtu {
        return Some(format!("mtu of {} is {}, not {}", veth.host, host.mtu, veth.mtu));
    }
    if let Some(difference) = gso_difference(veth, host) {
        return Some(difference);
    }
    (!host.up).then(|| format!("{} is down", veth.host))
}

fn end_difference(veth: &Veth, end: &Link, present: &[IpNet], routes: &[Hop]) -> Option<String> {
    if end.mac != Some(veth.mac) {
        return Some(format!("{} has not the hardware address {}", veth.ifname, veth.mac));
    }
    if end.mtu != veth.mtu {
        return Some(format!("mtu of {} is {}, not {}", veth.ifname, end.mtu, veth.mtu));
    }
    if let Some(difference) = gso_difference(veth, end) {
        return Some(difference);
    }
    if !end.up {
        return Some(format!("{} is down", veth.ifname));
    }
    if let Some(difference) = parameter_difference(veth, end) {
        return Some(difference);
    }
    if let Some(missing) = veth.addresses.iter().find(|wanted| !present.contains(wanted)) {
        return Some(format!("{} has not the address {missing}", veth.ifname));
    }
    let missing = main_routes(veth).find(|wanted| !routes.iter().any(|route| is(route, wanted, end)));
    missing.map(|route| format!("there is no route to {}", text(&route)))
}

/// Which neighbour's hardware address the namespace has not been told.
async fn neighbour_difference(inside: &Netlink, veth: &Veth, end: &Link) -> Result<Option<String>, Error> {
    if veth.neighbours.is_empty() {
        return Ok(None);
    }
    let given = inside.given_neighbours(end.index).await;
    let given = given.map_err(|source| Error::ReadInterface { interface: veth.ifname.clone(), source })?;
    let missing = veth.neighbours.iter().find(|wanted| !given.contains(wanted));
    Ok(missing.map(|(addr, mac)| format!("{} is not told that {addr} has {mac}", veth.ifname)))
}

/// How what is sent from the addresses of the link differs from what is wanted.
async fn by_source_difference(inside: &Netlink, veth: &Veth, end: &Link) -> Result<Option<String>, Error> {
    let Some(by_source) = &veth.by_source else { return Ok(None) };
    let BySource { table, sources, routes: wanted } = by_source;
    let rules = source_rules(inside, *table).await?;
    if let Some(missing) = sources.iter().find(|source| !rules.iter().any(|rule| rule.source == **source)) {
        return Ok(Some(format!("there is no rule for what is sent from {missing}")));
    }
    if let Some(rule) = rules.iter().find(|rule| !sources.contains(&rule.source)) {
        return Ok(Some(format!("there is a rule for what is sent from {}", rule.source)));
    }
    let present = routes(inside, *table).await?;
    let missing = wanted.iter().find(|wanted| !present.iter().any(|route| is(route, wanted, end)));
    Ok(missing.map(|route| format!("there is no route to {} in table {table}", text(route))))
}

/// The routes of the main table that lead by the link: those to neighbours, by which others lead, then the default ones.
fn main_routes(veth: &Veth) -> impl Iterator<Item = plan::Hop> {
    let default = |gateway: &IpAddr| {
        let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        // No prefix is shorter than 0.
        let destination = IpNet::new(any, 0).unwrap_or_else(|_| IpNet::from(any));
        plan::Hop { destination, gateway: Some(*gateway) }
    };
    let (to_neighbours, by_routers): (Vec<_>, Vec<_>) =
        veth.routes.iter().copied().partition(|route| route.gateway.is_none());
    to_neighbours.into_iter().chain(veth.gateways.iter().map(default)).chain(by_routers)
}

/// Whether a route is the one that is wanted.
fn is(route: &Hop, wanted: &plan::Hop, end: &Link) -> bool {
    route.destination == wanted.destination
        && route.gateway == wanted.gateway
        && route.index == Some(end.index)
}

fn text(route: &plan::Hop) -> String {
    let by = route.gateway.map(|gateway| format!(" by {gateway}")).unwrap_or_default();
    format!("{}{by}", route.destination)
}

fn gso_difference(veth: &Veth, link: &Link) -> Option<String> {
    let differ = link.gso != veth.gso;
    differ
        .then(|| format!("{} is handed up to {}, not {}", link.name, gso_text(link.gso), gso_text(veth.gso)))
}

/// Makes the pair, or brings it to its description.
pub(super) async fn create(at: Host<'_>, veth: &Veth, others: Others) -> Result<(), Error> {
    let netlink = at.netlink;
    let bridge = match &veth.bridge {
        Some(bridge) => Some(require(netlink, bridge).await?),
        None => None,
    };
    let index = bridge.as_ref().map(|bridge| bridge.index);
    let namespace = Namespace::open(&veth.namespace)?;
    let inside = namespace.netlink()?;
    let end = match existing(netlink, &inside, veth).await? {
        Some((host, end)) => {
            // The bridge of number 0 is none.
            let controller = LinkAttribute::Controller(index.unwrap_or(0));
            let mut attributes = vec![LinkAttribute::Mtu(veth.mtu), controller];
            attributes.extend(gso_attributes(host.gso, veth.gso));
            let changed = netlink.set_up(host.index, attributes).await;
            let place = if at.namespace.is_some() { "the router's own host" } else { "the host" };
            changed.map_err(|source| change_error(&veth.host, place, source))?;
            // Below 1280 bytes an interface has no IPv6, and so no parameters of it.
            if end.mtu < veth.mtu {
                let raised = inside.set_up(end.index, vec![LinkAttribute::Mtu(veth.mtu)]).await;
                raised.map_err(|source| {
                    change_error(&veth.ifname, &veth.namespace.display().to_string(), source)
                })?;
            }
            end
        }
        None => {
            let mac = (others == Others::Stay).then(|| modest(veth.mac));
            make((netlink, mac), &inside, veth, (index, &namespace)).await?
        }
    };
    let hindered = |bridge: &Link| others == Others::Go && bridge.gso != veth.gso;
    if let Some(bridge) = bridge.filter(hindered) {
        bridge::let_through(netlink, &bridge.name, veth.gso).await?;
    }
    // The end on the host is a port and no more. Its other end is down as yet if it is new, so it has no address.
    at.within(|| Setting::v6(&veth.host, "disable_ipv6", "1").apply())?;
    namespace.within(|| settings(veth).iter().try_for_each(Setting::apply))?;
    configure(&inside, veth, &end, others).await
}

/// Removes the pair. If its namespace has just been removed, the kernel does that by itself, and sooner than it would
/// answer a request to: it makes those wait until every processor has forgotten the interface.
pub(super) async fn remove(netlink: &Netlink, veth: &Veth) -> Result<(), Error> {
    if let Some(by_source) = &veth.by_source
        && let Some(namespace) = Namespace::open_if_any(&veth.namespace)?
    {
        // Routes go with the interface, rules do not.
        keep_rules(&namespace.netlink()?, by_source.table, &[]).await?;
    }
    if Namespace::open_if_any(&veth.namespace)?.is_none() && goes_away(netlink, &veth.host)? {
        return Ok(());
    }
    // Somebody has the namespace open, or lives in it.
    remove_link(netlink, &veth.host, KIND).await
}

/// Waits for an interface to go, for as long as that is worth it; says whether it has gone.
fn goes_away(netlink: &Netlink, interface: &str) -> Result<bool, Error> {
    let begin = Instant::now();
    while index_if_any(netlink, interface)?.is_some() {
        if begin.elapsed() > GOING {
            return Ok(false);
        }
        // The runtime's clock counts milliseconds, and nothing else is under way in it.
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(true)
}

/// Both ends, if the pair is where it should be. A pair that is not is removed: its other end has been renamed
/// or moved, and cannot be found from here.
async fn existing(netlink: &Netlink, inside: &Netlink, veth: &Veth) -> Result<Option<(Link, Link)>, Error> {
    let Some(host) = find(netlink, &veth.host).await? else { return Ok(None) };
    if !host.is(KIND) {
        return Err(taken(&veth.host, &host, KIND));
    }
    if let Some(end) = other_end(inside, veth, &host).await? {
        return Ok(Some((host, end)));
    }
    remove(netlink, veth).await?;
    Ok(None)
}

async fn make(
    (netlink, mac): (&Netlink, Option<Mac>),
    inside: &Netlink,
    veth: &Veth,
    (bridge, namespace): (Option<u32>, &Namespace),
) -> Result<Link, Error> {
    if let Some(other) = find(inside, &veth.ifname).await? {
        return Err(Error::NameInNamespaceTaken {
            interface: veth.ifname.clone(),
            kind: other.description().to_owned(),
            namespace: namespace.path().to_owned(),
        });
    }
    let other = OtherEnd { name: &veth.ifname, mac: veth.mac, namespace: namespace.as_raw_fd() };
    let begin = Instant::now();
    let made = loop {
        let made = netlink.create_veth((&veth.host, mac), bridge, (veth.mtu, veth.gso), &other).await;
        // One of that name that has just gone with its namespace may have left its place in sysfs as yet.
        let is_leaving = made.as_ref().is_err_and(|error| error.is(nix::libc::EEXIST))
            && index_if_any(netlink, &veth.host)?.is_none();
        if !is_leaving || begin.elapsed() > LEAVING {
            break made;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    made.map_err(|source| match &veth.bridge {
        Some(bridge) if source.is(nix::libc::EXFULL) => Error::BridgeFull { bridge: bridge.clone() },
        _ => Error::MakeInterface { interface: veth.host.clone(), source },
    })?;
    require(inside, &veth.ifname).await
}

/// A hardware address for the end that is a port, after that of the other end: a bridge to which nobody has given one has
/// the lowest of its ports', which is hardly this one, so that those who know the bridge go on doing so.
fn modest(Mac { bytes: [_, second, rest @ ..] }: Mac) -> Mac {
    let [a, b, c, d] = rest;
    Mac::new([0xfe, !second, a, b, c, d])
}

/// Parameters of IPv6 of the end in the namespace, whose addresses are vnet's business alone.
fn parameters(veth: &Veth) -> &'static [(&'static str, &'static str)] {
    if !veth.addresses.iter().any(|address| matches!(address, IpNet::V6(_))) {
        return &[("disable_ipv6", "1")];
    }
    &[
        // The link-local address is the one that follows from the hardware address: vnet counts on it.
        ("addr_gen_mode", "0"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        // Last: where IPv6 was off, the kernel makes the link-local address now, by the settings above.
        ("disable_ipv6", "0"),
    ]
}

fn settings(veth: &Veth) -> Vec<Setting> {
    parameters(veth).iter().map(|(name, value)| Setting::v6(&veth.ifname, name, value)).collect()
}

/// Which parameter is another, as the kernel tells with the interface. Without IPv6 there are none.
fn parameter_difference(veth: &Veth, end: &Link) -> Option<String> {
    let present = end.v6?;
    parameters(veth).iter().find_map(|(name, wanted)| {
        let found = present.get(name).filter(|found| found.to_string() != *wanted)?;
        Some(format!("{name} of {} is {found}, not {wanted}", veth.ifname))
    })
}

/// Gives the end in the namespace its addresses and routes.
async fn configure(inside: &Netlink, veth: &Veth, end: &Link, others: Others) -> Result<(), Error> {
    let failed =
        |address: IpNet| move |source| Error::Address { address, interface: veth.ifname.clone(), source };
    let present = addresses(inside, end)?;
    // What is not wanted goes first: the kernel drops an interface's other addresses of a subnet with the first.
    let unwanted = present.iter().filter(|address| !veth.addresses.contains(address));
    for address in unwanted.filter(|_| others == Others::Go) {
        inside.delete_address(end.index, *address).await.map_err(failed(*address))?;
    }
    for address in &veth.addresses {
        inside.add_address(end.index, *address).await.map_err(failed(*address))?;
    }
    let mut attributes = vec![LinkAttribute::Mtu(veth.mtu)];
    attributes.extend(gso_attributes(end.gso, veth.gso));
    if end.mac != Some(veth.mac) {
        attributes.push(LinkAttribute::Address(veth.mac.bytes.to_vec()));
    }
    let place = veth.namespace.display().to_string();
    let up = inside.set_up(end.index, attributes).await;
    up.map_err(|source| change_error(&veth.ifname, &place, source))?;
    // The kernel forgets neighbours, and takes no route, by an interface that is down.
    for (addr, mac) in &veth.neighbours {
        let given = inside.give_neighbour(end.index, *addr, *mac).await;
        given.map_err(|source| change_error(&veth.ifname, &place, source))?;
    }
    for route in main_routes(veth) {
        add_main_route(inside, veth, end, &route).await?;
    }
    match &veth.by_source {
        Some(by_source) => route_by_source(inside, end, by_source).await,
        None => Ok(()),
    }
}

/// Makes a route of the main table, in place of an older one of the same interface, and a default route in place of one
/// by another link of the same endpoint, but of nobody else's.
async fn add_main_route(inside: &Netlink, veth: &Veth, end: &Link, wanted: &plan::Hop) -> Result<(), Error> {
    let plan::Hop { destination, gateway } = *wanted;
    let route = NewRoute { table: MAIN, destination, index: end.index, gateway };
    let failed = |source| Error::Route { route: text(wanted), namespace: veth.namespace.clone(), source };
    match inside.add_route(&route, Existing::Keep).await {
        Err(error) if error.is(nix::libc::EEXIST) => {}
        done => return done.map_err(failed),
    }
    let others = routes(inside, MAIN).await?;
    let mut others = others.iter().filter(|route| route.destination == destination);
    if others.clone().any(|route| is(route, wanted, end)) {
        return Ok(());
    }
    let mut own = vec![end.index];
    if destination.prefix_len() == 0 {
        for sibling in &veth.siblings {
            own.extend(find(inside, sibling).await?.map(|link| link.index));
        }
    }
    if others.any(|route| route.index.is_some_and(|index| own.contains(&index))) {
        return inside.add_route(&route, Existing::Replace).await.map_err(failed);
    }
    Err(Error::RouteTaken { route: text(wanted), namespace: veth.namespace.clone() })
}

/// Fills the table of a link, then has what is sent from its addresses go by it; in the other order where nothing is.
async fn route_by_source(inside: &Netlink, end: &Link, by_source: &BySource) -> Result<(), Error> {
    let BySource { table, sources, routes: wanted } = by_source;
    let failed = |source| Error::BySource { table: *table, source };
    if sources.is_empty() {
        keep_rules(inside, *table, sources).await?;
    }
    for plan::Hop { destination, gateway } in wanted.iter().copied() {
        let route = NewRoute { table: *table, destination, index: end.index, gateway };
        inside.add_route(&route, Existing::Replace).await.map_err(failed)?;
    }
    let is_wanted = |route: &Hop| wanted.iter().any(|wanted| is(route, wanted, end));
    for Hop { destination, index, gateway, .. } in routes(inside, *table).await? {
        let index = index.unwrap_or(end.index);
        let route = NewRoute { table: *table, destination, index, gateway };
        if !is_wanted(&Hop { destination, index: Some(index), gateway, metric: 0 }) {
            inside.delete_route(&route).await.map_err(failed)?;
        }
    }
    keep_rules(inside, *table, sources).await
}

/// Has exactly these addresses routed by a table.
async fn keep_rules(inside: &Netlink, table: u32, sources: &[IpAddr]) -> Result<(), Error> {
    let failed = |source| Error::BySource { table, source };
    for source in sources {
        inside.add_rule(SourceRule { source: *source, table }).await.map_err(failed)?;
    }
    for rule in source_rules(inside, table).await? {
        if !sources.contains(&rule.source) {
            inside.delete_rule(rule).await.map_err(failed)?;
        }
    }
    Ok(())
}

async fn source_rules(inside: &Netlink, table: u32) -> Result<Vec<SourceRule>, Error> {
    inside.source_rules(table).await.map_err(|source: NetlinkError| Error::BySource { table, source })
}

async fn routes(inside: &Netlink, table: u32) -> Result<Vec<Hop>, Error> {
    inside.hops_of(table).await.map_err(|source| Error::ReadRoutes { source })
}

/// The end in the namespace, if it is there under its name.
async fn other_end(inside: &Netlink, veth: &Veth, host: &Link) -> Result<Option<Link>, Error> {
    let end = find(inside, &veth.ifname).await?;
    Ok(end
        .filter(|end| end.is(KIND) && end.other_end == Some(host.index) && host.other_end == Some(end.index)))
}
