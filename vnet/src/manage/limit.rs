//! How much endpoints may send and receive.

use super::host::Host;
use super::network::is_there;
use super::{Claim, Done, Error, Manager, Steps};
use crate::plan::{Resource, expand};
use crate::reconcile::Machine;
use crate::spec::{Endpoint, Limit, Limits, Name, Network, Rate, TargetHost};

/// What is to be limited of an endpoint, and what no longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitChange {
    /// What it sends; as it is without, unlimited for a `None` inside.
    pub egress: Option<Option<Limit>>,
    /// What it receives, likewise.
    pub ingress: Option<Option<Limit>>,
}

impl LimitChange {
    /// The change that leaves no limit.
    pub const NONE_LEFT: Self = Self { egress: Some(None), ingress: Some(None) };

    fn onto(self, limits: Limits) -> Limits {
        Limits {
            egress: self.egress.unwrap_or(limits.egress),
            ingress: self.ingress.unwrap_or(limits.ingress),
        }
    }
}

impl<M: Machine> Manager<M> {
    /// Changes how much an endpoint may send and receive. Its connections go on.
    ///
    /// # Errors
    /// When there is no such endpoint, it is on no network, or a burst has no room for a packet.
    pub async fn set_limits(&self, name: &Name, change: LimitChange) -> Result<Done<Endpoint>, Error> {
        let (transaction, _) = self.begin()?;
        let before = self.existing_endpoint(&transaction, &TargetHost::Name(name.clone()))?;
        let endpoint = Endpoint { limits: change.onto(before.limits), ..before.clone() };
        let Some(link) = &endpoint.link else { return Err(Error::NothingToLimit { endpoint: name.clone() }) };
        let network = self.existing_network(&transaction, &link.network)?;
        check_bursts(&endpoint, &network)?;
        transaction.put_endpoint(&endpoint)?;
        let host = Host::without_routes(&self.machine).await?;
        if !is_there(&endpoint, &host) {
            // Without effect on anything but the record; what is limited comes with the endpoint.
            let ops = self.make(transaction, "", Vec::new(), Vec::new()).await?;
            let note = format!("endpoint {name} is not there: it is limited once `vnet up` brings it back");
            return Ok(Done { value: endpoint, ops, notes: vec![note] });
        }
        let resources = |endpoint: &Endpoint| -> Vec<Resource> {
            // The queue is there before anything is sent through it.
            let limits = expand::limits(endpoint, link, &network);
            limits.into_iter().chain(expand::endpoint_entries(endpoint, link, &network)).collect()
        };
        let (former, now) = (resources(&before), resources(&endpoint));
        // Whatever is recorded: a command that was to take it away may have been killed.
        let any = Limit { rate: Rate::LEAST, burst: None };
        let limited = Endpoint { limits: Limits { egress: Some(any), ingress: Some(any) }, ..before };
        let is_kept = |resource: &Resource| now.iter().any(|kept| kept.same_identity(resource));
        let all = expand::limits(&limited, link, &network).into_iter();
        let obsolete = all.filter(|resource| !is_kept(resource)).collect();
        let what = format!("limits of endpoint {name}");
        let steps = Steps { wanted: Claim::Recorded.on(now), obsolete, former };
        let ops = self.change(transaction, &what, steps).await?;
        Ok(Done::new(endpoint, ops))
    }
}

/// Checks that a burst has room for the largest packet: it would never be sent.
fn check_bursts(endpoint: &Endpoint, network: &Network) -> Result<(), Error> {
    let least = Limit::least_burst(network.mtu);
    for limit in [endpoint.limits.egress, endpoint.limits.ingress].into_iter().flatten() {
        if let Some(burst) = limit.burst.filter(|burst| u32::from(*burst) < least) {
            let (endpoint, mtu) = (endpoint.name.clone(), network.mtu);
            return Err(Error::BurstTooSmall { endpoint, burst, least, mtu });
        }
    }
    Ok(())
}
