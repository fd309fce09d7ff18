//! The rules of netfilter, read and never written: nftables over its netlink, iptables-legacy through its socket
//! options, and what decides whether bridged frames meet them.
//!
//! No crate does this without starting `nft`, calling C libraries or leaving out what today's firewalls are made of:
//! of the expressions in the rules of ufw, netlink-packet-netfilter 0.4 knows only some (neither `ct`, `range`,
//! `reject` nor what iptables brings along). Reading what is needed takes less than completing it.

mod expression;
mod legacy;
mod nfnetlink;
mod nftables;
mod xtables;

use std::io;
use std::path::Path;

use super::sysctl;
use crate::firewall::{Bridged, Netfilter};

/// Reads everything that decides about packets to the host and through it. A host without rules costs one question
/// to the kernel, and a look at the names of the tables of iptables-legacy.
pub(super) fn read() -> io::Result<Netfilter> {
    let tables = nftables::tables()?;
    let mut netfilter = Netfilter { tables, unread: Vec::new(), bridged: Bridged::default() };
    legacy::read(&mut netfilter)?;
    if !netfilter.is_empty() {
        netfilter.bridged = bridged();
    }
    Ok(netfilter)
}

/// Without br_netfilter there is no such parameter, and bridged frames meet no rules.
fn bridged() -> Bridged {
    let on = |name: &str| {
        sysctl::read(&Path::new("/proc/sys/net/bridge").join(name)).is_ok_and(|value| value != "0")
    };
    Bridged { v4: on("bridge-nf-call-iptables"), v6: on("bridge-nf-call-ip6tables") }
}
