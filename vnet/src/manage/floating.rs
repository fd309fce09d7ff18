//! Floating addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::Addr;

use super::endpoint::family;
use super::host::Addresses;
use super::network::list;
use super::port_map::{Served, WhichLink};
use super::{Claim, Done, Error, Manager};
use crate::instance::Instance;
use crate::plan::expand;
use crate::reconcile::Machine;
use crate::spec::{Cidr, Floating, GatewayMode, InterfaceName, Link, Router, TargetHost};
use crate::store::Transaction;

/// An address of the host to give to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingRequest {
    /// The host's address.
    pub external: IpAddr,
    /// The endpoint, by its address or its name.
    pub target: TargetHost,
}

/// A floating address that is recorded.
pub(super) struct NotedFloating {
    pub(super) floating: Floating,
    pub(super) claim: Claim,
    pub(super) note: Option<String>,
}

impl<M: Machine> Manager<M> {
    /// Gives an address of the host to an endpoint.
    ///
    /// # Errors
    /// When the host has no such address, or one of the two has another already.
    pub async fn add_floating(&self, request: &FloatingRequest) -> Result<Done<Floating>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let host = Addresses::observe(&self.machine, &settings).await?;
        let NotedFloating { floating, claim, note } = self.note_floating(&transaction, &host, request)?;
        let refresh = self.refresh(&transaction, &host)?;
        let mut wanted = refresh.wanted;
        wanted.extend(claim.on(expand::floating(&floating)));
        let what = format!("floating address {}", floating.external);
        let ops = self.make(transaction, &what, wanted, refresh.obsolete).await?;
        Ok(Done { value: floating, ops, notes: note.into_iter().collect() })
    }

    /// Notes a floating address, unless it is recorded.
    pub(super) fn note_floating(
        &self,
        transaction: &Transaction,
        host: &Addresses,
        request: &FloatingRequest,
    ) -> Result<NotedFloating, Error> {
        let floating = self.describe_floating(transaction, host, request)?;
        let note = check_external(&self.instance, transaction, host, &floating)?;
        let recorded = same_floating(transaction, &floating)?;
        let claim = Claim::of(recorded.as_ref());
        if recorded.is_none() {
            check_alone(transaction, &floating)?;
            transaction.put_floating(&floating)?;
        }
        Ok(NotedFloating { floating, claim, note })
    }

    pub(super) fn describe_floating(
        &self,
        transaction: &Transaction,
        host: &Addresses,
        request: &FloatingRequest,
    ) -> Result<Floating, Error> {
        let FloatingRequest { external, ref target } = *request;
        let Served { endpoint, link, network } =
            self.served(transaction, target, WhichLink::Like(external))?;
        if network.options.gateway_mode == GatewayMode::Routed {
            return Err(Error::RoutedNetwork { endpoint, network: network.name });
        }
        let addr = address_like(&link, target, external)?;
        let on = match transaction.floating(external)? {
            Some(recorded) => recorded.on,
            None => to_give(transaction, host, external)?,
        };
        Ok(Floating { external, endpoint, addr, number: network.number, on })
    }

    /// Takes an address of the host back from its endpoint, and ends the flows by it; nothing if no endpoint has it.
    ///
    /// # Errors
    /// When something of it stays.
    pub async fn remove_floating(&self, external: IpAddr) -> Result<Done<Option<Floating>>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let Some(floating) = transaction.floating(external)? else { return Ok(Done::new(None, Vec::new())) };
        transaction.remove_floating(&floating)?;
        let what = format!("floating address {external}");
        let ops = self.unmake(transaction, &what, expand::floating(&floating), Vec::new()).await?;
        let external = Addr::from(external);
        self.forget(|tuple, entry| {
            [tuple.src, tuple.dst, entry.translated.src, entry.translated.dst].contains(&external)
        })?;
        Ok(Done::new(Some(floating), ops))
    }
}

/// The interface that is to have an address which the host has not: a router's own link, if it may.
fn to_give(
    transaction: &Transaction,
    host: &Addresses,
    external: IpAddr,
) -> Result<Option<InterfaceName>, Error> {
    let router = transaction.settings()?.and_then(|settings| settings.router);
    let may_have = |router: &Router| router.may_have(external) && host.all().all(|own| own != external);
    Ok(router.filter(may_have).map(|router| router.ifname))
}

/// Checks that an address is the host's to give; gives a note if the host would miss it.
fn check_external(
    instance: &Instance,
    transaction: &Transaction,
    host: &Addresses,
    floating: &Floating,
) -> Result<Option<String>, Error> {
    let external = floating.external;
    let bad = |reason| Err(Error::ExternalAddress { external, reason });
    let router = transaction.settings()?.and_then(|settings| settings.router);
    let addr = Addr::from(external);
    if addr.is_unspecified()
        || addr.is_loopback()
        || addr.is_multicast_or_broadcast()
        || addr.is_v6_link_local()
    {
        return bad("nobody outside could reach it".to_owned());
    }
    for network in transaction.networks()? {
        if expand::gateways(&network).contains(&external) {
            return bad(format!("it is the gateway of network {}", network.name));
        }
    }
    if let Some(router) = &router {
        if router.gateways.contains(&external) {
            return bad("it is the router's gateway outside, by which everything leaves".to_owned());
        }
        if router.ends_prefix(external) {
            return bad("it is the first or the last address of the router's prefix outside".to_owned());
        }
    }
    if floating.on.is_some() {
        return Ok(None);
    }
    let of_family = |net: &&IpNet| net.addr().is_ipv4() == external.is_ipv4();
    let owner = host.interfaces.iter().find(|interface| {
        let mut addresses = interface.addresses.iter().filter(of_family);
        addresses.any(|own| own.addr() == external)
    });
    let Some(owner) = owner else {
        let net = IpNet::from(external);
        return Err(match router {
            Some(Router { addresses, ifname, .. }) => {
                let prefixes = list(&addresses);
                let instance = instance.name().to_owned();
                Error::ExternalElsewhere { external, instance, prefixes, net, ifname }
            }
            None => Error::ExternalMissing { external, net },
        });
    };
    let is_first = owner.addresses.iter().find(of_family).is_some_and(|first| first.addr() == external);
    let note = || {
        format!(
            "{external} is the first {} address of {}: what the host itself offers there is out of reach now",
            family(external),
            owner.name
        )
    };
    Ok(is_first.then(note))
}

/// The link's address of the family of another: the one that was named, if one was.
fn address_like(link: &Link, target: &TargetHost, external: IpAddr) -> Result<IpAddr, Error> {
    let named = |addr: &IpAddr| match target {
        TargetHost::Addr(named) => addr == named,
        TargetHost::Name(_) => true,
    };
    let fits = |addr: &IpAddr| named(addr) && addr.is_ipv4() == external.is_ipv4();
    let found = link.addrs().find(fits);
    found.ok_or_else(|| Error::FloatingFamily { external, target: target.clone(), family: family(external) })
}

/// The same floating address, if it is there; nothing if neither of the two has another.
fn same_floating(transaction: &Transaction, wish: &Floating) -> Result<Option<Floating>, Error> {
    let other = match transaction.floating(wish.external)? {
        Some(other) => Some(other),
        None => transaction.floating_of(wish.addr)?,
    };
    match other {
        Some(other) if other != *wish => {
            Err(Error::FloatingTaken { wish: Box::new(wish.clone()), other: Box::new(other) })
        }
        other => Ok(other),
    }
}

/// Checks that nothing else says what becomes of either address.
fn check_alone(transaction: &Transaction, floating: &Floating) -> Result<(), Error> {
    if let Some(mapping) = transaction.port_map_on(floating.external)? {
        return Err(Error::PublishedOn { external: floating.external, mapping: Box::new(mapping) });
    }
    let addr = Cidr::host(floating.addr)?;
    if transaction.masquerade(addr)?.is_some() {
        return Err(Error::MasqueradedAlready { subnet: addr });
    }
    Ok(())
}
