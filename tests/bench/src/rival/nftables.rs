//! nftables with maps: one look-up however many ports are published.

use super::bridged::{BRIDGE, Bridged, BridgedMany, NET1, SUBNET};
use super::{Absent, Many, ONE_MORE, PUBLISHED, Rival, Site, TARGET_PORT, many, range, version_of_debian};
use crate::case::Case;

#[derive(Debug)]
pub(super) struct Nftables;

impl Rival for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn what(&self) -> &'static str {
        "masquerade and published ports by nft, the ports in a map; connections are tracked by nf_conntrack"
    }

    fn version(&self) -> Result<String, Absent> {
        version_of_debian("nft", "nftables")
    }

    fn lacks(&self, _case: Case) -> Option<&'static str> {
        None
    }

    fn set_up(&self) -> Box<dyn Site> {
        let host = Bridged::new();
        host.route_loopback();
        host.lab.host().run(&["nft", &ruleset([(PUBLISHED, TARGET_PORT)], "")]).ok();
        Box::new(host)
    }

    fn publish_many(&self, count: u16, _done: &dyn Fn(u16)) -> Option<Box<dyn Many>> {
        let ports = many(count);
        let rules = ruleset(ports.clone().map(|port| (port, port)), "");
        let add = format!("nft add element ip nat tcp_ports {{ {ONE_MORE} : {NET1} . {ONE_MORE} }}");
        let remove = format!("nft delete element ip nat tcp_ports {{ {ONE_MORE} }}");
        let last = *ports.end();
        Some(Box::new(BridgedMany::load(last, "nft -f", &rules, [vec![add], vec![remove]])))
    }

    fn publish_range(&self) -> Option<Box<dyn Many>> {
        // What is in a chain of its own can be taken back without asking for its number first.
        let chain = "\ntable ip range { chain prerouting { type nat hook prerouting priority -99; }; }";
        let rules = ruleset([(PUBLISHED, TARGET_PORT)], "") + chain;
        let range = format!("fib daddr type local tcp dport {}-{} dnat to {NET1}", range::FIRST, range::LAST);
        let add = format!("nft add rule ip range prerouting {range}");
        let remove = "nft flush chain ip range prerouting".to_owned();
        Some(Box::new(BridgedMany::load(range::LAST, "nft -f", &rules, [vec![add], vec![remove]])))
    }
}

/// Docker's rules, as somebody who knows nft would write them, with one more in front of those for forwarded packets.
pub(super) fn ruleset(published: impl IntoIterator<Item = (u16, u16)>, forwarded: &str) -> String {
    let elements = published.into_iter().map(|(port, target)| format!("{port} : {NET1} . {target}"));
    let elements = elements.collect::<Vec<_>>().join(", ");
    let ports = ["tcp", "udp"].map(|proto| {
        format!(
            "map {proto}_ports {{
                type inet_service : ipv4_addr . inet_service
                elements = {{ {elements} }}
            }}"
        )
    });
    let published = "fib daddr type local dnat ip to tcp dport map @tcp_ports
                fib daddr type local dnat ip to udp dport map @udp_ports";
    format!(
        "table ip nat {{
            {}
            chain prerouting {{
                type nat hook prerouting priority -100
                {published}
            }}
            chain output {{
                type nat hook output priority -100
                {published}
            }}
            chain postrouting {{
                type nat hook postrouting priority 100
                ip saddr {SUBNET} oifname != \"{BRIDGE}\" masquerade
                ip saddr {SUBNET} oifname \"{BRIDGE}\" ct status dnat masquerade
                ip saddr 127.0.0.0/8 oifname \"{BRIDGE}\" masquerade
            }}
            chain forward {{
                type filter hook forward priority 0
                policy drop
                {forwarded}
                ct state established,related accept
                iifname \"{BRIDGE}\" accept
                oifname \"{BRIDGE}\" ct status dnat accept
            }}
        }}",
        ports.join("\n"),
    )
}
