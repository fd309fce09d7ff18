//! The doctor: what is not as somebody would expect, and what to do about it. Nothing is changed.
//!
//! A check is an entry of [`CHECKS`]: a name and a function of what was found out about the host.

mod firewall;
mod host;
mod record;
mod usage;

use super::cgroup_limit::missing;
use super::examine::{Difference, Examination, examine, examine_endpoint, examine_mappings, examine_rules};
use super::flows::{named, room};
use super::host::Host;
use super::masquerade::missing_addresses;
use super::reachable::{in_full, without_floating};
use super::{Error, Manager, kernel};
use crate::firewall::Netfilter;
use crate::kernel::{Addressed, Environment, Interface};
use crate::plan::Resource;
use crate::reconcile::Machine;
use crate::spec::{Cgroup, Endpoint, Network, PortMap, Settings};
use crate::store::Transaction;

/// Something that is not as somebody would expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    /// What it is.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

/// What came of all checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// What was found, in the order of the checks.
    pub findings: Vec<Finding>,
    /// The checks that could not be run, each with the reason.
    pub failed: Vec<String>,
}

/// What is known of the instance and its host.
struct Facts {
    settings: Settings,
    networks: Vec<Network>,
    mappings: Vec<PortMap>,
    host: Host,
    /// Without floating addresses, at which nothing is published.
    interfaces: Vec<Addressed>,
    netfilter: Result<Netfilter, String>,
    environment: Result<Environment, String>,
    /// What is recorded of the instance, its networks and rules, what is published and what floats.
    examined: Examination,
    /// Endpoints of which something is not as recorded.
    endpoints: Vec<(Endpoint, Vec<Difference>)>,
    /// How many entries the endpoints have in the map of their addresses.
    endpoint_entries: usize,
    /// Limits whose cgroup is not there, with what is to be said of them.
    missing_cgroups: Vec<(Cgroup, String)>,
    /// Addresses that rules translate to and the host has not.
    missing_addresses: Vec<String>,
    /// The interfaces of a router's host, where its bridge is; nothing if that cannot be seen from here.
    outside: Option<Vec<Interface>>,
    /// How many things are to be gone and are not yet.
    going: bool,
    /// What flows have nearly all in use.
    flows: Result<Vec<String>, String>,
}

/// A check. It fails when what it needs to know could not be found out.
struct Check {
    name: &'static str,
    run: fn(&Facts) -> Result<Vec<Found>, String>,
}

/// A finding of the check that returns it.
struct Found {
    problem: String,
    fix: String,
}

/// Every check there is.
const CHECKS: [Check; 15] = [
    Check { name: "kernel", run: host::kernel },
    Check { name: "permissions", run: host::permissions },
    Check { name: "uplinks", run: host::uplinks },
    Check { name: "hooks", run: host::hooks },
    Check { name: "record", run: record::record },
    Check { name: "endpoints", run: record::endpoints },
    Check { name: "limits", run: record::limits },
    Check { name: "addresses", run: record::addresses },
    Check { name: "routes", run: host::routes },
    Check { name: "mtu", run: host::mtu },
    Check { name: "room", run: usage::room },
    Check { name: "firewall", run: firewall::published },
    Check { name: "docker-user", run: firewall::docker_user },
    Check { name: "forward", run: firewall::forward_policy },
    Check { name: "br_netfilter", run: firewall::bridged_frames },
];

/// The check of what namespaces are told of name servers, which nothing here knows: whoever does makes its findings.
pub const RESOLVER_CHECK: &str = "resolver";

/// The names of all checks.
pub fn checks() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.name).chain([RESOLVER_CHECK])
}

impl<M: Machine> Manager<M> {
    /// Runs every check.
    ///
    /// # Errors
    /// When the record or the host's interfaces cannot be read.
    pub async fn diagnose(&self) -> Result<Diagnosis, Error> {
        let (transaction, settings) = self.begin()?;
        let host = Host::observe(&self.machine).await?;
        let uplinks: Vec<&str> = settings.uplinks.iter().map(|uplink| uplink.as_str()).collect();
        let interfaces =
            self.machine.addressed(&uplinks).await.map_err(kernel("list the host's addresses"))?;
        let mut examined = examine(&self.instance, &self.machine, &transaction, &settings).await?;
        examined.extend(examine_rules(&self.machine, &transaction).await?);
        examined.extend(examine_mappings(&self.machine, &transaction).await?);
        let recorded = transaction.endpoints()?;
        let mut endpoints = Vec::new();
        let mut endpoint_entries = 0;
        for endpoint in &recorded {
            let Examination { present, differences } =
                examine_endpoint(&self.machine, &transaction, endpoint).await?;
            let is_entry = |resource: &&Resource| matches!(resource, Resource::Endpoint { .. });
            endpoint_entries += present.iter().filter(is_entry).count();
            if !differences.is_empty() {
                endpoints.push((endpoint.clone(), differences));
            }
        }
        let flows = self.machine.flow_stats(&named(&recorded), room(&settings));
        let facts = Facts {
            networks: transaction.networks()?,
            mappings: transaction.port_maps()?,
            missing_cgroups: self.missing_cgroups(&transaction)?,
            missing_addresses: missing_addresses(&transaction, &interfaces)?,
            host,
            interfaces: without_floating(interfaces, &transaction.floatings()?),
            netfilter: self.machine.netfilter().map_err(|error| in_full(&error)),
            environment: self.machine.environment().map_err(|error| in_full(&error)),
            examined,
            outside: self.machine.outside().await.map_err(kernel("list the interfaces outside"))?,
            endpoints,
            endpoint_entries,
            going: !transaction.going()?.is_empty(),
            flows: flows.map(|stats| stats.warnings()).map_err(|error| in_full(&error)),
            settings,
        };
        Ok(run(&facts))
    }
}

impl<M: Machine> Manager<M> {
    fn missing_cgroups(&self, transaction: &Transaction) -> Result<Vec<(Cgroup, String)>, Error> {
        let mut found = Vec::new();
        for limit in transaction.cgroup_limits()? {
            let text = missing(&self.machine, &limit)?;
            found.extend(text.map(|text| (limit.cgroup, text)));
        }
        Ok(found)
    }
}

fn run(facts: &Facts) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    for Check { name, run } in CHECKS {
        match run(facts) {
            Ok(found) => diagnosis.findings.extend(found.into_iter().map(|Found { problem, fix }| Finding {
                check: name,
                problem,
                fix,
            })),
            Err(why) => diagnosis.failed.push(format!("{name}: {why}")),
        }
    }
    diagnosis
}
