//! Everything of a host that vnet could change, to be compared.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Lab, Netns, everything_below, namespaces_of};

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

    /// Compares with an earlier one.
    ///
    /// # Panics
    /// With the differences, if there are any.
    #[track_caller]
    pub fn assert_same_as(&self, earlier: &Self) {
        let gone: Vec<_> = earlier.lines.difference(&self.lines).collect();
        let new: Vec<_> = self.lines.difference(&earlier.lines).collect();
        assert!(gone.is_empty() && new.is_empty(), "the host changed\ngone: {gone:#?}\nnew: {new:#?}");
    }

    /// Whether any line contains all of `words`.
    #[must_use]
    pub fn mentions(&self, words: &[&str]) -> bool {
        self.lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
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
        format!("{} kind {} up {up}", fields.join(" "), link["linkinfo"]["info_kind"])
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

/// Without the handles that the kernel chooses: 8000 to fffe, each in turn (`qdisc_alloc_handle`).
fn qdiscs(host: &Netns) -> Vec<String> {
    let number = |word: &str| u16::from_str_radix(word.strip_suffix(':')?, 16).ok();
    let chosen = |word: &&str| number(word).is_some_and(|handle| (0x8000..0xffff).contains(&handle));
    let lines = owned(&host.run(&["tc", "qdisc"]).ok().stdout);
    let words =
        |line: String| line.split_whitespace().filter(|word| !chosen(word)).collect::<Vec<_>>().join(" ");
    lines.into_iter().map(words).collect()
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
