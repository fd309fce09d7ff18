//! The programs which the tests and the demonstration call: the one list, with the reason for each.
//! vnet itself needs none of them.

use crate::apt;
use crate::debian::OsRelease;
use crate::process;
use crate::steps::Steps;
use anyhow::{Result, bail};

struct Program {
    name: &'static str,
    package: &'static str,
    why: &'static str,
}

#[rustfmt::skip]
const PROGRAMS: &[Program] = &[
    Program { name: "ip", package: "iproute2", why: "builds the namespaces that play hosts" },
    Program { name: "tc", package: "iproute2", why: "shows that no qdisc or filter is left behind" },
    Program { name: "ping", package: "iputils-ping", why: "ICMP as users send it" },
    Program { name: "curl", package: "curl", why: "a client of published ports" },
    Program { name: "tcpdump", package: "tcpdump", why: "shows the addresses on each wire" },
    Program { name: "tshark", package: "tshark", why: "reads captures of dropped packets" },
    Program { name: "rsvg-convert", package: "librsvg2-bin", why: "reads drawings of the topology" },
    Program { name: "dot", package: "graphviz", why: "reads descriptions of the topology" },
    Program { name: "bpftool", package: "bpftool", why: "reads the pinned maps by field name" },
    Program { name: "nft", package: "nftables", why: "shows that there are no rules; the rival in benchmarks" },
    Program { name: "iptables-save", package: "iptables", why: "shows that there are no rules; the rival in benchmarks" },
    Program { name: "iptables-legacy", package: "iptables", why: "a firewall in the kernel's older place for them" },
    Program { name: "ethtool", package: "ethtool", why: "switches offloads of interfaces" },
    Program { name: "iperf3", package: "iperf3", why: "load for the benchmarks" },
    Program { name: "c++", package: "g++", why: "compiles libFuzzer" },
    Program { name: "sysctl", package: "procps", why: "settings of the namespaces that play hosts" },
];

/// Makes sure that every program of the list is there.
pub(crate) fn ensure(steps: &mut Steps) -> Result<()> {
    let missing: Vec<&Program> =
        PROGRAMS.iter().filter(|program| process::program_path(program.name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    packages.dedup();
    if OsRelease::read().is_debian() && process::is_root() {
        return apt::install(
            steps,
            &packages,
            None,
            &format!("the tests and the demonstration need {}", names(&missing)),
        );
    }
    let reasons: Vec<String> = missing.iter().map(|it| format!("\n  {:<14} {}", it.name, it.why)).collect();
    bail!(
        "programs which the tests and the demonstration need are missing:{}\ninstall them, on Debian as root: \
         apt-get install --no-install-recommends {}",
        reasons.concat(),
        packages.join(" ")
    );
}

fn names(programs: &[&Program]) -> String {
    programs.iter().map(|program| program.name).collect::<Vec<_>>().join(", ")
}
