//! Observe, plan, apply: the same way up, down and back again.
//!
//! Adding fails fast and is undone; removing goes on and reports everything. What is undone is what the plan
//! created, and what it changed of which it says how it was before.

#[cfg(test)]
pub(crate) mod fake;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use vnet_common::{CtEntry, Proto, Tuple};

use crate::firewall::Netfilter;
use crate::flow::{Room, Stats, Tables};
use crate::kernel::{self, Addressed, BoundSocket, Environment, Interface, Kernel, Process, Route};
use crate::plan::{Cgroup, Op, Pacing, Plan, Resource, State, TableSizes, Veth};

/// Something whose resources can be observed and changed: the kernel, or a test's model of it.
#[allow(async_fn_in_trait, reason = "one thread, no `Send` bound is wanted")]
pub trait Machine {
    /// What goes wrong with it.
    type Error: std::error::Error + Send + Sync + 'static;

    /// How a resource stands.
    async fn state(&self, resource: &Resource) -> Result<State, Self::Error>;
    /// Whether there is anything of a resource, as described or not: what is to be removed is asked no more.
    async fn is_there(&self, resource: &Resource) -> Result<bool, Self::Error> {
        Ok(self.state(resource).await? != State::Absent)
    }
    /// How resources stand, in their order, asked at once if it can.
    async fn states(&self, resources: &[Resource]) -> Result<Vec<State>, Self::Error> {
        let mut states = Vec::with_capacity(resources.len());
        for resource in resources {
            states.push(self.state(resource).await?);
        }
        Ok(states)
    }
    /// Whether there is anything of each of these resources, likewise.
    async fn are_there(&self, resources: &[Resource]) -> Vec<Result<bool, Self::Error>> {
        let mut there = Vec::with_capacity(resources.len());
        for resource in resources {
            there.push(self.is_there(resource).await);
        }
        there
    }
    /// Does one step.
    async fn apply(&self, op: &Op) -> Result<(), Self::Error>;
    /// Does steps that [join](Op::joins) each other, in order and at once if it can; one that fails comes with the
    /// number of those done before it.
    async fn apply_joined(&self, ops: &[Op]) -> Result<(), (usize, Self::Error)> {
        for (done, op) in ops.iter().enumerate() {
            self.apply(op).await.map_err(|error| (done, error))?;
        }
        Ok(())
    }
    /// The host's interfaces.
    async fn interfaces(&self) -> Result<Vec<Interface>, Self::Error>;
    /// The host's addresses, by interface: of those that have some, and of those of these names that there are.
    async fn addressed(&self, named: &[&str]) -> Result<Vec<Addressed>, Self::Error>;
    /// Whether the host has an interface of this name.
    async fn has_interface(&self, name: &str) -> Result<bool, Self::Error>;
    /// The host's routes.
    async fn routes(&self) -> Result<Vec<Route>, Self::Error>;
    /// The rules of the host's own firewall.
    fn netfilter(&self) -> Result<Netfilter, Self::Error>;
    /// The tracked flows.
    fn flow_tables(&self) -> Result<Tables, Self::Error>;
    /// What flows use of what there is; `endpoints` are those to count for, with their names and addresses.
    fn flow_stats(&self, endpoints: &[(String, Vec<IpAddr>)], room: Room) -> Result<Stats, Self::Error>;
    /// What of it matters beside what it cannot do without.
    fn environment(&self) -> Result<Environment, Self::Error>;
    /// Forgets the flows for which `doomed` holds.
    fn forget_flows(&self, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, Self::Error>;
    /// The host's sockets that hold one of these ports.
    fn bound_sockets(
        &self,
        proto: Proto,
        ports: RangeInclusive<u16>,
    ) -> Result<Vec<BoundSocket>, Self::Error>;
    /// A process that has a socket.
    fn holder_of(&self, socket: &BoundSocket) -> Option<Process>;
    /// Whether both ends of an endpoint's pair are there and in their places, though not all of it may be as described.
    async fn is_whole(&self, veth: &Veth) -> Result<bool, Self::Error>;
    /// Whether it has what fragments wait in for the first of their datagram.
    async fn can_hold_fragments(&self) -> Result<bool, Self::Error>;
    /// How what limited cgroups send can be made to wait; `None` if it has nothing for it.
    async fn pacing(&self) -> Result<Option<Pacing>, Self::Error>;
    /// A cgroup as it is recorded.
    fn cgroup(&self, asked: Cgroup) -> Result<Cgroup, Self::Error>;
    /// Whether there is such a cgroup; of a class, whether there are any.
    fn has_cgroup(&self, asked: &Cgroup) -> Result<bool, Self::Error>;
    /// Checks that a network namespace can be opened at a path.
    fn check_namespace(&self, path: &Path) -> Result<(), Self::Error>;
    /// Whether it speaks IPv6 at all.
    fn has_ipv6(&self) -> bool;
    /// The number of its network namespace.
    fn namespace(&self) -> Result<u64, Self::Error>;
    /// The interfaces outside of it, if it is a router's and was entered from there.
    async fn outside(&self) -> Result<Option<Vec<Interface>>, Self::Error>;
    /// The number of the network namespace there.
    fn origin(&self) -> Result<Option<u64>, Self::Error>;
    /// What there is of an instance, as far as that can be found without its record.
    async fn without_record(&self) -> Result<Vec<Resource>, Self::Error> {
        let data_path = Resource::DataPath(TableSizes::default());
        let is_there = self.state(&data_path).await? != State::Absent;
        Ok(is_there.then_some(data_path).into_iter().collect())
    }
    /// Refuses tables of another version that are in use.
    fn check_version(&self) -> Result<(), Self::Error> {
        Ok(())
    }
    /// Refuses tables of another version that are in use and cannot be taken over.
    fn check_takeover(&self) -> Result<(), Self::Error> {
        Ok(())
    }
    /// Whether the programs in use are those of another build of vnet.
    fn has_other_build(&self) -> bool {
        false
    }
}

impl Machine for Kernel {
    type Error = kernel::Error;

    async fn state(&self, resource: &Resource) -> Result<State, kernel::Error> {
        Self::state(self, resource).await
    }

    async fn is_there(&self, resource: &Resource) -> Result<bool, kernel::Error> {
        Self::is_there(self, resource).await
    }

    async fn states(&self, resources: &[Resource]) -> Result<Vec<State>, kernel::Error> {
        Self::states(self, resources).await
    }

    async fn are_there(&self, resources: &[Resource]) -> Vec<Result<bool, kernel::Error>> {
        Self::are_there(self, resources).await
    }

    async fn apply(&self, op: &Op) -> Result<(), kernel::Error> {
        Self::apply(self, op).await
    }

    async fn apply_joined(&self, ops: &[Op]) -> Result<(), (usize, kernel::Error)> {
        Self::apply_joined(self, ops).await
    }

    async fn interfaces(&self) -> Result<Vec<Interface>, kernel::Error> {
        Self::interfaces(self).await
    }

    async fn addressed(&self, named: &[&str]) -> Result<Vec<Addressed>, kernel::Error> {
        Self::addressed(self, named).await
    }

    async fn has_interface(&self, name: &str) -> Result<bool, kernel::Error> {
        Self::has_interface(self, name)
    }

    async fn routes(&self) -> Result<Vec<Route>, kernel::Error> {
        Self::routes(self).await
    }

    fn netfilter(&self) -> Result<Netfilter, kernel::Error> {
        Self::netfilter(self)
    }

    fn flow_tables(&self) -> Result<Tables, kernel::Error> {
        Self::flow_tables(self)
    }

    fn flow_stats(&self, endpoints: &[(String, Vec<IpAddr>)], room: Room) -> Result<Stats, kernel::Error> {
        Self::flow_stats(self, endpoints, room)
    }

    fn environment(&self) -> Result<Environment, kernel::Error> {
        Self::environment(self)
    }

    fn forget_flows(&self, doomed: &dyn Fn(&Tuple, &CtEntry) -> bool) -> Result<usize, kernel::Error> {
        Self::forget_flows(self, doomed)
    }

    fn bound_sockets(
        &self,
        proto: Proto,
        ports: RangeInclusive<u16>,
    ) -> Result<Vec<BoundSocket>, kernel::Error> {
        Self::bound_sockets(proto, ports)
    }

    fn holder_of(&self, socket: &BoundSocket) -> Option<Process> {
        Self::holder_of(socket)
    }

    async fn is_whole(&self, veth: &Veth) -> Result<bool, kernel::Error> {
        Self::is_whole(self, veth).await
    }

    async fn can_hold_fragments(&self) -> Result<bool, kernel::Error> {
        Self::can_hold_fragments(self).await
    }

    async fn pacing(&self) -> Result<Option<Pacing>, kernel::Error> {
        Self::pacing(self).await
    }

    fn cgroup(&self, asked: Cgroup) -> Result<Cgroup, kernel::Error> {
        Self::cgroup(asked)
    }

    fn has_cgroup(&self, asked: &Cgroup) -> Result<bool, kernel::Error> {
        Self::has_cgroup(asked)
    }

    fn check_namespace(&self, path: &Path) -> Result<(), kernel::Error> {
        Self::check_namespace(path)
    }

    fn has_ipv6(&self) -> bool {
        Self::has_ipv6()
    }

    fn namespace(&self) -> Result<u64, kernel::Error> {
        Self::namespace(self)
    }

    async fn outside(&self) -> Result<Option<Vec<Interface>>, kernel::Error> {
        Self::outside(self).await
    }

    fn origin(&self) -> Result<Option<u64>, kernel::Error> {
        Self::origin(self)
    }

    async fn without_record(&self) -> Result<Vec<Resource>, kernel::Error> {
        Self::without_record(self).await
    }

    fn check_version(&self) -> Result<(), kernel::Error> {
        Self::check_version(self)
    }

    fn check_takeover(&self) -> Result<(), kernel::Error> {
        Self::check_takeover(self)
    }

    fn has_other_build(&self) -> bool {
        Self::has_other_build(self)
    }
}

/// A plan that could not be carried out.
#[derive(Debug)]
pub struct Failure {
    /// The steps that failed, in the order in which they did: one for an addition, any number for a removal.
    pub failed: Vec<FailedOp>,
    /// What could not be undone.
    pub not_undone: Vec<FailedOp>,
}

/// A step that failed, and why.
#[derive(Debug)]
pub struct FailedOp {
    /// The step.
    pub op: Op,
    /// Why it failed.
    pub error: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, &self.failed)?;
        if !self.not_undone.is_empty() {
            f.write_str("; besides, undoing what was done failed: ")?;
            list(f, &self.not_undone)?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, failed: &[FailedOp]) -> fmt::Result {
    for (i, FailedOp { op, error }) in failed.iter().enumerate() {
        let separator = if i == 0 { "" } else { "; " };
        write!(f, "{separator}{op}: {error}")?;
        let mut source = error.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
    }
    Ok(())
}

impl std::error::Error for Failure {}

/// Pairs each resource with its state.
///
/// # Errors
/// When the machine cannot say how one stands.
pub async fn observe<M: Machine>(
    machine: &M,
    resources: Vec<Resource>,
) -> Result<Vec<(Resource, State)>, M::Error> {
    let states = machine.states(&resources).await?;
    Ok(resources.into_iter().zip(states).collect())
}

/// Observes what is to be removed: what cannot be observed counts as there, so that its removal is tried.
pub async fn observe_obsolete<M: Machine>(machine: &M, resources: Vec<Resource>) -> Vec<(Resource, State)> {
    let there = machine.are_there(&resources).await;
    let observed = resources.into_iter().zip(there).map(|(resource, there)| {
        let state = match there {
            Ok(true) => State::Present,
            Ok(false) => State::Absent,
            Err(error) => State::Differs(error.to_string()),
        };
        (resource, state)
    });
    observed.collect()
}

/// Does the steps in order; when one fails, undoes it and those before it, last first.
///
/// # Errors
/// What failed, and what could not be undone.
pub async fn apply<M: Machine>(machine: &M, plan: &Plan) -> Result<(), Failure> {
    let mut done = 0;
    for ops in plan.ops.chunk_by(Op::joins) {
        if let Err((nth, error)) = machine.apply_joined(ops).await {
            // The failed step may have been done in part, so it is undone as well.
            let not_undone = do_all(machine, &plan.undo(done + nth + 1)).await;
            let failed = vec![FailedOp { op: ops[nth].clone(), error: Box::new(error) }];
            return Err(Failure { failed, not_undone });
        }
        done += ops.len();
    }
    Ok(())
}

/// Does every step that can be done, whatever fails on the way.
///
/// # Errors
/// Everything that failed.
pub async fn tear_down<M: Machine>(machine: &M, plan: &Plan) -> Result<(), Failure> {
    let failed = do_all(machine, &plan.ops).await;
    if failed.is_empty() { Ok(()) } else { Err(Failure { failed, not_undone: Vec::new() }) }
}

/// Does every step that can be done, and gives those that failed.
async fn do_all<M: Machine>(machine: &M, ops: &[Op]) -> Vec<FailedOp> {
    let mut failed = Vec::new();
    for mut ops in ops.chunk_by(Op::joins) {
        while !ops.is_empty()
            && let Err((nth, error)) = machine.apply_joined(ops).await
        {
            failed.push(FailedOp { op: ops[nth].clone(), error: Box::new(error) });
            ops = &ops[nth + 1..];
        }
    }
    failed
}
