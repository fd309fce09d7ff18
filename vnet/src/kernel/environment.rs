//! What of the machine matters to vnet beside what it cannot do without.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::utsname::uname;
use nix::unistd::geteuid;
use vnet_common::Hook;

use super::error::Error;
use super::{attachment, pins};
use crate::instance::Instance;

/// The machine, as far as somebody has to know about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The kernel's version with its patch level, if it says which of the released ones it is: a vendor's own numbers tell
    /// nothing of what is mended.
    pub version: Option<(u32, u32, u32)>,
    /// Whether the kernel compiles BPF programs; `None` if it does not say, as in most network namespaces.
    pub compiles_bpf: Option<bool>,
    /// Whether the host's stack forwards IPv6 for a bridge that is to forward.
    pub forwards_v6: bool,
    /// Programs of others that see packets before the instance's own: hook, interface, and their numbers in their order.
    pub in_front: Vec<(Hook, String, Vec<u32>)>,
    /// Files of the instance that are not only for whoever runs vnet, each with what is wrong.
    pub open_to_others: Vec<(PathBuf, String)>,
}

pub(super) fn of(instance: &Instance) -> Result<Environment, Error> {
    let names = uname().map_err(|errno| Error::KernelRelease { source: errno.into() })?;
    let text = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
    Ok(Environment {
        version: version(&text(names.release()), &text(names.version())),
        compiles_bpf: parameter("/proc/sys/net/core/bpf_jit_enable").map(|value| value != "0"),
        forwards_v6: forwards_v6(),
        in_front: attachment::in_front(instance)?,
        open_to_others: open_to_others(instance)?,
    })
}

/// The released version that a kernel is. Debian's release names none, but its build does: "… Debian 6.1.140-1 (…)".
/// Others who number their own kernels by a hyphen after the patch level count their repairs elsewhere.
fn version(release: &str, build: &str) -> Option<(u32, u32, u32)> {
    if let Some((_, debian)) = build.split_once("Debian ") {
        return numbers(debian.split(['-', '~', ' ', '+']).next()?);
    }
    numbers(release)
}

/// Three numbers and nothing else.
fn numbers(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

fn parameter(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

fn forwards_v6() -> bool {
    // A kernel without IPv6 has none of it to forward.
    let all = parameter("/proc/sys/net/ipv6/conf/all/forwarding");
    all.is_none_or(|value| value != "0") || Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()
}

/// The directories and files of an instance that belong to somebody else, or that others may write, or read where that is
/// nobody's business.
fn open_to_others(instance: &Instance) -> Result<Vec<(PathBuf, String)>, Error> {
    let mut found = Vec::new();
    let mut left = vec![instance.run_dir(), instance.pin_dir()];
    while let Some(path) = left.pop() {
        let about = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            about => about.map_err(|source| Error::ReadFile { path: path.clone(), source })?,
        };
        if about.uid() != geteuid().as_raw() {
            found.push((path.clone(), format!("belongs to user {}", about.uid())));
        } else if !about.is_symlink() && about.mode() & 0o077 != 0 && is_outermost(&path, instance) {
            found.push((path.clone(), format!("is open to others (mode {:04o})", about.mode() & 0o7777)));
        }
        if about.is_dir() {
            left.extend(pins::list(&path)?);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether it is a directory through which all else of the instance is reached: what is in there is behind its rights.
fn is_outermost(path: &Path, instance: &Instance) -> bool {
    path == instance.run_dir() || path == instance.pin_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_believed_only_if_it_is_a_released_one() {
        for (release, build, expected) in [
            ("6.18.44", "#1 SMP PREEMPT_DYNAMIC", Some((6, 18, 44))),
            ("6.1.0-37-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)", Some((6, 1, 140))),
            ("6.12.95+deb12-cloud-amd64", "#1 SMP Debian 6.12.95-1~bpo12+1 (2026-07-01)", Some((6, 12, 95))),
            ("5.14.0-427.el9.x86_64", "#1 SMP PREEMPT_DYNAMIC", None),
            ("6.8.0-60-generic", "#63-Ubuntu SMP PREEMPT_DYNAMIC", None),
            ("6.15-rc3", "#1 SMP", None),
            ("mystery", "", None),
        ] {
            assert_eq!(version(release, build), expected, "{release}");
        }
    }
}
