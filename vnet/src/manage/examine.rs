//! What of an instance is there as recorded, and what is not. Nothing is changed.

use std::fmt;

use super::reachable::in_full;
use super::{Error, kernel};
use crate::instance::Instance;
use crate::plan::{Resource, State, expand};
use crate::reconcile::Machine;
use crate::spec::{Endpoint, Firewall, Settings};
use crate::store::Transaction;

/// A resource that is not as recorded, and how it is instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The resource as it is recorded.
    pub resource: Resource,
    /// What is there instead, or why that could not be found out.
    pub how: String,
}

/// What [`Difference::how`] says of what is not there at all.
const MISSING: &str = "missing";

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.how)
    }
}

impl Difference {
    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.how == MISSING
    }
}

/// How resources stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// Those that are as recorded.
    pub present: Vec<Resource>,
    /// Those that are not.
    pub differences: Vec<Difference>,
}

/// Looks at the instance itself and its networks: not at what is there once for each endpoint or mapping.
///
/// # Errors
/// When the record cannot be read.
pub async fn examine<M: Machine>(
    instance: &Instance,
    machine: &M,
    transaction: &Transaction,
    settings: &Settings,
) -> Result<Examination, Error> {
    let mut resources = expand::router(instance.name(), settings);
    resources.extend(expand::instance(settings, transaction.port_blocks()?));
    resources.extend(settings.uplinks.iter().flat_map(expand::uplink));
    let limits = transaction.cgroup_limits()?;
    resources.extend(settings.uplinks.iter().flat_map(|uplink| expand::shaping(uplink, &limits)));
    resources.extend(settings.xdp.iter().filter_map(|(uplink, mode)| expand::xdp(uplink, *mode)));
    if settings.firewall == Firewall::Respect {
        resources.extend(settings.uplinks.iter().map(expand::forwarding));
    }
    resources.extend(transaction.networks()?.iter().flat_map(expand::network));
    Ok(look_at(machine, resources).await)
}

/// Looks at the rules of masquerade, of the deny list, at limits of cgroups and at direct links.
pub(super) async fn examine_rules<M: Machine>(
    machine: &M,
    transaction: &Transaction,
) -> Result<Examination, Error> {
    let mut resources: Vec<Resource> = transaction.masquerades()?.iter().map(expand::masquerade).collect();
    resources.extend(transaction.unmasqueraded()?.into_iter().map(expand::unmasqueraded));
    resources.extend(transaction.denied()?.into_iter().map(expand::denied));
    resources.extend(transaction.cgroup_limits()?.iter().map(expand::cgroup_limit));
    resources.extend(transaction.directs()?.iter().map(expand::direct));
    Ok(look_at(machine, resources).await)
}

/// Looks at what an endpoint is made of.
pub(super) async fn examine_endpoint<M: Machine>(
    machine: &M,
    transaction: &Transaction,
    endpoint: &Endpoint,
) -> Result<Examination, Error> {
    let networks = transaction.networks_of(endpoint)?;
    Ok(look_at(machine, expand::endpoint(endpoint, &networks)).await)
}

/// Looks at what is published and at floating addresses.
pub(super) async fn examine_mappings<M: Machine>(
    machine: &M,
    transaction: &Transaction,
) -> Result<Examination, Error> {
    let mappings = transaction.port_maps()?;
    let floatings = transaction.floatings()?;
    let resources: Vec<Resource> = mappings
        .iter()
        .flat_map(expand::port_map)
        .chain(floatings.iter().flat_map(expand::floating))
        .collect();
    // One that cannot be looked at is rare among fifty thousand that are asked for at once.
    match machine.states(&resources).await {
        Ok(states) => Ok(Examination::of(resources.into_iter().zip(states.into_iter().map(Ok)))),
        Err(error) => Err(kernel("look at what is published")(error)),
    }
}

async fn look_at<M: Machine>(machine: &M, resources: Vec<Resource>) -> Examination {
    let mut states = Vec::with_capacity(resources.len());
    for resource in &resources {
        states.push(machine.state(resource).await.map_err(|error| in_full(&error)));
    }
    Examination::of(resources.into_iter().zip(states))
}

impl Examination {
    /// Adds another.
    pub(super) fn extend(&mut self, other: Self) {
        self.present.extend(other.present);
        self.differences.extend(other.differences);
    }

    fn of(states: impl Iterator<Item = (Resource, Result<State, String>)>) -> Self {
        let mut examination = Self::default();
        for (resource, state) in states {
            let how = match state {
                Ok(State::Present) => {
                    examination.present.push(resource);
                    continue;
                }
                Ok(State::Absent) => MISSING.to_owned(),
                Ok(State::Differs(how)) => how,
                Err(why) => why,
            };
            examination.differences.push(Difference { resource, how });
        }
        examination
    }
}
