//! Where the unified cgroup hierarchy is mounted, to whose root the host-local programs are attached, and the cgroups in
//! it that are limited.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::plan::CgroupPath;

const MOUNTS: &str = "/proc/self/mountinfo";

/// The root of the unified hierarchy.
pub(super) fn root() -> Result<PathBuf, Error> {
    let mounts =
        fs::read(MOUNTS).map_err(|source| Error::ReadFile { path: Path::new(MOUNTS).to_owned(), source })?;
    find(&mounts).ok_or(Error::NoCgroups)
}

/// Where a cgroup is, whether it is there or not.
pub(super) fn place(path: &CgroupPath) -> Result<PathBuf, Error> {
    Ok(root()?.join(path.as_str().trim_start_matches('/')))
}

/// The number of a cgroup, by which the programs know it; `None` if there is none. It is that of its directory.
pub(super) fn number(path: &CgroupPath) -> Result<Option<u64>, Error> {
    let place = place(path)?;
    match fs::metadata(&place) {
        Ok(found) => Ok(found.is_dir().then(|| found.ino())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(Error::ReadFile { path: place, source }),
    }
}

/// Whether the kernel has classes of `net_cls`, and they are not switched off.
pub(super) fn has_classes() -> Result<bool, Error> {
    const CONTROLLERS: &str = "/proc/cgroups";
    match fs::read_to_string(CONTROLLERS) {
        Ok(table) => Ok(table.lines().any(|line| {
            // Name, hierarchy, number of cgroups, whether it is enabled.
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words[..], ["net_cls", _, _, "1"])
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::ReadFile { path: Path::new(CONTROLLERS).to_owned(), source }),
    }
}

/// The mount point of the unified hierarchy's root, or of what this process sees of it.
///
/// A line of the table (proc(5)): id, parent, device, root, mount point, options, tags..., `-`, type, source, options.
fn find(mounts: &[u8]) -> Option<PathBuf> {
    let mut part_of_it = None;
    for line in mounts.split(|byte| *byte == b'\n') {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = words.iter().position(|word| *word == b"-");
        let kind = dash.and_then(|dash| words.get(dash + 1));
        if kind.is_none_or(|kind| *kind != b"cgroup2") {
            continue;
        }
        if let [_, _, _, root, point, ..] = words.as_slice() {
            let point = PathBuf::from(OsString::from_vec(unescape(point)));
            if *root == b"/" {
                return Some(point);
            }
            part_of_it.get_or_insert(point);
        }
    }
    part_of_it
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    loop {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            [byte, after @ ..] => {
                plain.push(*byte);
                rest = after;
            }
            [] => return plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_told_from_the_old_ones() {
        let mounts = b"36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(find(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find(b"36 31 0:33 / /cgroup2 rw - tmpfs cgroup2 rw\n"), None);
        assert_eq!(find(b""), None);
    }

    #[test]
    fn the_root_is_preferred_to_a_part_of_it() {
        let mounts = b"1 1 0:38 /part /a rw - cgroup2 none rw\n2 1 0:38 / /b\\040c rw - cgroup2 none rw\n";
        assert_eq!(find(mounts), Some(PathBuf::from("/b c")));
        assert_eq!(find(b"1 1 0:38 /part /a rw - cgroup2 none rw\n"), Some(PathBuf::from("/a")));
    }
}
