//! The kernel's own counters of a namespace: `/proc/net/snmp`, `netstat` and `snmp6`.

use std::collections::BTreeMap;

use crate::lab::Netns;

/// Counters at one moment, by their names as `nstat` prints them ("TcpInCsumErrors", "Ip6InReceives").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    netns: String,
    values: BTreeMap<String, u64>,
}

impl Counters {
    /// Every counter that says that a checksum was wrong.
    pub const CHECKSUM_ERRORS: &[&str] =
        &["TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "Udp6InCsumErrors", "Icmp6InCsumErrors"];

    /// Reads them.
    #[must_use]
    pub fn of(netns: &Netns) -> Self {
        let mut values = BTreeMap::new();
        for file in ["/proc/net/snmp", "/proc/net/netstat"] {
            let text = netns.read(file);
            let lines: Vec<&str> = text.lines().collect();
            // Lines come in pairs: "Tcp: name name ...", "Tcp: value value ...".
            for pair in lines.chunks_exact(2) {
                let Some((group, names)) = pair[0].split_once(": ") else { continue };
                let numbers = pair[1].split_whitespace().skip(1);
                for (name, number) in names.split_whitespace().zip(numbers) {
                    values.insert(format!("{group}{name}"), number.parse().unwrap_or(0));
                }
            }
        }
        for line in netns.read("/proc/net/snmp6").lines() {
            if let Some((name, number)) = line.split_once(char::is_whitespace) {
                values.insert(name.to_owned(), number.trim().parse().unwrap_or(0));
            }
        }
        Self { netns: netns.name().to_owned(), values }
    }

    /// One of them.
    ///
    /// # Panics
    /// When the kernel has no counter of that name: a counter that is not there is not zero.
    #[must_use]
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        *self.values.get(name).unwrap_or_else(|| panic!("no counter {name} in {}", self.netns))
    }

    /// Every checksum must have been right.
    ///
    /// # Panics
    /// When one was not.
    #[track_caller]
    pub fn assert_no_checksum_errors(&self) {
        for name in Self::CHECKSUM_ERRORS {
            assert_eq!(self.get(name), 0, "{name} in {}", self.netns);
        }
    }
}
