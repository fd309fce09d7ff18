//! The machine, its kernel, its interfaces and routes.

use super::super::host::Host;
use super::super::router::bridge_of;
use super::{Facts, Found};
use crate::kernel::Interface;
use crate::spec::{Firewall, InterfaceName, Network, Router, Subnet};

/// A Linux release that has a fault mended: from this patch level of its series on.
type MendedIn = ((u32, u32), u32);

/// Where `bpf_redirect_peer` takes from a packet what IPsec has noted of it (CVE-2025-37959): the series that were
/// maintained then; every later one has it.
const SCRUBS: [MendedIn; 4] = [((6, 1), 139), ((6, 6), 91), ((6, 12), 29), ((6, 14), 7)];

/// What the kernel is slower or less safe by, or does not do.
pub(super) fn kernel(facts: &Facts) -> Result<Vec<Found>, String> {
    let environment = facts.environment.as_ref().map_err(String::clone)?;
    let mut found = Vec::new();
    if environment.compiles_bpf == Some(false) {
        found.push(Found {
            problem: "the kernel interprets BPF programs instead of compiling them: each packet costs several times \
                      as much"
                .to_owned(),
            fix: "`sysctl -w net.core.bpf_jit_enable=1`".to_owned(),
        });
    }
    if environment.version.is_some_and(|version| !has(version, &SCRUBS)) {
        found.push(Found {
            problem: format!(
                "Linux {} hands packets to endpoints with what IPsec noted of them on the host (CVE-2025-37959)",
                environment.version.map(|(major, minor, patch)| format!("{major}.{minor}.{patch}")).unwrap_or_default()
            ),
            fix: "nothing, if the host has no IPsec; otherwise a kernel from 6.1.139, 6.6.91, 6.12.29 or 6.15 on"
                .to_owned(),
        });
    }
    let v6 = facts.networks.iter().find(|network| network.segments.has_v6() && !network.internal);
    if let Some(network) = v6.filter(|_| !environment.forwards_v6) {
        let respected = facts.settings.firewall == Firewall::Respect;
        let what = if respected { "first packets to published ports, and " } else { "" };
        found.push(Found {
            problem: format!(
                "the host's stack does not forward the IPv6 of network {}: {what}packets that the fast path leaves to \
                 the stack are lost (this kernel has no force_forwarding, which came with Linux 6.17)",
                network.name
            ),
            fix: "`sysctl -w net.ipv6.conf.all.forwarding=1`; the host then ignores router advertisements unless \
                  accept_ra is 2"
                .to_owned(),
        });
    }
    Ok(found)
}

/// Whether a release is one that has a fault mended, by the levels of the series that got the repair; a series that is
/// between or before them never did.
fn has((major, minor, patch): (u32, u32, u32), mended: &[MendedIn]) -> bool {
    let newest = mended.iter().map(|(series, _)| *series).max();
    newest.is_none_or(|newest| (major, minor) > newest)
        || mended.iter().any(|(series, from)| *series == (major, minor) && patch >= *from)
}

/// What others may read or write though it is the instance's.
pub(super) fn permissions(facts: &Facts) -> Result<Vec<Found>, String> {
    let environment = facts.environment.as_ref().map_err(String::clone)?;
    let found = environment.open_to_others.iter().map(|(path, how)| Found {
        problem: format!(
            "{} {how}: whoever can write there decides what this host publishes",
            path.display()
        ),
        fix: format!("`chown root:root {0} && chmod go-rwx {0}`", path.display()),
    });
    Ok(found.collect())
}

impl Facts {
    /// Of a router, its bridge; or what has the name of the bridge now, after a comma. Nothing where it cannot be seen.
    fn bridge_outside(&self) -> Option<(&Router, Result<&Interface, String>)> {
        let router = self.settings.router.as_ref()?;
        Some((router, bridge_of(router, self.outside.as_ref()?)))
    }

    /// Whether the bridge of a router is known to be gone.
    pub(super) fn is_bridge_lost(&self) -> bool {
        matches!(self.bridge_outside(), Some((_, Err(_))))
    }
}

/// Uplinks that lead nowhere, and ways out that are not by an uplink.
pub(super) fn uplinks(facts: &Facts) -> Result<Vec<Found>, String> {
    let Facts { host, settings, networks, .. } = facts;
    let mut found = Vec::new();
    if let Some((router, Err(instead))) = facts.bridge_outside() {
        let Router { bridge, ifname, .. } = router;
        found.push(Found {
            problem: format!(
                "bridge {bridge} outside is gone{instead}: nothing comes in or goes out by uplink {ifname}"
            ),
            fix: format!("have whoever has made {bridge} make it again, then `vnet up`"),
        });
    }
    for uplink in &settings.uplinks {
        match host.interface(uplink.as_str()) {
            None => found.push(Found {
                problem: format!("uplink {uplink} is gone: nothing comes in or goes out by it"),
                fix: "bring the interface back, then `vnet up`; without it `vnet up` takes it out of the record"
                    .to_owned(),
            }),
            Some(interface) if !interface.up => found.push(Found {
                problem: format!("uplink {uplink} is down: nothing passes before it is up"),
                fix: format!("`ip link set {uplink} up`"),
            }),
            Some(_) => {}
        }
    }
    let goes_out = |v4: bool| {
        let outwards = networks.iter().filter(|network| !network.internal);
        outwards.flat_map(|network| network.segments.subnets()).any(|subnet| subnet.is_v4() == v4)
    };
    for v4 in [true, false].into_iter().filter(|v4| goes_out(*v4)) {
        let defaults = host
            .routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0 && route.destination.addr().is_ipv4() == v4);
        let best = defaults.min_by_key(|route| route.metric).and_then(|route| route.interface.as_deref());
        let Some(best) = best.filter(|best| settings.uplinks.iter().all(|uplink| uplink.as_str() != *best))
        else {
            continue;
        };
        let family = if v4 { "IPv4" } else { "IPv6" };
        found.push(Found {
            problem: format!(
                "the host's default route of {family} leads out by {best}, which is no uplink: what endpoints send \
                 to the world is not translated there and gets no answer"
            ),
            fix: if best.parse().is_ok_and(|name| can_be_uplink(facts, &name)) {
                format!("`vnet up --uplink {best}`")
            } else {
                format!("have it lead out by an uplink: {best} cannot be one")
            },
        });
    }
    Ok(found)
}

/// Whether `vnet up` would take an interface for an uplink.
fn can_be_uplink(facts: &Facts, name: &InterfaceName) -> bool {
    facts.networks.iter().all(|network| network.bridge != *name) && facts.host.check_uplink(name).is_ok()
}

/// Programs of others in front of the instance's own: what they keep, vnet never sees.
pub(super) fn hooks(facts: &Facts) -> Result<Vec<Found>, String> {
    let environment = facts.environment.as_ref().map_err(String::clone)?;
    let found = environment.in_front.iter().map(|(hook, interface, programs)| {
        let numbers: Vec<String> = programs.iter().map(ToString::to_string).collect();
        Found {
            problem: format!(
                "another program is attached in front of {} on {interface} (number {}): packets for which it decides \
                 anything but to go on are neither translated nor counted by vnet",
                hook.name(),
                numbers.join(", ")
            ),
            fix: format!(
                "`bpftool prog show id {}` says what it is; have it return TCX_NEXT, or attach it behind vnet's",
                numbers[0]
            ),
        }
    });
    Ok(found.collect())
}

/// Prefixes of networks that somebody else uses by now.
pub(super) fn routes(facts: &Facts) -> Result<Vec<Found>, String> {
    let clashes = facts.networks.iter().flat_map(|network| {
        let others = without_bridge(&facts.host, network);
        let subnets: Vec<Subnet> = network.segments.subnets().collect();
        subnets.into_iter().filter_map(move |subnet| Some((network, subnet, others.occupant(subnet.net())?)))
    });
    let found = clashes.map(|(network, subnet, what)| Found {
        problem: format!(
            "{subnet} of network {} overlaps {what}: one of them hides the other's addresses from this host",
            network.name
        ),
        fix: "take that address or route away, or make the network again with another prefix (`vnet network rm`, \
              `vnet network create --subnet CIDR`; for network default `vnet down`, `vnet up --subnet CIDR`)"
            .to_owned(),
    });
    Ok(found.collect())
}

/// The host without a network's own bridge.
fn without_bridge(host: &Host, network: &Network) -> Host {
    let bridge = network.bridge.as_str();
    let others = host.interfaces.iter().filter(|interface| interface.name != bridge);
    let routes = host.routes.iter().filter(|route| route.interface.as_deref() != Some(bridge));
    Host { interfaces: others.cloned().collect(), routes: routes.cloned().collect() }
}

/// Uplinks that carry less than endpoints send.
pub(super) fn mtu(facts: &Facts) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    if let Some((router, Ok(bridge))) = facts.bridge_outside()
        && bridge.mtu != router.mtu
    {
        found.push(Found {
            problem: format!(
                "bridge {} outside has an MTU of {}, the link to it one of {}: what is larger than either is lost there \
                 without a word",
                bridge.name, bridge.mtu, router.mtu
            ),
            fix: "`vnet up`: the link takes over the bridge's MTU".to_owned(),
        });
    }
    for uplink in &facts.settings.uplinks {
        let Some(interface) = facts.host.interface(uplink.as_str()) else { continue };
        for network in facts.networks.iter().filter(|it| !it.internal && it.mtu > interface.mtu) {
            found.push(Found {
                problem: format!(
                    "network {} has an MTU of {}, uplink {uplink} one of {}: what is larger is answered with \"too \
                     big\" or cut into fragments, and senders that ignore that get stuck",
                    network.name, network.mtu, interface.mtu
                ),
                fix: if network.follows_uplink && facts.settings.uplinks.first() == Some(uplink) {
                    "`vnet up`: the network takes over the MTU of the first uplink".to_owned()
                } else {
                    format!("make the network again with `--mtu {}`", interface.mtu)
                },
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_is_in_its_patch_level_and_in_every_later_series() {
        for (version, expected) in [
            ((6, 1, 138), false),
            ((6, 1, 139), true),
            ((6, 6, 90), false),
            ((6, 8, 99), false),
            ((5, 15, 200), false),
            ((6, 12, 95), true),
            ((6, 13, 12), false),
            ((6, 15, 0), true),
            ((6, 18, 44), true),
            ((7, 0, 0), true),
        ] {
            assert_eq!(has(version, &SCRUBS), expected, "{version:?}");
        }
    }
}
