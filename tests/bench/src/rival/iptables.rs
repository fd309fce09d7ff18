//! iptables, in both of its kinds, with the rules that Docker writes when its proxy is switched off.

use super::bridged::{BRIDGE, Bridged, BridgedMany, NET1, SUBNET};
use super::{Absent, Many, ONE_MORE, PUBLISHED, Rival, Site, TARGET_PORT, many, range, version_of_debian};
use crate::case::Case;

/// The program that writes nf_tables' rules.
pub(super) const NFT: Iptables = Iptables { program: "iptables-nft" };
/// The one that writes the kernel's older tables.
pub(super) const LEGACY: Iptables = Iptables { program: "iptables-legacy" };

#[derive(Debug)]
pub(super) struct Iptables {
    program: &'static str,
}

impl Rival for Iptables {
    fn name(&self) -> &'static str {
        self.program
    }

    fn what(&self) -> &'static str {
        "masquerade and published ports by the rules that Docker writes, a rule for each port; connections are \
         tracked by nf_conntrack"
    }

    fn version(&self) -> Result<String, Absent> {
        version_of_debian(self.program, "iptables")
    }

    fn lacks(&self, _case: Case) -> Option<&'static str> {
        None
    }

    fn set_up(&self) -> Box<dyn Site> {
        let host = Bridged::new();
        host.route_loopback();
        let published = ["tcp", "udp"].iter().flat_map(|proto| of_port(proto, PUBLISHED, TARGET_PORT));
        for rule in rules().into_iter().chain(published) {
            let words: Vec<&str> = [self.program].into_iter().chain(rule.split_whitespace()).collect();
            host.lab.host().run(&words).ok();
        }
        Box::new(host)
    }

    fn publish_many(&self, count: u16, _done: &dyn Fn(u16)) -> Option<Box<dyn Many>> {
        let ports = many(count);
        let one_more = of_port("tcp", ONE_MORE, ONE_MORE).map(|rule| format!("{} {rule}", self.program));
        let back = one_more.clone().map(|command| command.replace("-A ", "-D "));
        let all = rules().into_iter().chain(ports.clone().flat_map(|port| of_port("tcp", port, port)));
        let (command, last) = (format!("{}-restore", self.program), *ports.end());
        Some(Box::new(BridgedMany::load(last, &command, &saved(all), [one_more.into(), back.into()])))
    }

    fn publish_range(&self) -> Option<Box<dyn Many>> {
        let range = format!("{}:{}", range::FIRST, range::LAST);
        let add = [
            format!("-t nat -A DOCKER -p tcp --dport {range} -j DNAT --to-destination {NET1}"),
            format!("-A DOCKER -d {NET1} -o {BRIDGE} -p tcp --dport {range} -j ACCEPT"),
        ];
        let add = add.map(|rule| format!("{} {rule}", self.program));
        let back = add.clone().map(|command| command.replace("-A ", "-D "));
        let (command, rules) = (format!("{}-restore", self.program), saved(rules().into_iter()));
        Some(Box::new(BridgedMany::load(range::LAST, &command, &rules, [add.into(), back.into()])))
    }
}

/// The two rules that Docker writes for each port.
fn of_port(proto: &str, port: u16, target: u16) -> [String; 2] {
    [
        format!("-t nat -A DOCKER -p {proto} --dport {port} -j DNAT --to-destination {NET1}:{target}"),
        format!("-A DOCKER -d {NET1} -o {BRIDGE} -p {proto} --dport {target} -j ACCEPT"),
    ]
}

/// Rules as iptables-restore reads them.
fn saved(rules: impl Iterator<Item = String>) -> String {
    let (mut nat, mut filter) = ("*nat\n".to_owned(), "*filter\n".to_owned());
    for rule in rules {
        let (table, rule) = match rule.strip_prefix("-t nat ") {
            Some(rule) => (&mut nat, rule),
            None => (&mut filter, rule.as_str()),
        };
        table.push_str(rule);
        table.push('\n');
    }
    nat + "COMMIT\n" + &filter + "COMMIT\n"
}

fn rules() -> Vec<String> {
    vec![
        "-t nat -N DOCKER".to_owned(),
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        "-t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        format!("-t nat -A POSTROUTING -o {BRIDGE} -m addrtype --src-type LOCAL -j MASQUERADE"),
        format!("-t nat -A POSTROUTING -s {SUBNET} ! -o {BRIDGE} -j MASQUERADE"),
        // Docker has a rule for each endpoint that dials itself; this one is for neighbours, too.
        format!("-t nat -A POSTROUTING -s {SUBNET} -o {BRIDGE} -m conntrack --ctstate DNAT -j MASQUERADE"),
        "-P FORWARD DROP".to_owned(),
        "-N DOCKER".to_owned(),
        format!("-A FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        format!("-A FORWARD -o {BRIDGE} -j DOCKER"),
        format!("-A FORWARD -i {BRIDGE} -j ACCEPT"),
    ]
}
