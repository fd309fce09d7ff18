//! The verbs: what each command does to an instance, whoever asks for it.
//!
//! Every verb has the same shape:
//! ```text
//! read the record -> check the request against it and the host -> note the wish in a transaction
//!   -> observe what it is made of -> plan -> (dry run: stop) -> commit -> apply
//! ```
//! A wish is on disk before the kernel is touched, and off it again if it was undone. A removal is the reverse:
//! the record goes last. So whatever is there has a record, wherever a command dies.
//!
//! **Ours is what we recorded.** A bridge, namespace, veth pair or attachment that is there before anything was
//! noted of it belongs to somebody else: the verb refuses, and nothing changes.

mod apply;
mod cgroup_limit;
mod connection;
mod deny;
mod description;
mod direct;
mod doctor;
mod endpoint;
mod error;
mod examine;
mod floating;
mod flows;
mod going;
mod held;
mod host;
mod limit;
mod masquerade;
mod network;
mod pool;
mod port_map;
mod reachable;
mod repair;
mod repoint;
mod router;
mod up;

#[cfg(test)]
mod tests;

pub use apply::{Applied, Unnamed};
pub use cgroup_limit::CgroupLimitRequest;
pub use connection::{ConnectRequest, Disconnected};
pub use description::{Description, Doubt, Part};
pub use direct::DirectRequest;
pub use doctor::{Diagnosis, Finding, RESOLVER_CHECK, checks};
pub use endpoint::{EndpointRequest, Place, RemovedEndpoint, no_such_endpoint};
pub use error::{Error, Refused, RefusedPart};
pub use examine::{Difference, Examination, examine};
pub use floating::FloatingRequest;
pub use flows::{named, room};
pub use limit::LimitChange;
pub use masquerade::{MasqueradeRequest, missing_addresses};
pub use network::NetworkRequest;
pub use port_map::PortMapRequest;
pub use reachable::{Reach, UplinkReach, in_full, reach, without_floating};
pub use repair::{Object, Repair, Repaired, Scope};
pub use repoint::MoveRequest;
pub use router::{
    Recorded, RouterRequest, Standing, check_external_of, check_outside_of, is_recorded, recorded_router,
    routers,
};
pub use up::{Downed, Instantiated, UpRequest, down};

use std::net::IpAddr;

use crate::instance::Instance;
use crate::ours;
use crate::plan::{self, Op, Plan, Resource, State};
use crate::reconcile::{self, Machine};
use crate::spec::Settings;
use crate::store::{self, Store, Transaction};

/// Whether to do it, or only to say what would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Do it.
    Apply,
    /// Only plan it.
    DryRun,
}

/// What a verb did, or would do.
#[derive(Debug)]
pub struct Done<T> {
    /// What it was about.
    pub value: T,
    /// The steps; none if nothing was left to do.
    pub ops: Vec<Op>,
    /// Things worth knowing.
    pub notes: Vec<String>,
}

impl<T> Done<T> {
    fn new(value: T, ops: Vec<Op>) -> Self {
        Self { value, ops, notes: Vec::new() }
    }
}

impl<T> Done<Vec<T>> {
    /// What was done about the only request.
    fn of_the_only(mut self) -> Done<T> {
        let value = self.value.pop().expect("one request that is not refused gives one thing");
        Done { value, ops: self.ops, notes: self.notes }
    }
}

/// A resource that a verb wants, and whether it is the instance's already.
struct Wanted {
    resource: Resource,
    claim: Claim,
}

/// What a verb that changes something wants.
struct Steps {
    wanted: Vec<Wanted>,
    obsolete: Vec<Resource>,
    /// What was recorded before of what it changes or takes away.
    former: Vec<Resource>,
}

/// Whether the record knew of a resource before this command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It did: what is there is ours, from this command's last attempt or from before.
    Recorded,
    /// It did not: what is there is somebody else's.
    New,
}

impl Claim {
    fn of<T>(record: Option<&T>) -> Self {
        if record.is_some() { Self::Recorded } else { Self::New }
    }

    fn on(self, resources: impl IntoIterator<Item = Resource>) -> Vec<Wanted> {
        resources.into_iter().map(|resource| Wanted { resource, claim: self }).collect()
    }
}

/// An instance that is up, with its record locked.
#[derive(Debug)]
pub struct Manager<M> {
    instance: Instance,
    machine: M,
    store: Store,
    mode: Mode,
    now: u64,
}

impl<M: Machine> Manager<M> {
    /// Opens an instance that is up. `now` is the time, in seconds since 1970.
    ///
    /// # Errors
    /// When it is not up or its record cannot be read.
    pub fn open(instance: &Instance, machine: M, mode: Mode, now: u64) -> Result<Self, Error> {
        Ok(Self::on(Store::open(instance)?, instance, machine, mode, now))
    }

    /// As [`Self::open`]; nothing if a command is changing the instance at the moment.
    ///
    /// # Errors
    /// When it is not up or its record cannot be read.
    pub fn open_if_free(instance: &Instance, machine: M, now: u64) -> Result<Option<Self>, Error> {
        let store = Store::open_if_free(instance)?;
        Ok(store.map(|store| Self::on(store, instance, machine, Mode::Apply, now)))
    }

    fn on(store: Store, instance: &Instance, machine: M, mode: Mode, now: u64) -> Self {
        Self { instance: instance.clone(), machine, store, mode, now }
    }

    /// The machine it works on; gives the lock back.
    pub fn into_machine(self) -> M {
        self.machine
    }

    /// Begins a verb of an instance that is up.
    fn begin(&self) -> Result<(Transaction, Settings), Error> {
        let transaction = self.store.begin()?;
        let settings = transaction.settings()?.ok_or_else(|| store::Error::not_up(&self.instance))?;
        check_namespace(&self.instance, &self.machine, Some(&settings))?;
        self.check_version()?;
        Ok((transaction, settings))
    }

    /// Refuses to go on with maps of another version, before anything is noted.
    fn check_version(&self) -> Result<(), Error> {
        self.machine.check_version().map_err(kernel("look at the maps"))
    }

    /// Makes what is wanted and takes away what is obsolete, or nothing at all.
    async fn make(
        &self,
        transaction: Transaction,
        what: &str,
        wanted: Vec<Wanted>,
        obsolete: Vec<Resource>,
    ) -> Result<Vec<Op>, Error> {
        self.change(transaction, what, Steps { wanted, obsolete, former: Vec::new() }).await
    }

    /// As [`Self::make`], and goes back to what was described before if a step fails.
    async fn change(&self, transaction: Transaction, what: &str, steps: Steps) -> Result<Vec<Op>, Error> {
        let Steps { wanted, obsolete, former } = steps;
        let gone: Vec<IpAddr> = obsolete.iter().filter_map(Resource::as_host_address).collect();
        let plan = Plan { former, ..self.plan(wanted, obsolete).await? };
        if self.mode == Mode::DryRun {
            return Ok(plan.ops);
        }
        let before = transaction.commit()?;
        let Err(failure) = reconcile::apply(&self.machine, &plan).await else {
            self.forget_host_addresses(&gone)?;
            return Ok(plan.ops);
        };
        let what = what.to_owned();
        if !failure.not_undone.is_empty() {
            return Err(Error::MadeInPart { what, failure });
        }
        self.store.restore(&before)?;
        Err(Error::NotMade { what, failure })
    }

    async fn plan(&self, wanted: Vec<Wanted>, obsolete: Vec<Resource>) -> Result<Plan, Error> {
        let (resources, claims): (Vec<_>, Vec<_>) =
            wanted.into_iter().map(|wanted| (wanted.resource, wanted.claim)).unzip();
        let desired =
            reconcile::observe(&self.machine, resources).await.map_err(kernel("look at what is there"))?;
        for ((resource, state), claim) in desired.iter().zip(claims) {
            refuse_foreign(resource, state, claim)?;
        }
        let obsolete = reconcile::observe_obsolete(&self.machine, obsolete).await;
        Ok(plan::plan(&desired, &obsolete))
    }

    /// Takes away what is obsolete and whatever of it can be taken away, then its record.
    async fn unmake(
        &self,
        transaction: Transaction,
        what: &str,
        obsolete: Vec<Resource>,
        wanted: Vec<Resource>,
    ) -> Result<Vec<Op>, Error> {
        let plan = self.plan(Claim::Recorded.on(wanted), obsolete).await?;
        if self.mode == Mode::DryRun {
            return Ok(plan.ops);
        }
        reconcile::tear_down(&self.machine, &plan)
            .await
            .map_err(|failure| Error::RemovedInPart { what: what.to_owned(), failure })?;
        transaction.commit()?;
        Ok(plan.ops)
    }
}

/// Refuses to touch another host's instance: the names in its record mean other interfaces here.
///
/// # Errors
/// When it lives in another network namespace.
pub fn check_namespace<M: Machine>(
    instance: &Instance,
    machine: &M,
    settings: Option<&Settings>,
) -> Result<(), Error> {
    let Some(settings) = settings else { return Ok(()) };
    let asking = "ask for the host's network namespace";
    let here = machine.namespace().map_err(kernel(asking))?;
    let Some(router) = &settings.router else {
        return if settings.namespace == here { Ok(()) } else { Err(elsewhere(instance)) };
    };
    match machine.origin().map_err(kernel(asking))? {
        Some(host) if host != router.host => Err(of_other_host(instance)),
        _ if settings.namespace == here => Ok(()),
        None if router.host != here => Err(of_other_host(instance)),
        _ => Err(home_gone(instance)),
    }
}

/// What is said of a router whose namespace is not there.
#[must_use]
pub fn home_gone(instance: &Instance) -> Error {
    Error::HomeGone { instance: instance.name().to_owned(), path: ours::home_path(instance.name()) }
}

fn of_other_host(instance: &Instance) -> Error {
    Error::OtherHost { instance: instance.name().to_owned(), directory: instance.run_dir() }
}

fn elsewhere(instance: &Instance) -> Error {
    Error::OtherNamespace { instance: instance.name().to_owned(), directory: instance.run_dir() }
}

/// As [`check_namespace`], for what deals with all of an instance: a router also has something outside of its namespace. May
/// give it another namespace in place of one that has gone; says whether it has to.
fn check_home<M: Machine>(
    instance: &Instance,
    machine: &M,
    settings: Option<&Settings>,
) -> Result<bool, Error> {
    let entered = machine.origin().map_err(kernel("ask for the host's network namespace"))?.is_some();
    match check_namespace(instance, machine, settings) {
        Err(Error::HomeGone { .. }) if entered => Ok(true),
        Ok(()) if !entered && settings.is_some_and(|settings| settings.router.is_some()) => {
            Err(Error::FromWithin { instance: instance.name().to_owned() })
        }
        checked => checked.map(|()| false),
    }
}

/// Refuses to touch what is there without being recorded.
fn refuse_foreign(resource: &Resource, state: &State, claim: Claim) -> Result<(), Error> {
    let state = match state {
        State::Absent => return Ok(()),
        State::Present => String::new(),
        State::Differs(how) => how.clone(),
    };
    if claim == Claim::Recorded || !resource.is_exclusive() {
        return Ok(());
    }
    Err(Error::Foreign { resource: Box::new(resource.clone()), state })
}

fn kernel<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Kernel { doing, source: Box::new(source) }
}
