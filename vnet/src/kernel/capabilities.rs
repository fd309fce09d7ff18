//! What the process may do and what the running kernel can do, checked before anything is touched.

use nix::libc;
use nix::sys::utsname::uname;

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
/// Without it, the verifier also follows what a processor might do by mistake (Spectre) in programs that it takes for a
/// stranger's (`bpf_bypass_spec_v1`), where it finds no end to vnet's, and makes them slower.
const PERFMON: Needed =
    Needed { bit: 38, name: "CAP_PERFMON", purpose: "have programs verified as the system's own" };
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

/// Checks that the process may do what every command does.
pub(super) fn check_capabilities() -> Result<(), Error> {
    check(&[&NET_ADMIN, &BPF])
}

/// Checks that the process may load vnet's programs, which few commands do.
pub(super) fn check_loading() -> Result<(), Error> {
    check(&[&PERFMON])
}

/// Checks that the process may make and enter namespaces and mount things, which not every command does.
pub(super) fn check_namespaces() -> Result<(), Error> {
    check(&[&SYS_ADMIN])
}

fn check(needed: &[&'static Needed]) -> Result<(), Error> {
    let missing = missing(needed, effective());
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(|needed| format!("{} (to {})", needed.name, needed.purpose));
    Err(Error::Capabilities { missing: list.collect::<Vec<_>>().join(", ") })
}

/// Checks that the kernel is young enough.
pub(super) fn check_kernel() -> Result<(), Error> {
    let names = uname().map_err(|errno| Error::KernelRelease { source: errno.into() })?;
    let release = names.release().to_string_lossy();
    match lacking(&release) {
        Some(Feature { name, since }) => Err(Error::KernelTooOld {
            release: release.into_owned(),
            feature: name,
            since: format!("{}.{}", since.0, since.1),
        }),
        None => Ok(()),
    }
}

/// The effective capabilities of the calling thread; none if the kernel does not say.
fn effective() -> u64 {
    /// `_LINUX_CAPABILITY_VERSION_3`, with two words of each set.
    const VERSION: u32 = 0x2008_0522;
    /// `struct __user_cap_header_struct`; 0 is the calling thread.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// `struct __user_cap_data_struct`
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Word {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: VERSION, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: both are of the layout that this version has, and the kernel writes two words of each set.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    let [low, high] = words;
    if result == 0 { u64::from(high.effective) << u32::BITS | u64::from(low.effective) } else { 0 }
}

fn missing(needed: &[&'static Needed], effective: u64) -> Vec<&'static Needed> {
    let set = |needed: &Needed| effective & (1 << needed.bit) != 0;
    // CAP_SYS_ADMIN includes what was split off from it.
    let has =
        |needed: &Needed| set(needed) || [BPF.bit, PERFMON.bit].contains(&needed.bit) && set(&SYS_ADMIN);
    needed.iter().copied().filter(|needed| !has(needed)).collect()
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

    fn names(effective: u64) -> Vec<&'static str> {
        missing(&[&NET_ADMIN, &SYS_ADMIN, &PERFMON, &BPF], effective)
            .iter()
            .map(|needed| needed.name)
            .collect()
    }

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(names(0x1ff_fffe_ffff), Vec::<&str>::new());
        assert_eq!(names(0), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(names(0x20_0000), ["CAP_NET_ADMIN"]);
        assert_eq!(names(0x1000), ["CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(names(0x80_0000_1000), ["CAP_SYS_ADMIN", "CAP_PERFMON"]);
        assert_eq!(names(0xc0_0000_1000), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn the_kernel_says_of_this_process_what_proc_says() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        assert_eq!(effective(), u64::from_str_radix(line.trim(), 16).unwrap());
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
