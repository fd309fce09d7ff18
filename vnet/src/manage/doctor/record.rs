//! What is not as recorded.

use super::{Difference, Facts, Found};
use crate::plan::{Queue, Resource};
use crate::spec::{Cgroup, Endpoint, Namespace};

/// What the instance is made of, its networks, rules, mappings and floating addresses, as far as it is not as recorded.
pub(super) fn record(facts: &Facts) -> Result<Vec<Found>, String> {
    let fix = "bring it back with `vnet up`; if it happens again, find out who changes it";
    let mut found: Vec<Found> = Vec::new();
    let of_lost_uplink = |resource: &Resource| match resource {
        Resource::Uplink { interface }
        | Resource::Attachment { interface, .. }
        | Resource::Xdp { interface, .. }
        | Resource::Queue(Queue { interface, .. })
        | Resource::Forwarding { interface } => {
            let is_uplink = facts.settings.uplinks.iter().any(|uplink| uplink.as_str() == interface);
            is_uplink && facts.host.interface(interface).is_none()
        }
        _ => false,
    };
    // What is wrong with an uplink that is gone is said once, by the check of uplinks; likewise of a bridge outside.
    let said = |resource: &Resource| {
        of_lost_uplink(resource) || matches!(resource, Resource::Leg(_)) && facts.is_bridge_lost()
    };
    for difference in facts.examined.differences.iter().filter(|it| !said(&it.resource)) {
        let unseen = matches!(difference.resource, Resource::Leg(_)) && facts.outside.is_none();
        let fix = if unseen { "run the command on the router's own host, which sees the link" } else { fix };
        found.push(Found { problem: difference.to_string(), fix: fix.to_owned() });
    }
    if facts.going {
        found.push(Found {
            problem: "something was removed in part: the record still names what is to be gone".to_owned(),
            fix: "nothing: the next command that changes anything completes it, `vnet up` for one".to_owned(),
        });
    }
    Ok(found)
}

/// Endpoints of which something is gone or was changed.
pub(super) fn endpoints(facts: &Facts) -> Result<Vec<Found>, String> {
    Ok(facts
        .endpoints
        .iter()
        .filter_map(|(endpoint, differences)| of_endpoint(endpoint, differences))
        .collect())
}

fn of_endpoint(endpoint: &Endpoint, differences: &[Difference]) -> Option<Found> {
    let name = &endpoint.name;
    let is_body = |resource: &Resource| matches!(resource, Resource::Namespace { .. } | Resource::Veth(_));
    let gone: Vec<String> = differences
        .iter()
        .filter(|it| it.is_missing() && is_body(&it.resource))
        .map(|it| it.resource.to_string())
        .collect();
    // Without its link, nothing that goes with the link can be as recorded.
    let problem = if gone.is_empty() {
        let changed = differences.iter().filter(|it| !matches!(it.resource, Resource::Limit(_)));
        let changed: Vec<String> = changed.map(ToString::to_string).collect();
        if changed.is_empty() {
            return None;
        }
        format!("endpoint {name} is not as recorded: {}", changed.join("; "))
    } else {
        format!("endpoint {name} is not there: gone is {}", gone.join("; "))
    };
    let remove = format!("`vnet ns rm {name}`");
    let fix = match endpoint.namespace {
        Namespace::Own | Namespace::Host | Namespace::Shared { .. } => {
            format!("bring it back with `vnet up`, or take it out of the record with {remove}")
        }
        Namespace::Foreign { .. } => format!(
            "bring it back with `vnet up`; if its namespace is another by now, {remove} and attach it again"
        ),
    };
    Some(Found { problem, fix })
}

/// Limits that somebody has taken away or changed: whoever has `CAP_NET_ADMIN` in an endpoint's namespace can. And those
/// of cgroups that are not there.
pub(super) fn limits(facts: &Facts) -> Result<Vec<Found>, String> {
    let limits = facts.endpoints.iter().flat_map(|(endpoint, differences)| {
        let is_there = !differences.iter().any(|it| matches!(it.resource, Resource::Veth(_)));
        let lost = differences.iter().filter(move |_| is_there);
        lost.filter_map(|difference| Some((&endpoint.name, of_limit(difference)?, difference)))
    });
    let found = limits.map(|(name, in_namespace, Difference { resource, how })| {
        let inside = if in_namespace {
            "; if it was changed inside the namespace, keep CAP_NET_ADMIN from what runs there"
        } else {
            ""
        };
        Found {
            problem: format!("endpoint {name}: {resource} is not in force: {how}"),
            fix: format!("bring it back with `vnet up`{inside}"),
        }
    });
    let cgroups = facts.missing_cgroups.iter().map(|(cgroup, missing)| {
        let make = match cgroup {
            Cgroup::Path(_) => "make the cgroup, have `vnet run` running if it comes and goes",
            Cgroup::ClassId(_) => {
                "have the kernel provide net_cls (`modprobe cls_cgroup`, no cgroup_disable=net_cls)"
            }
        };
        let fix = format!("{make}, or remove the limit with `vnet limit rm {}`", cgroup.as_option());
        Found { problem: missing.clone(), fix }
    });
    let cgroups: Vec<Found> = cgroups.collect();
    Ok(found.chain(cgroups).collect())
}

/// Of a limit, whether it is set inside the endpoint's namespace.
fn of_limit(difference: &Difference) -> Option<bool> {
    match &difference.resource {
        Resource::Limit(shaper) => Some(shaper.namespace.is_some()),
        _ => None,
    }
}

/// Addresses that rules translate to, and that the host has not.
pub(super) fn addresses(facts: &Facts) -> Result<Vec<Found>, String> {
    let found = facts.missing_addresses.iter().map(|missing| Found {
        problem: format!("{missing}, so answers do not arrive unless somebody routes them here"),
        fix: "give an uplink the address, have it routed to this host, or remove the rule".to_owned(),
    });
    Ok(found.collect())
}
