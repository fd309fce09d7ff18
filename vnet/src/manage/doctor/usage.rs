//! What fills up.

use vnet_common::maps;

use super::{Facts, Found};
use crate::flow::Usage;
use crate::plan::Resource;
use crate::spec::CgroupLimit;

/// Maps that are nearly full.
pub(super) fn room(facts: &Facts) -> Result<Vec<Found>, String> {
    let flows = facts.flows.as_ref().map_err(String::clone)?;
    let mut found: Vec<Found> = flows
        .iter()
        .map(|warning| Found {
            problem: warning.clone(),
            fix: "`vnet flow stats` shows who has them; make room with `vnet up --max-flows`, `--max-unanswered`, \
                  `--endpoint-flows`, `--nat-ports` or shorter `--timeout`s"
                .to_owned(),
        })
        .collect();
    let recorded = |is_one: fn(&Resource) -> bool| {
        facts.examined.present.iter().filter(|resource| is_one(resource)).count()
    };
    let counted = [
        ("addresses of endpoints", facts.endpoint_entries, maps::ENDPOINT_ENTRIES),
        (
            "prefixes of networks",
            recorded(|it| matches!(it, Resource::Network { .. })),
            maps::NETWORK_ENTRIES,
        ),
        (
            "masquerade rules and floating addresses",
            recorded(|it| matches!(it, Resource::Masquerade { .. })),
            maps::MASQUERADE_ENTRIES,
        ),
        (
            "destinations left out of masquerade",
            recorded(|it| matches!(it, Resource::Unmasqueraded { .. })),
            maps::UNMASQUERADED_ENTRIES,
        ),
        (
            "floating addresses",
            recorded(|it| matches!(it, Resource::Floating { .. })),
            maps::FLOATING_ENTRIES,
        ),
        ("denied sources", recorded(|it| matches!(it, Resource::Denied { .. })), maps::DENIED_ENTRIES),
        (
            "blocks of published ports",
            recorded(|it| matches!(it, Resource::PortMap { .. })),
            maps::PORT_MAP_ENTRIES,
        ),
        (
            "prefixes of clients",
            recorded(|it| matches!(it, Resource::AllowFrom { .. })),
            maps::ALLOW_FROM_ENTRIES,
        ),
        (
            "limits of cgroups",
            recorded(|it| matches!(it, Resource::CgroupLimit(_))),
            CgroupLimit::MOST.into(),
        ),
        ("uplinks", facts.settings.uplinks.len(), maps::UPLINK_ENTRIES),
    ];
    found.extend(counted.into_iter().filter_map(|(what, used, room)| {
        let usage = Usage { used: used as u64, room: room as u64 };
        usage.is_alarming().then(|| Found {
            problem: format!(
                "{what}: {used} of {room} in use ({:.1} %); beyond that, none can be added",
                usage.percent()
            ),
            fix:
                "remove what is not needed, or give some of it to another instance in a namespace of its own"
                    .to_owned(),
        })
    }));
    Ok(found)
}
