//! Interfaces by name, wherever they are: what bridges and veth pairs have in common.

use std::collections::HashMap;

use ipnet::IpNet;

use super::Interface;
use super::error::Error;
use super::netlink::{Link, Netlink, NetlinkError};
use crate::plan::GsoSizes;

/// The index of the interface of that name, if there is one.
pub(super) fn index_if_any(netlink: &Netlink, interface: &str) -> Result<Option<u32>, Error> {
    let index = netlink.index_of(interface);
    index.map_err(|source| Error::InterfaceIndex { interface: interface.to_owned(), source })
}

/// The interface of that name.
pub(super) async fn find(netlink: &Netlink, name: &str) -> Result<Option<Link>, Error> {
    let found = netlink.link(name).await;
    found.map_err(|source| Error::ReadInterface { interface: name.to_owned(), source })
}

/// The interface of that name, which must be there.
pub(super) async fn require(netlink: &Netlink, name: &str) -> Result<Link, Error> {
    find(netlink, name).await?.ok_or_else(|| Error::NoInterface { interface: name.to_owned() })
}

/// Removes an interface, if it is of the kind it should be.
pub(super) async fn remove_link(netlink: &Netlink, name: &str, kind: &'static str) -> Result<(), Error> {
    let Some(link) = find(netlink, name).await? else { return Ok(()) };
    if !link.is(kind) {
        return Err(taken(name, &link, kind));
    }
    let removed = netlink.delete_link(link.index).await;
    removed.map_err(|source| Error::RemoveInterface { interface: name.to_owned(), source })
}

/// Sizes of aggregates, for people.
pub(super) fn gso_text(sizes: GsoSizes) -> String {
    format!("{} bytes of IPv4 and {} of IPv6 at once", sizes.v4, sizes.v6)
}

/// That an interface, in the host or a namespace, could not be changed.
pub(super) fn change_error(interface: &str, place: &str, source: NetlinkError) -> Error {
    Error::ChangeInterface { interface: interface.to_owned(), place: place.to_owned(), source }
}

/// That a name is somebody else's.
pub(super) fn taken(name: &str, link: &Link, wanted: &'static str) -> Error {
    Error::InterfaceTaken { interface: name.to_owned(), kind: link.description().to_owned(), wanted }
}

/// The addresses of an interface, but for those of the link alone.
pub(super) fn addresses(netlink: &Netlink, link: &Link) -> Result<Vec<IpNet>, Error> {
    let addresses = netlink.addresses(Some(link.index));
    let addresses =
        addresses.map_err(|source| Error::ReadInterface { interface: link.name.clone(), source })?;
    Ok(addresses.into_iter().filter(|address| address.global).map(|address| address.net).collect())
}

/// All interfaces of a namespace, with their addresses.
pub(super) async fn all(netlink: &Netlink) -> Result<Vec<Interface>, Error> {
    let failed = |source| Error::ReadInterfaces { source };
    let links = netlink.links().await.map_err(failed)?;
    let addresses = netlink.addresses(None).map_err(failed)?;
    let mut by_index: HashMap<u32, Vec<IpNet>> = HashMap::new();
    for address in addresses {
        by_index.entry(address.index).or_default().push(address.net);
    }
    let interface = |link: Link| Interface {
        addresses: by_index.remove(&link.index).unwrap_or_default(),
        index: link.index,
        name: link.name,
        mac: link.mac,
        mtu: link.mtu,
        gso: link.gso,
        up: link.up,
        kind: link.kind,
    };
    Ok(links.into_iter().map(interface).collect())
}
