//! A router's link to the outside: a veth pair as an endpoint's, whose bridge is in the namespace that the process came
//! from and stays as it is; and addresses of others that the router answers for there.

use ipnet::IpNet;

use super::error::Error;
use super::home;
use super::interface::{find, index_if_any};
use super::netlink::Netlink;
use super::veth::{self, Host, Others};
use crate::plan::{State, Veth};

/// How a link stands.
pub(super) async fn state(leg: &Veth) -> Result<State, Error> {
    let namespace = home::outside()?;
    let netlink = namespace.netlink()?;
    if home::is_own(&leg.namespace)? {
        if let Some(bridge) = lost_bridge(&netlink, leg)? {
            return Ok(State::Differs(format!(
                "bridge {bridge} outside is gone, and whoever has made it has to make it again"
            )));
        }
        return veth::state(&netlink, leg).await;
    }
    // The router's namespace has no name as yet; what there is leads to one that it had before.
    Ok(match find(&netlink, &leg.host).await? {
        None => State::Absent,
        Some(_) => State::Differs(format!("{} does not lead to this namespace", leg.host)),
    })
}

/// Whether there is anything of it.
pub(super) async fn is_there(leg: &Veth) -> Result<bool, Error> {
    let netlink = home::outside()?.netlink()?;
    Ok(index_if_any(&netlink, &leg.host)?.is_some())
}

/// Makes the link, or brings it to its description.
pub(super) async fn create(leg: &Veth) -> Result<(), Error> {
    let namespace = home::outside()?;
    let netlink = namespace.netlink()?;
    if let Some(bridge) = lost_bridge(&netlink, leg)? {
        return Err(Error::OutsideGone { bridge: bridge.to_owned() });
    }
    veth::create(Host { netlink: &netlink, namespace: Some(namespace) }, leg, Others::Stay).await
}

/// The bridge that the link is to be a port of, if there is no interface of its name.
fn lost_bridge<'l>(netlink: &Netlink, leg: &'l Veth) -> Result<Option<&'l str>, Error> {
    let Some(bridge) = leg.bridge.as_deref() else { return Ok(None) };
    Ok(index_if_any(netlink, bridge)?.is_none().then_some(bridge))
}

/// Removes the link.
pub(super) async fn remove(leg: &Veth) -> Result<(), Error> {
    veth::remove(&home::outside()?.netlink()?, leg).await
}

/// How an address of an interface stands.
pub(super) fn address_state(netlink: &Netlink, interface: &str, address: IpNet) -> Result<State, Error> {
    let failed = |source| Error::ReadInterface { interface: interface.to_owned(), source };
    let Some(index) = index_if_any(netlink, interface)? else { return Ok(State::Absent) };
    let addresses = netlink.addresses(Some(index)).map_err(failed)?;
    let is_there = addresses.iter().any(|own| own.net == address);
    Ok(if is_there { State::Present } else { State::Absent })
}

/// Gives an interface an address that it does not choose by itself.
pub(super) async fn add_address(netlink: &Netlink, interface: &str, address: IpNet) -> Result<(), Error> {
    let index = index_if_any(netlink, interface)?;
    let index = index.ok_or_else(|| Error::NoInterface { interface: interface.to_owned() })?;
    let added = netlink.add_avoided_address(index, address).await;
    added.map_err(|source| Error::Address { address, interface: interface.to_owned(), source })
}

/// Takes it away again.
pub(super) async fn delete_address(netlink: &Netlink, interface: &str, address: IpNet) -> Result<(), Error> {
    let Some(index) = index_if_any(netlink, interface)? else { return Ok(()) };
    let deleted = netlink.delete_address(index, address).await;
    deleted.map_err(|source| Error::Address { address, interface: interface.to_owned(), source })
}
