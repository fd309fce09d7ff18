//! Masquerade rules.

use std::net::IpAddr;

use vnet_common::Addr;

use super::host::Addresses;
use super::{Claim, Done, Error, Manager};
use crate::kernel::Addressed;
use crate::plan::expand;
use crate::reconcile::Machine;
use crate::spec::{Cidr, Floating, Masquerade};
use crate::store::{self, Transaction};

/// A masquerade rule to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasqueradeRequest {
    /// The sources.
    pub subnet: Cidr,
    /// The address to use; without one, the one that the host's routing would choose.
    pub to: Option<IpAddr>,
}

impl<M: Machine> Manager<M> {
    /// Adds a masquerade rule.
    ///
    /// # Errors
    /// When there is another for the same prefix.
    pub async fn add_masquerade(&self, request: &MasqueradeRequest) -> Result<Done<Masquerade>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let host = Addresses::observe(&self.machine, &settings).await?;
        let NotedRule { rule, claim, note } = note_masquerade(&transaction, &host, request)?;
        let refresh = self.refresh(&transaction, &host)?;
        let mut wanted = refresh.wanted;
        wanted.extend(claim.on([expand::masquerade(&rule)]));
        let what = format!("masquerade of {}", rule.subnet);
        let ops = self.make(transaction, &what, wanted, refresh.obsolete).await?;
        Ok(Done { value: rule, ops, notes: note.into_iter().collect() })
    }

    /// Removes a masquerade rule; nothing if there is none for that prefix. Flows that it opened go on.
    ///
    /// # Errors
    /// When it stays.
    pub async fn remove_masquerade(&self, subnet: Cidr) -> Result<Done<Option<Masquerade>>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let Some(rule) = transaction.masquerade(subnet)? else { return Ok(Done::new(None, Vec::new())) };
        transaction.remove_masquerade(subnet)?;
        let what = format!("masquerade of {subnet}");
        let ops = self.unmake(transaction, &what, vec![expand::masquerade(&rule)], Vec::new()).await?;
        Ok(Done::new(Some(rule), ops))
    }
}

impl<M: Machine> Manager<M> {
    /// Leaves destinations out of masquerade: packets to them keep their source.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn exclude(&self, destinations: Cidr) -> Result<Done<Cidr>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let claim = note_exclusion(&transaction, destinations)?;
        let what = format!("exclusion of {destinations}");
        let wanted = claim.on([expand::unmasqueraded(destinations)]);
        let ops = self.make(transaction, &what, wanted, Vec::new()).await?;
        Ok(Done::new(destinations, ops))
    }

    /// Masquerades packets to destinations again; nothing if exactly these are not left out.
    ///
    /// # Errors
    /// When they stay left out.
    pub async fn include(&self, destinations: Cidr) -> Result<Done<Option<Cidr>>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let others = transaction.unmasqueraded()?.into_iter().filter(|other| *other != destinations);
        let covering = others.filter(|other| other.net().contains(&destinations.net()));
        let note = |other: Cidr| format!("{other} is left out as well, and holds {destinations}");
        let notes: Vec<String> = covering.map(note).collect();
        if !transaction.is_unmasqueraded(destinations)? {
            return Ok(Done { value: None, ops: Vec::new(), notes });
        }
        transaction.remove_unmasqueraded(destinations)?;
        let what = format!("exclusion of {destinations}");
        let obsolete = vec![expand::unmasqueraded(destinations)];
        let ops = self.unmake(transaction, &what, obsolete, Vec::new()).await?;
        Ok(Done { value: Some(destinations), ops, notes })
    }
}

/// Notes destinations that are left out of masquerade.
pub(super) fn note_exclusion(transaction: &Transaction, destinations: Cidr) -> Result<Claim, Error> {
    let claim = if transaction.is_unmasqueraded(destinations)? { Claim::Recorded } else { Claim::New };
    transaction.put_unmasqueraded(destinations)?;
    Ok(claim)
}

/// A masquerade rule that is recorded.
pub(super) struct NotedRule {
    pub(super) rule: Masquerade,
    pub(super) claim: Claim,
    pub(super) note: Option<String>,
}

/// Notes a masquerade rule, unless it is recorded.
pub(super) fn note_masquerade(
    transaction: &Transaction,
    host: &Addresses,
    request: &MasqueradeRequest,
) -> Result<NotedRule, Error> {
    let MasqueradeRequest { subnet, to } = *request;
    let note = match to {
        Some(to) => check_to(host, subnet, to)?,
        None => None,
    };
    let recorded = transaction.masquerade(subnet)?;
    let claim = Claim::of(recorded.as_ref());
    let rule = match recorded {
        Some(rule) if rule.to == to => rule,
        Some(rule) => return Err(differs(&rule)),
        None => {
            check_not_floating(transaction, subnet)?;
            let rule = Masquerade { subnet, to, network: None };
            transaction.put_masquerade(&rule)?;
            rule
        }
    };
    Ok(NotedRule { rule, claim, note })
}

/// What sends under an address that the host has not: masquerade rules and floating addresses whose answers may not
/// arrive.
///
/// # Errors
/// When the record cannot be read.
pub fn missing_addresses(
    transaction: &Transaction,
    interfaces: &[Addressed],
) -> Result<Vec<String>, store::Error> {
    let addresses = || interfaces.iter().flat_map(|interface| &interface.addresses);
    let missing = |addr: IpAddr| addresses().all(|own| own.addr() != addr);
    let mut found = Vec::new();
    for Masquerade { subnet, to, .. } in transaction.masquerades()? {
        if let Some(to) = to.filter(|to| missing(*to)) {
            found.push(format!("masquerade of {subnet}: {to} is not an address of this host"));
        }
    }
    for Floating { external, .. } in transaction.floatings()? {
        if missing(external) {
            found.push(format!("floating address {external}: it is not an address of this host"));
        }
    }
    Ok(found)
}

/// Checks that the rule is not for an address that floats.
fn check_not_floating(transaction: &Transaction, subnet: Cidr) -> Result<(), Error> {
    let addr = subnet.net().addr();
    if Cidr::host(addr)? != subnet {
        return Ok(());
    }
    match transaction.floating_of(addr)? {
        Some(floating) => Err(Error::Floats { addr, floating: Box::new(floating) }),
        None => Ok(()),
    }
}

/// Checks the address to masquerade with; gives a note if answers to it may not find the host.
fn check_to(host: &Addresses, subnet: Cidr, to: IpAddr) -> Result<Option<String>, Error> {
    let bad = |reason| Err(Error::MasqueradeTo { to, subnet: subnet.net(), reason });
    let addr = Addr::from(to);
    if to.is_ipv4() != subnet.net().addr().is_ipv4() {
        return bad("it is of the other family");
    }
    if addr.is_unspecified()
        || addr.is_loopback()
        || addr.is_multicast_or_broadcast()
        || addr.is_v6_link_local()
    {
        return bad("nobody could answer to it");
    }
    let is_ours = host.all().any(|own| own == to);
    let note =
        || format!("{to} is not an address of this host: answers arrive only if somebody routes it here");
    Ok((!is_ours).then(note))
}

fn differs(rule: &Masquerade) -> Error {
    Error::Differs {
        what: format!("masquerade of {}", rule.subnet),
        differences: rule
            .to
            .map_or_else(|| "the address that routing chooses".to_owned(), |to| format!("address {to}")),
        remove: format!("vnet masquerade rm {}", rule.subnet),
    }
}
