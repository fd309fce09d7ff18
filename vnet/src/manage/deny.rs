//! The deny list: sources whose packets uplinks with XDP drop.

use super::host::Host;
use super::{Claim, Done, Error, Manager};
use crate::plan::expand;
use crate::reconcile::Machine;
use crate::spec::{Cidr, Settings};
use crate::store::Transaction;

impl<M: Machine> Manager<M> {
    /// Denies sources: all of them, or none.
    ///
    /// # Errors
    /// When no uplink has XDP, or one of them covers an address of an uplink.
    pub async fn deny(&self, sources: &[Cidr]) -> Result<Done<Vec<Cidr>>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        if settings.xdp.is_empty() {
            return Err(Error::NoXdp);
        }
        let host = Host::without_routes(&self.machine).await?;
        let mut wanted = Vec::with_capacity(sources.len());
        for sources in sources.iter().copied() {
            let claim = note_denied(&transaction, &settings, &host, sources)?;
            wanted.extend(claim.on([expand::denied(sources)]));
        }
        let ops = self.make(transaction, "the deny list", wanted, Vec::new()).await?;
        Ok(Done { value: sources.to_vec(), ops, notes: uncovered(&settings).into_iter().collect() })
    }

    /// Takes sources off the deny list; those that are not on it, exactly these, are off already.
    ///
    /// # Errors
    /// When they stay on it.
    pub async fn allow(&self, sources: &[Cidr]) -> Result<Done<Vec<Cidr>>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let mut removed = Vec::new();
        for sources in sources.iter().copied() {
            if transaction.is_denied(sources)? {
                transaction.remove_denied(sources)?;
                removed.push(sources);
            }
        }
        let rest = transaction.denied()?;
        let covering =
            |sources: &Cidr| rest.iter().find(|other| other.net().contains(&sources.net())).copied();
        let note = |sources| Some(format!("{} is denied as well, and holds {sources}", covering(sources)?));
        let notes = sources.iter().filter_map(note).collect();
        let obsolete = removed.iter().copied().map(expand::denied).collect();
        let ops = self.unmake(transaction, "the deny list", obsolete, Vec::new()).await?;
        Ok(Done { value: removed, ops, notes })
    }
}

/// Notes sources that are denied.
pub(super) fn note_denied(
    transaction: &Transaction,
    settings: &Settings,
    host: &Host,
    sources: Cidr,
) -> Result<Claim, Error> {
    if settings.xdp.is_empty() {
        return Err(Error::NoXdp);
    }
    check(host, settings, sources)?;
    let claim = if transaction.is_denied(sources)? { Claim::Recorded } else { Claim::New };
    transaction.put_denied(sources)?;
    Ok(claim)
}

/// Checks that the host and its neighbours can still talk: address resolution of IPv6 comes from such addresses.
fn check(host: &Host, settings: &Settings, sources: Cidr) -> Result<(), Error> {
    for uplink in &settings.uplinks {
        let addresses = host.interface(uplink.as_str()).map_or(&[][..], |interface| &interface.addresses);
        if let Some(own) = addresses.iter().find(|own| sources.net().contains(&own.addr())) {
            return Err(Error::DeniesUplink { sources, addr: own.addr(), uplink: uplink.clone() });
        }
    }
    Ok(())
}

/// What to tell if not every uplink looks at the list and at the limits of floods.
pub(super) fn uncovered(settings: &Settings) -> Option<String> {
    let without = settings.uplinks.iter().filter(|uplink| !settings.xdp.contains_key(uplink));
    let without: Vec<String> = without.map(ToString::to_string).collect();
    (!without.is_empty()).then(|| {
        let without = without.join(", ");
        format!(
            "no XDP on {without}: nothing is denied or limited there; `vnet up --xdp native` is for all uplinks"
        )
    })
}
