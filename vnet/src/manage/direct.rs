//! Direct links between endpoints.

use ipnet::IpNet;

use super::{Claim, Done, Error, Manager};
use crate::ours;
use crate::plan::expand;
use crate::reconcile::Machine;
use crate::spec::{DirectEnd, DirectLink, Endpoint, InterfaceName, Name, both_ends};
use crate::store::Transaction;

/// A direct link to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectRequest {
    /// The endpoints to join.
    pub endpoints: [Name; 2],
    /// Their addresses on the link: of each family the first is the first endpoint's, the second the second's.
    pub addresses: Vec<IpNet>,
    /// Names of their interfaces; the first of link0, link1, ... that is free without.
    pub ifnames: [Option<InterfaceName>; 2],
    /// Its MTU in bytes; that of Ethernet without.
    pub mtu: Option<u32>,
}

impl DirectRequest {
    /// MTU of a link that asks for none.
    pub const MTU: u32 = 1500;
}

impl<M: Machine> Manager<M> {
    /// Joins two endpoints.
    ///
    /// # Errors
    /// When there is no such endpoint, or the link clashes with what an endpoint has, or is there otherwise.
    pub async fn create_direct(&self, request: &DirectRequest) -> Result<Done<DirectLink>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let (link, claim) = self.note_direct(&transaction, request)?;
        let what = format!("direct link {link}");
        let ops = self.make(transaction, &what, claim.on([expand::direct(&link)]), Vec::new()).await?;
        Ok(Done::new(link, ops))
    }

    /// Notes a direct link, unless it is recorded.
    pub(super) fn note_direct(
        &self,
        transaction: &Transaction,
        request: &DirectRequest,
    ) -> Result<(DirectLink, Claim), Error> {
        let [first, second] = &request.endpoints;
        if first == second {
            return Err(Error::JoinsItself { endpoint: first.clone() });
        }
        let endpoints = [self.linkable(transaction, first)?, self.linkable(transaction, second)?];
        let addresses = both_ends(&request.addresses)?;
        if let Some(recorded) = transaction.direct(first, second)? {
            check_same(request, &addresses, &recorded)?;
            return Ok((recorded, Claim::Recorded));
        }
        let mut ends = Vec::new();
        let given = endpoints.iter().zip(addresses).zip(&request.ifnames);
        for ((endpoint, addresses), ifname) in given {
            check_free(transaction, endpoint, &addresses)?;
            let other = if endpoint.name == *first { second } else { first };
            let mut macs = ours::direct_macs(self.instance.name(), &endpoint.name, other);
            let mac = macs.next().ok_or_else(|| none_left("hardware address", &endpoint.name))?;
            ends.push(DirectEnd {
                endpoint: endpoint.name.clone(),
                namespace: expand::namespace_path(endpoint).unwrap_or_default(),
                addresses,
                mac,
                ifname: choose_ifname(transaction, endpoint, ifname.as_ref())?,
            });
        }
        ends.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        let ends: [DirectEnd; 2] = ends.try_into().expect("one for each of two endpoints");
        let link = DirectLink { ends, mtu: request.mtu.unwrap_or(DirectRequest::MTU) };
        transaction.put_direct(&link)?;
        Ok((link, Claim::New))
    }

    /// Removes the direct link of two endpoints; nothing if they have none.
    ///
    /// # Errors
    /// When something of it stays.
    pub async fn remove_direct(&self, a: &Name, b: &Name) -> Result<Done<Option<DirectLink>>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let Some(link) = transaction.direct(a, b)? else { return Ok(Done::new(None, Vec::new())) };
        transaction.remove_direct(&link)?;
        let what = format!("direct link {link}");
        let ops = self.unmake(transaction, &what, vec![expand::direct(&link)], Vec::new()).await?;
        Ok(Done::new(Some(link), ops))
    }
}

fn none_left(what: &'static str, name: &Name) -> Error {
    Error::NoneLeft { what, name: name.clone() }
}

/// The name that is asked for, or the first of link0, link1, ... that no other interface of the endpoint has.
fn choose_ifname(
    transaction: &Transaction,
    endpoint: &Endpoint,
    wish: Option<&InterfaceName>,
) -> Result<InterfaceName, Error> {
    let directs = transaction.directs_of(&endpoint.name)?;
    let ends = directs.iter().flat_map(|link| &link.ends).filter(|end| end.endpoint == endpoint.name);
    let links = endpoint.links.iter().map(|link| &link.ifname);
    let taken: Vec<&InterfaceName> = links.chain(ends.map(|end| &end.ifname)).collect();
    match wish {
        Some(name) if taken.contains(&name) => {
            Err(Error::OwnIfnameTaken { endpoint: endpoint.name.clone(), ifname: name.clone() })
        }
        Some(name) => Ok(name.clone()),
        None => {
            let mut names = (0..=taken.len()).filter_map(|nth| format!("link{nth}").parse().ok());
            let free = names.find(|name| !taken.contains(&name));
            free.ok_or_else(|| none_left("interface name", &endpoint.name))
        }
    }
}

/// Checks that an endpoint leads nowhere by two interfaces.
pub(super) fn check_free(
    transaction: &Transaction,
    endpoint: &Endpoint,
    addresses: &[IpNet],
) -> Result<(), Error> {
    let directs = transaction.directs_of(&endpoint.name)?;
    let ends = directs.iter().flat_map(|link| &link.ends).filter(|end| end.endpoint == endpoint.name);
    let others: Vec<IpNet> = (endpoint.links.iter().flat_map(|link| &link.addresses))
        .chain(ends.flat_map(|end| &end.addresses))
        .copied()
        .collect();
    for net in addresses {
        let clash = others.iter().find(|other| net.contains(&other.trunc()) || other.contains(&net.trunc()));
        if let Some(other) = clash {
            return Err(Error::DirectOverlaps { endpoint: endpoint.name.clone(), net: *net, other: *other });
        }
    }
    Ok(())
}

/// Checks that the link that is there is the one that is asked for. What was left to us may be anything.
fn check_same(request: &DirectRequest, addresses: &[Vec<IpNet>; 2], link: &DirectLink) -> Result<(), Error> {
    let mut differences = Vec::new();
    for ((name, addresses), ifname) in request.endpoints.iter().zip(addresses).zip(&request.ifnames) {
        for end in link.ends.iter().filter(|end| end.endpoint == *name) {
            if end.addresses.iter().any(|net| !addresses.contains(net))
                || addresses.len() != end.addresses.len()
            {
                let own = end.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                differences.push(format!("{own} for {name}"));
            }
            if ifname.as_ref().is_some_and(|ifname| *ifname != end.ifname) {
                differences.push(format!("interface {} of {name}", end.ifname));
            }
        }
    }
    if request.mtu.is_some_and(|mtu| mtu != link.mtu) {
        differences.push(format!("mtu {}", link.mtu));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let [a, b] = link.endpoints();
    Err(Error::Differs {
        what: format!("the direct link {link}"),
        differences: differences.join(", "),
        remove: format!("vnet link rm {a} {b}"),
    })
}
