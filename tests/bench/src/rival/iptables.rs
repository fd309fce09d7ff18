//! iptables, in both of its kinds, with the rules that Docker writes when its proxy is switched off.

use super::bridged::{BRIDGE, Bridged, NET1, SUBNET};
use super::{Absent, PUBLISHED, Rival, Site, TARGET_PORT, version_of_debian};
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
        for rule in rules() {
            let words: Vec<&str> = [self.program].into_iter().chain(rule.split_whitespace()).collect();
            host.lab.host().run(&words).ok();
        }
        Box::new(host)
    }
}

fn rules() -> Vec<String> {
    let mut rules = vec![
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
    ];
    for proto in ["tcp", "udp"] {
        rules.push(format!(
            "-t nat -A DOCKER -p {proto} --dport {PUBLISHED} -j DNAT --to-destination {NET1}:{TARGET_PORT}"
        ));
        rules.push(format!("-A DOCKER -d {NET1} -o {BRIDGE} -p {proto} --dport {TARGET_PORT} -j ACCEPT"));
    }
    rules
}
