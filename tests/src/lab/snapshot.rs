//! Everything of a host that vnet could change, to be compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vnet_common::maps;

use super::{Lab, Netns, everything_below, namespaces_of};

/// The maps that hold what commands ask for.
const OF_COMMANDS: [&str; 11] = [
    maps::CONFIG,
    maps::UPLINKS,
    maps::HOST_ADDRESSES,
    maps::NETWORKS,
    maps::ENDPOINTS,
    maps::MASQUERADE,
    maps::UNMASQUERADED,
    maps::FLOATING,
    maps::DENIED,
    maps::PORT_MAP,
    maps::ALLOW_FROM,
];
/// Fields of their keys and values that number interfaces.
const INTERFACES: [&str; 3] = ["ifindex", "bridge", "hold"];

/// A host at one moment: one line for each thing.
///
/// What the kernel does by itself is left out: timers, carriers, and the link-local addresses and routes that come
/// and go with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lines: BTreeSet<String>,
}

impl Snapshot {
    pub(super) fn take(lab: &Lab) -> Self {
        let mut lines = BTreeSet::new();
        let mut add = |kind: &str, texts: Vec<String>| {
            lines.extend(texts.into_iter().map(|text| format!("{kind}: {}", text.trim())));
        };
        let host = lab.host();
        add("link", links(host));
        add("address", addresses(host));
        add("route", routes(host));
        for (kind, argv) in [
            ("rule", &["ip", "rule"][..]),
            ("rule", &["ip", "-6", "rule"]),
            ("proxied neighbour", &["ip", "neigh", "show", "proxy"]),
            ("nft", &["nft", "list", "ruleset"]),
        ] {
            add(kind, owned(&host.run(argv).ok().stdout));
        }
        add("qdisc", qdiscs(host));
        add("sysctl", sysctls(host));
        add("namespace", namespaces_of(lab.instance()));
        for (what, dir) in lab.directories_of_vnet() {
            let below = everything_below(&dir).into_iter().chain(dir.exists().then_some(dir));
            add(what, below.map(|path| path.display().to_string()).collect());
        }
        Self { lines }
    }

    pub(super) fn take_with_contents(lab: &Lab) -> Self {
        let mut snapshot = Self { lines: Self::take(lab).lines.into_iter().map(without_chance).collect() };
        let mut add = |kind: &str, texts: Vec<String>| {
            snapshot.lines.extend(texts.into_iter().map(|text| format!("{kind}: {text}")));
        };
        add("record", owned(&lab.vnet_ok(&["export"]).stdout));
        let hosts = [lab.host().name(), lab.outside().name()];
        let router = Netns::named(lab.instance());
        for name in namespaces_of(lab.instance()).iter().filter(|name| !hosts.contains(&name.as_str())) {
            let found = inside(&Netns::named(name)).into_iter();
            // There is more than ends of endpoints' links, which have the hardware addresses that are recorded.
            let in_router = |line: String| if name == router.name() { without_chance(line) } else { line };
            add(&format!("in {name}"), found.map(in_router).collect());
        }
        // A router's maps number what is in its own namespace.
        let names = interface_names(if router.exists() { &router } else { lab.host() });
        // While a router has no namespace they number what is not there any more.
        let homeless = lab.run_dir().join("router").exists() && !router.exists();
        for map in OF_COMMANDS.into_iter().filter(|_| !homeless) {
            let entries = entries(lab, map, &names).into_iter();
            // A router that is made again is in another namespace.
            let number = |entry: &String| !(router.exists() && entry.contains("netns_cookie"));
            add(&format!("entry of {map}"), entries.filter(number).collect());
        }
        snapshot
    }

    /// Compares with an earlier one.
    ///
    /// # Panics
    /// With the differences, if there are any.
    #[track_caller]
    pub fn assert_same_as(&self, earlier: &Self) {
        if let Some(differences) = self.differences_to(earlier) {
            panic!("{differences}");
        }
    }

    /// What differs from an earlier one, if anything does.
    #[must_use]
    pub fn differences_to(&self, earlier: &Self) -> Option<String> {
        let gone: Vec<_> = earlier.lines.difference(&self.lines).collect();
        let new: Vec<_> = self.lines.difference(&earlier.lines).collect();
        let same = gone.is_empty() && new.is_empty();
        (!same).then(|| format!("the host changed\ngone: {gone:#?}\nnew: {new:#?}"))
    }

    /// Whether any line contains all of `words`.
    #[must_use]
    pub fn mentions(&self, words: &[&str]) -> bool {
        self.lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

/// A line without what an interface has by chance, and another one of its name has not: its index, the hardware address
/// of a veth pair, the numbers of its XDP program.
fn without_chance(line: String) -> String {
    match line.split_once(": ") {
        Some(("address", text)) => {
            format!("address: {}", text.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        Some(("link", text)) => {
            let text = replaced(text, "xdp ", " altnames", &|xdp| {
                let xdp: Value = serde_json::from_str(xdp).unwrap_or_default();
                format!("mode {} program {}", xdp["mode"], xdp["prog"]["name"])
            });
            if !text.contains("kind \"veth\"") {
                return format!("link: {text}");
            }
            format!("link: {}", replaced(&text, "address ", " mtu", &|_| "of its own".to_owned()))
        }
        _ => line,
    }
}

/// A text with another one between the first `begin` and what comes `end` after it.
fn replaced(text: &str, begin: &str, end: &str, other: &dyn Fn(&str) -> String) -> String {
    let found = text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?)));
    match found {
        Some((before, (old, after))) => format!("{before}{begin}{}{end}{after}", other(old)),
        None => text.to_owned(),
    }
}

/// Name, kind, settings and attached programs of each interface.
fn links(host: &Netns) -> Vec<String> {
    let links = host.ip("-j -d link").json();
    let describe = |link: &Value| {
        let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
        let fields =
            ["ifname", "link_type", "address", "mtu", "master", "promiscuity", "group", "xdp", "altnames"];
        let fields: Vec<String> = fields.iter().map(|field| format!("{field} {}", link[*field])).collect();
        let arp = link["flags"].as_array().is_some_and(|flags| flags.iter().all(|flag| flag != "NOARP"));
        format!("{} arp {arp} kind {} up {up}", fields.join(" "), link["linkinfo"]["info_kind"])
    };
    links.as_array().expect("a list").iter().map(describe).collect()
}

fn addresses(host: &Netns) -> Vec<String> {
    let lines = owned(&host.ip("-o addr").stdout);
    lines.into_iter().filter(|line| !line.contains("scope link")).collect()
}

/// Routes that somebody made: those of the kernel follow from the addresses.
fn routes(host: &Netns) -> Vec<String> {
    let tables = ["-4 route show table all", "-6 route show table all"].map(|args| host.ip(args).stdout);
    let routes = tables.iter().flat_map(|table| owned(table));
    routes
        .filter(|route| !route.contains("proto kernel"))
        .map(|route| route.replace(" linkdown", ""))
        .collect()
}

/// Without counts, and without the handles that the kernel chooses: 8000 to fffe, each in turn (`qdisc_alloc_handle`).
fn qdiscs(host: &Netns) -> Vec<String> {
    let number = |word: &str| u16::from_str_radix(word.strip_suffix(':')?, 16).ok();
    let chosen = |word: &&str| number(word).is_some_and(|handle| (0x8000..0xffff).contains(&handle));
    let lines = owned(&host.run(&["tc", "qdisc"]).ok().stdout);
    let words =
        |line: String| line.split_whitespace().filter(|word| !chosen(word)).collect::<Vec<_>>().join(" ");
    lines.into_iter().map(words).map(|line| without_count(&line)).collect()
}

/// A line about htb without the number of packets that were in none of its classes.
fn without_count(line: &str) -> String {
    const COUNT: &str = " direct_packets_stat ";
    match line.split_once(COUNT) {
        Some((before, after)) => {
            format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    }
}

/// Every setting under `net`, without those that are measurements or made at random.
fn sysctls(host: &Netns) -> Vec<String> {
    let all = owned(&host.run(&["sysctl", "--all", "--pattern", "^net\\."]).stdout);
    assert!(all.len() > 100, "sysctl shows only {all:?}");
    all.into_iter().filter(|line| !line.contains("nf_conntrack_count") && !line.contains("_key")).collect()
}

fn owned(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// What an endpoint finds in its namespace.
fn inside(netns: &Netns) -> Vec<String> {
    let rules = ["-4 rule", "-6 rule"].map(|args| owned(&netns.ip(args).stdout)).concat();
    let addresses = addresses(netns).into_iter().map(|line| without_chance(format!("address: {line}")));
    let links = links(netns).into_iter().map(|line| format!("link: {line}"));
    // Those that were given: others come and go.
    let neighbours = owned(&netns.ip("neigh show nud permanent").stdout);
    [links.collect(), addresses.collect(), routes(netns), rules, qdiscs(netns), neighbours].concat()
}

fn interface_names(host: &Netns) -> BTreeMap<u64, String> {
    let links = host.ip("-j link").json();
    let links = links.as_array().expect("a list").iter();
    links.filter_map(|link| Some((link["ifindex"].as_u64()?, link["ifname"].as_str()?.to_owned()))).collect()
}

/// The entries of a pinned map, by the names of their fields.
fn entries(lab: &Lab, map: &str, names: &BTreeMap<u64, String>) -> Vec<String> {
    let pin = lab.pin_dir().join(map);
    let dump = lab.host().run(&["bpftool", "-j", "map", "dump", "pinned", pin.to_str().expect("a path")]);
    let dump = dump.ok().json();
    let mut entries: Vec<Value> = dump
        .as_array()
        .unwrap_or_else(|| panic!("no entries of {map} in {dump:#}"))
        .iter()
        .map(|entry| entry["formatted"].clone())
        .filter(|entry| map != maps::HOST_ADDRESSES || !is_link_local(&entry["key"]["bytes"]))
        .collect();
    for entry in &mut entries {
        match map {
            maps::UPLINKS => name_interface(&mut entry["key"], names),
            // A mapping gets a number of its own, also when it is made once more.
            maps::PORT_MAP => entry["value"]["id"] = Value::Null,
            maps::ALLOW_FROM => entry["key"]["data"]["mapping"] = Value::Null,
            _ => {}
        }
        name_interfaces(entry, names);
    }
    entries.iter().map(ToString::to_string).collect()
}

/// Whether 16 bytes are an address of fe80::/10: the kernel gives an interface one once it has seen that nobody else
/// has it, and so may do that between two snapshots.
fn is_link_local(bytes: &Value) -> bool {
    let byte = |index: usize| bytes[index].as_u64();
    byte(0) == Some(0xfe) && byte(1).is_some_and(|second| second & 0xc0 == 0x80)
}

/// Gives the interfaces that an entry numbers their names.
fn name_interfaces(value: &mut Value, names: &BTreeMap<u64, String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| name_interfaces(item, names)),
        Value::Object(fields) => {
            for (name, field) in fields {
                if INTERFACES.contains(&name.as_str()) {
                    name_interface(field, names);
                } else {
                    name_interfaces(field, names);
                }
            }
        }
        _ => {}
    }
}

fn name_interface(value: &mut Value, names: &BTreeMap<u64, String>) {
    let name = value.as_u64().and_then(|index| names.get(&index));
    if let Some(name) = name {
        *value = Value::String(name.clone());
    }
}
