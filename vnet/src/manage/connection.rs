//! Links of endpoints that are there already: connected and disconnected while their processes go on.

use super::endpoint::{NotedEndpoint, Terms, family, link_differences};
use super::going::leftovers;
use super::{Claim, Done, Error, Manager, Mode, Place, Steps, kernel};
use crate::plan::{Op, Resource, expand};
use crate::reconcile::Machine;
use crate::spec::{Endpoint, Floating, Going, Limits, Link, Name, Network, Networks, PortMap};
use crate::store::Transaction;

/// An endpoint to connect to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The endpoint.
    pub endpoint: Name,
    /// Its place on the network.
    pub place: Place,
    /// Whether its default routes are to lead by this link from now on.
    pub default_route: bool,
}

/// A link that is gone, and what has gone with it.
#[derive(Clone, Debug)]
pub struct Disconnected {
    /// The endpoint, without the link.
    pub endpoint: Endpoint,
    /// The link.
    pub link: Link,
    /// The ports published for its addresses.
    pub mappings: Vec<PortMap>,
    /// The floating addresses of its addresses.
    pub floating: Vec<Floating>,
}

impl<M: Machine> Manager<M> {
    /// Links an endpoint that is there to one more network, or has its default routes lead by another of its links.
    ///
    /// # Errors
    /// When it clashes with what is there, or the endpoint is linked to the network otherwise.
    pub async fn connect(&self, request: &ConnectRequest) -> Result<Done<Endpoint>, Error> {
        let ConnectRequest { endpoint: name, place, default_route } = request;
        let (transaction, _) = self.begin_settled().await?;
        let before = self.linkable(&transaction, name)?;
        self.existing_network(&transaction, &place.network)?;
        let mut place = place.clone();
        if let Some(link) = before.link_to(&place.network) {
            // Where the default routes lead is another matter than the routes that the link has.
            if *default_route && place.routes.is_empty() {
                place.routes.clone_from(&link.routes);
            }
            check_same_link(&before, &place, link)?;
        }
        // This link may not be there yet: the command that noted it may not have lived to make it.
        let others: Vec<Link> =
            before.links.iter().filter(|link| link.network != place.network).cloned().collect();
        if self.present(&others).await?.len() < others.len() {
            return Err(Error::NotThere { endpoint: name.clone() });
        }
        let first = default_route.then_some(&place.network);
        let places = std::slice::from_ref(&place);
        let endpoint = self.note_links(&transaction, before.clone(), places, (first, Terms::ALONE)).await?;
        let networks = transaction.networks_of(&endpoint)?;
        let former = expand::endpoint(&before, &networks);
        let noted = NotedEndpoint { endpoint, networks, before: Some(before), departing: Vec::new() };
        let steps = Steps { wanted: noted.wanted(), obsolete: Vec::new(), former };
        let what = format!("link of endpoint {name} to network {}", place.network);
        let ops = self.change(transaction, &what, steps).await?;
        let notes = noted.notes();
        Ok(Done { value: noted.endpoint, ops, notes })
    }

    /// Takes an endpoint off a network, with the ports published for its addresses there and its floating addresses
    /// there, and ends its flows there; nothing if it is not on the network. The default routes lead by the next link
    /// then.
    ///
    /// # Errors
    /// When there is no such endpoint, or something of the link stays.
    pub async fn disconnect(&self, network: &Name, name: &Name) -> Result<Done<Option<Disconnected>>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let before = self.linkable(&transaction, name)?;
        self.existing_network(&transaction, network)?;
        let Some(link) = before.link_to(network).cloned() else { return Ok(Done::new(None, Vec::new())) };
        let mut going = Going::default();
        let endpoint = note_disconnected(&transaction, &before, std::slice::from_ref(&link), &mut going)?;
        transaction.set_going(&going)?;
        let networks = transaction.networks_of(&before)?;
        let present = self.present(&endpoint.links).await?;
        let wanted = Claim::Recorded.on(veths(&endpoint, (&present, std::slice::from_ref(&link)), &networks));
        let former = veths(&before, (&present, &[]), &networks);
        let leftovers = self.plan(Vec::new(), leftovers(&transaction, &settings, &going)?).await?;
        let what = format!("endpoint {name} without network {network}");
        let mut ops: Vec<Op> =
            self.change(transaction, &what, Steps { wanted, obsolete: Vec::new(), former }).await?;
        ops.extend(leftovers.ops);
        if self.mode == Mode::Apply {
            self.finish_going().await?;
        }
        let Going { port_maps: mappings, floatings: floating, .. } = going;
        let notes = new_defaults(&before, &endpoint, &link);
        Ok(Done { value: Some(Disconnected { endpoint, link, mappings, floating }), ops, notes })
    }

    /// Those of an endpoint's links whose interfaces are there.
    pub(super) async fn present(&self, links: &[Link]) -> Result<Vec<Link>, Error> {
        let mut present = Vec::new();
        for link in links {
            let found = self.machine.has_interface(link.host_interface.as_str()).await;
            if found.map_err(kernel("look for interfaces of the host"))? {
                present.push(link.clone());
            }
        }
        Ok(present)
    }
}

/// Where the default routes lead that led by a link which is gone.
fn new_defaults(before: &Endpoint, endpoint: &Endpoint, gone: &Link) -> Vec<String> {
    let was_default = gone.addrs().filter(|addr| before.is_default(*addr));
    let note = |addr| {
        let (family, name) = (family(addr), &endpoint.name);
        match endpoint.default_link(addr) {
            Some(next) => {
                format!("the {family} default route of endpoint {name} leads by network {} now", next.network)
            }
            None => format!("endpoint {name} has no {family} address any more"),
        }
    };
    was_default.map(note).collect()
}

/// Some links of an endpoint from which others are departing: what of them depends on which links there are.
pub(super) fn veths(
    endpoint: &Endpoint,
    (links, departing): (&[Link], &[Link]),
    networks: &[Network],
) -> Vec<Resource> {
    let endpoint = with_departing(endpoint, departing);
    let present = |link: &Link| links.iter().any(|it| it.host_interface == link.host_interface);
    let links = expand::linked(&endpoint, networks).filter(|(link, _)| present(link));
    links.map(|(link, network)| expand::veth(&endpoint, link, network)).collect()
}

/// An endpoint that still has the links that it is about to lose, as its last ones: no route leads by them any more, and
/// those that do may be replaced.
pub(super) fn with_departing(endpoint: &Endpoint, departing: &[Link]) -> Endpoint {
    let links = endpoint.links.iter().chain(departing).cloned().collect();
    Endpoint { links, ..endpoint.clone() }
}

/// Takes links out of the record of an endpoint, with what leads to their addresses.
pub(super) fn note_disconnected(
    transaction: &Transaction,
    before: &Endpoint,
    gone: &[Link],
    going: &mut Going,
) -> Result<Endpoint, Error> {
    let stays = |link: &&Link| !gone.iter().any(|gone| gone.network == link.network);
    let links: Vec<Link> = before.links.iter().filter(stays).cloned().collect();
    // An endpoint without a link has nothing to limit.
    let limits = if links.is_empty() { Limits::default() } else { before.limits };
    let endpoint = Endpoint { links, limits, ..before.clone() };
    for mapping in transaction.port_maps_of(&before.name)? {
        if mapping.targets.iter().any(|target| gone.iter().any(|link| link.addrs().any(|own| own == *target)))
        {
            transaction.remove_port_map(&mapping)?;
            going.port_maps.push(mapping);
        }
    }
    for addr in gone.iter().flat_map(Link::addrs) {
        if let Some(floating) = transaction.floating_of(addr)? {
            transaction.remove_floating(&floating)?;
            going.floatings.push(floating);
        }
    }
    let networks = Networks(transaction.networks_of(before)?);
    going.endpoints.push((Endpoint { links: gone.to_vec(), ..before.clone() }, networks));
    transaction.replace_endpoint(before, &endpoint)?;
    Ok(endpoint)
}

/// Checks that a link that is there is the one that is asked for. What was left to us may be anything.
fn check_same_link(endpoint: &Endpoint, place: &Place, link: &Link) -> Result<(), Error> {
    let differences = link_differences(place, link);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Differs {
        what: format!("the link of endpoint {} to network {}", endpoint.name, place.network),
        differences: differences.join(", "),
        remove: format!("vnet network disconnect {} {}", place.network, endpoint.name),
    })
}
