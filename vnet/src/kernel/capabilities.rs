//! What the process may do and what the running kernel can do, checked before anything is touched.

use std::fs;
use std::path::Path;

use super::error::Error;

/// A capability vnet needs.
struct Needed {
    bit: u32,
    name: &'static str,
    purpose: &'static str,
}

const NET_ADMIN: Needed = Needed {
    bit: 12,
    name: "CAP_NET_ADMIN",
    purpose: "make interfaces, addresses and routes, attach programs to interfaces",
};
const SYS_ADMIN: Needed = Needed {
    bit: 21,
    name: "CAP_SYS_ADMIN",
    purpose: "make and enter namespaces, mount the BPF file system",
};
const BPF: Needed = Needed { bit: 39, name: "CAP_BPF", purpose: "load programs and open maps" };

/// Something of the kernel that vnet is built on, the youngest first.
struct Feature {
    name: &'static str,
    since: (u32, u32),
}

const FEATURES: [Feature; 4] = [
    Feature { name: "numbered network namespaces (SO_NETNS_COOKIE)", since: (5, 14) },
    Feature { name: "redirection with a given next hop (bpf_redirect_neigh)", since: (5, 11) },
    Feature { name: "redirection into a namespace (bpf_redirect_peer)", since: (5, 10) },
    Feature { name: "the BPF ring buffer", since: (5, 8) },
];

/// Checks that the process may do what vnet does.
pub(super) fn check_capabilities() -> Result<(), Error> {
    let status = read(Path::new("/proc/self/status"))?;
    let missing = missing(effective(&status));
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(|needed| format!("{} (to {})", needed.name, needed.purpose));
    Err(Error::Capabilities { missing: list.collect::<Vec<_>>().join(", ") })
}

/// Checks that the kernel is young enough.
pub(super) fn check_kernel() -> Result<(), Error> {
    let release = read(Path::new("/proc/sys/kernel/osrelease"))?;
    let release = release.trim();
    match lacking(release) {
        Some(Feature { name, since }) => Err(Error::KernelTooOld {
            release: release.to_owned(),
            feature: name,
            since: format!("{}.{}", since.0, since.1),
        }),
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::ReadFile { path: path.to_owned(), source })
}

/// The effective capabilities in the text of `/proc/self/status`; none if it does not say.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn missing(effective: u64) -> Vec<&'static Needed> {
    let set = |needed: &Needed| effective & (1 << needed.bit) != 0;
    // CAP_SYS_ADMIN includes what was split off from it as CAP_BPF.
    let has = |needed: &Needed| set(needed) || needed.bit == BPF.bit && set(&SYS_ADMIN);
    [&NET_ADMIN, &SYS_ADMIN, &BPF].into_iter().filter(|needed| !has(needed)).collect()
}

/// The first feature that a kernel of this release lacks; none if the release cannot be read, for then only
/// trying can tell.
fn lacking(release: &str) -> Option<&'static Feature> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    FEATURES.iter().find(|feature| version < feature.since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(status: &str) -> Vec<&'static str> {
        missing(effective(status)).iter().map(|needed| needed.name).collect()
    }

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(names("CapEff:\t000001fffeffffff\n"), Vec::<&str>::new());
        assert_eq!(names("CapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"]);
        assert_eq!(names("CapEff:\t0000000000200000\n"), ["CAP_NET_ADMIN"]);
        assert_eq!(names("CapEff:\t0000008000001000\n"), ["CAP_SYS_ADMIN"]);
        assert_eq!(names("no such line"), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"]);
    }

    #[test]
    fn an_old_kernel_is_told_the_youngest_feature_it_lacks() {
        for (release, since) in [
            ("6.18.44-fc-v657", None),
            ("5.14.0-427.el9.x86_64", None),
            ("5.13.19", Some((5, 14))),
            ("5.4.0-150-generic", Some((5, 14))),
            ("4.18", Some((5, 14))),
            ("mystery", None),
        ] {
            assert_eq!(lacking(release).map(|feature| feature.since), since, "{release}");
        }
    }
}
