//! How much endpoints may send and receive.

use super::going::leftovers;
use super::host::Host;
use super::network::is_there;
use super::{Claim, Done, Error, Manager, Mode, Steps, Unnamed};
use crate::plan::{Resource, expand};
use crate::reconcile::Machine;
use crate::spec::{Endpoint, Going, Limit, Limits, Name, Network, Networks};
use crate::store::Transaction;

/// What is to be limited of an endpoint, and what no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChange {
    /// What it sends; as it is without, unlimited for a `None` inside.
    pub egress: Option<Option<Limit>>,
    /// What it receives, likewise.
    pub ingress: Option<Option<Limit>>,
}

impl LimitChange {
    /// The change that leaves no limit.
    pub const NONE_LEFT: Self = Self { egress: Some(None), ingress: Some(None) };

    fn onto(self, limits: Limits, burst: Unnamed) -> Limits {
        let change = |change: Option<Option<Limit>>, before: Option<Limit>| match change {
            None => before,
            Some(limit) => {
                let kept = before.filter(|_| burst == Unnamed::Stays);
                limit.map(|limit| limit.with_burst_of(kept))
            }
        };
        Limits { egress: change(self.egress, limits.egress), ingress: change(self.ingress, limits.ingress) }
    }
}

impl<M: Machine> Manager<M> {
    /// Changes how much an endpoint may send and receive. Its connections go on. A burst that is not named stays as it is,
    /// or follows from the rate.
    ///
    /// # Errors
    /// When there is no such endpoint, it is on no network, or a burst has no room for a packet.
    pub async fn set_limits(
        &self,
        name: &Name,
        change: LimitChange,
        burst: Unnamed,
    ) -> Result<Done<Endpoint>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let before = self.linkable(&transaction, name)?;
        let networks = transaction.networks_of(&before)?;
        let endpoint = note_limits(&transaction, &before, &networks, (change, burst))?;
        let host = Host::without_routes(&self.machine).await?;
        if !endpoint.links.iter().all(|link| is_there(link, &host)) {
            // Without effect on anything but the record; what is limited comes with the endpoint.
            let ops = self.make(transaction, "", Vec::new(), Vec::new()).await?;
            let note = format!("endpoint {name} is not there: it is limited once `vnet up` brings it back");
            return Ok(Done { value: endpoint, ops, notes: vec![note] });
        }
        let going = Going { limits: lifted(&before, &endpoint, &networks), ..Going::default() };
        transaction.set_going(&going)?;
        let leftovers = self.plan(Vec::new(), leftovers(&transaction, &settings, &going)?).await?;
        let what = format!("limits of endpoint {name}");
        let mut ops = self.change(transaction, &what, steps(&before, &endpoint, &networks)).await?;
        ops.extend(leftovers.ops);
        if self.mode == Mode::Apply {
            self.finish_going().await?;
        }
        Ok(Done::new(endpoint, ops))
    }
}

/// Notes what is to be limited of an endpoint that is recorded, on its networks.
pub(super) fn note_limits(
    transaction: &Transaction,
    before: &Endpoint,
    networks: &[Network],
    (change, burst): (LimitChange, Unnamed),
) -> Result<Endpoint, Error> {
    let endpoint = Endpoint { limits: change.onto(before.limits, burst), ..before.clone() };
    if networks.is_empty() {
        return if endpoint.limits.is_empty() {
            Ok(endpoint)
        } else {
            Err(Error::NothingToLimit { endpoint: endpoint.name })
        };
    }
    for network in networks {
        check_bursts(&endpoint, network)?;
    }
    transaction.put_endpoint(&endpoint)?;
    Ok(endpoint)
}

/// From the limits that an endpoint had to those that it gets, but for those that are [lifted].
pub(super) fn steps(before: &Endpoint, endpoint: &Endpoint, networks: &[Network]) -> Steps {
    let resources = |endpoint: &Endpoint| -> Vec<Resource> {
        let entries = expand::linked(endpoint, networks)
            .flat_map(|(link, network)| expand::endpoint_entries(endpoint, link, network));
        // The queue is there before anything is sent through it.
        expand::limits(endpoint, networks).into_iter().chain(entries).collect()
    };
    Steps { wanted: Claim::Recorded.on(resources(endpoint)), obsolete: Vec::new(), former: resources(before) }
}

/// What is to be noted of limits that an endpoint had and has no more: their queues [go](super::going) when nothing is
/// sent through them any more.
pub(super) fn lifted(
    before: &Endpoint,
    endpoint: &Endpoint,
    networks: &[Network],
) -> Vec<(Endpoint, Networks)> {
    let (old, new) = (before.limits, endpoint.limits);
    let is_lifted =
        old.egress.is_some() && new.egress.is_none() || old.ingress.is_some() && new.ingress.is_none();
    if is_lifted { vec![(before.clone(), Networks(networks.to_vec()))] } else { Vec::new() }
}

/// Checks that a burst has room for the largest packet: it would never be sent.
pub(super) fn check_bursts(endpoint: &Endpoint, network: &Network) -> Result<(), Error> {
    let least = Limit::least_burst(network.mtu);
    for limit in [endpoint.limits.egress, endpoint.limits.ingress].into_iter().flatten() {
        if let Some(burst) = limit.burst.filter(|burst| u32::from(*burst) < least) {
            let (endpoint, mtu) = (endpoint.name.clone(), network.mtu);
            return Err(Error::BurstTooSmall { endpoint, burst, least, mtu });
        }
    }
    Ok(())
}
