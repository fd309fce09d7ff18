//! Where the unified cgroup hierarchy is mounted, to whose root the host-local programs are attached, and the cgroups in
//! it that are limited.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::error::{Error, NotACgroup};
use crate::plan::CgroupPath;

const MOUNTS: &str = "/proc/self/mountinfo";

/// The root of the unified hierarchy.
pub(super) fn root() -> Result<PathBuf, Error> {
    let mounts = mounts()?;
    unified(&mounts).map(|mount| mount.point.clone()).ok_or(Error::NoCgroups)
}

/// The path of a cgroup below the root of the unified hierarchy, however it was written: as that, or as the directory
/// that it is, by whatever links and mounts that leads there. It need not be there; what holds it must.
///
/// What is a cgroup by its path is not looked for as a directory, so that what this gives stays what it is.
pub(super) fn recorded(path: CgroupPath) -> Result<CgroupPath, Error> {
    let mounts = mounts()?;
    let unified = unified(&mounts).ok_or(Error::NoCgroups)?;
    let is_cgroup = |path: &str| unified.point.join(path.trim_start_matches('/')).is_dir();
    if is_cgroup(path.as_str()) {
        return Ok(path);
    }
    let refused = |cause| Error::NotACgroup { path: path.clone(), cause, root: unified.point.clone() };
    let (named, real) = nearest(Path::new(path.as_str()))?;
    let mount = mounts.iter().filter(|mount| real.starts_with(&mount.point));
    // Of what is mounted at one place in turn, the last is what is seen.
    let mount = mount.max_by_key(|mount| mount.point.components().count());
    let missing = Path::new(path.as_str()).strip_prefix(named).unwrap_or(Path::new(""));
    let kind = statfs(&real).map_err(|errno| read_error(&real, errno.into()))?.filesystem_type();
    if kind == CGROUP2_SUPER_MAGIC {
        if !real.is_dir() {
            return Err(refused(NotACgroup::File));
        }
        let below = mount.and_then(|mount| Some((mount, real.strip_prefix(&mount.point).ok()?)));
        let whole = below.map(|(mount, rest)| mount.root.join(rest).join(missing));
        let whole = whole.and_then(|whole| whole.to_str()?.parse::<CgroupPath>().ok());
        let known = whole.map(|whole| whole.below(&unified.root));
        return known
            .filter(|known| is_same(unified, known, missing, &real))
            .ok_or_else(|| refused(NotACgroup::Outside));
    }
    let first = path.as_str().split('/').find(|name| !name.is_empty());
    if named == Path::new("/") || first.is_some_and(is_cgroup) {
        return Ok(path);
    }
    let file_system = mount.map(|mount| mount.kind.clone()).unwrap_or_default();
    Err(refused(match missing.as_os_str().is_empty() {
        true if kind == CGROUP_SUPER_MAGIC => {
            let controllers = mount.map(Mount::controllers).unwrap_or_default();
            NotACgroup::Version1 { controllers }
        }
        true => NotACgroup::OtherFileSystem { file_system },
        false => NotACgroup::Missing { nearest: named.to_owned(), file_system },
    }))
}

/// Whether a path of the hierarchy leads to a directory, but for what is not there yet.
fn is_same(unified: &Mount, known: &CgroupPath, missing: &Path, real: &Path) -> bool {
    let place = place(&unified.point, known);
    let there = place.ancestors().nth(missing.components().count());
    let number = |path: &Path| fs::metadata(path).ok().map(|found| found.ino());
    let found = there.and_then(number);
    found.is_some() && found == number(real)
}

/// What there is of a path, as it was written and without links.
fn nearest(path: &Path) -> Result<(&Path, PathBuf), Error> {
    for named in path.ancestors() {
        match fs::canonicalize(named) {
            Ok(real) => return Ok((named, real)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(source) => return Err(read_error(named, source)),
        }
    }
    Ok((Path::new("/"), PathBuf::from("/")))
}

fn read_error(path: &Path, source: io::Error) -> Error {
    Error::ReadFile { path: path.to_owned(), source }
}

/// Where a cgroup is below the root of the hierarchy, whether it is there or not.
pub(super) fn place(root: &Path, path: &CgroupPath) -> PathBuf {
    root.join(path.as_str().trim_start_matches('/'))
}

/// The number of a cgroup, by which the programs know it; `None` if there is none. It is that of its directory.
pub(super) fn number(path: &CgroupPath) -> Result<Option<u64>, Error> {
    number_below(&root()?, path)
}

/// As [`number`], where it is known where the hierarchy is mounted.
pub(super) fn number_below(root: &Path, path: &CgroupPath) -> Result<Option<u64>, Error> {
    let place = place(root, path);
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

/// Something that is mounted where this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// What of the file system is mounted.
    root: PathBuf,
    point: PathBuf,
    /// The type of the file system.
    kind: String,
    /// The options of the file system; of a hierarchy of version 1 its controllers are among them.
    options: String,
}

impl Mount {
    /// A line of the table (proc(5)): id, parent, device, root, mount point, options, tags..., `-`, type, source, options.
    fn read(line: &[u8]) -> Option<Self> {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = words.iter().position(|word| *word == b"-")?;
        let ([_, _, _, root, point, ..], [_, kind, _, options, ..]) = (&words[..], &words[dash..]) else {
            return None;
        };
        let path = |word: &[u8]| PathBuf::from(OsString::from_vec(unescape(word)));
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        Some(Self { root: path(root), point: path(point), kind: text(kind), options: text(options) })
    }

    /// What a hierarchy of version 1 is called: its controllers, or its name.
    fn controllers(&self) -> String {
        let plain = ["rw", "ro"];
        let named: Vec<&str> = self.options.split(',').filter(|option| !plain.contains(option)).collect();
        named.join(",")
    }
}

fn mounts() -> Result<Vec<Mount>, Error> {
    let table = fs::read(MOUNTS).map_err(|source| read_error(Path::new(MOUNTS), source))?;
    Ok(read(&table))
}

fn read(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(Mount::read).collect()
}

/// Where the unified hierarchy is mounted from its root on, or else what this process sees of it.
fn unified(mounts: &[Mount]) -> Option<&Mount> {
    let of_it = || mounts.iter().filter(|mount| mount.kind == "cgroup2");
    of_it().find(|mount| mount.root == Path::new("/")).or_else(|| of_it().next())
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

    fn find(mounts: &[u8]) -> Option<PathBuf> {
        unified(&read(mounts)).map(|mount| mount.point.clone())
    }

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
        let of_v1 = read(b"36 31 0:33 / /c rw,relatime - cgroup cgroup rw,cpu,cpuacct\n");
        assert_eq!(of_v1[0].controllers(), "cpu,cpuacct");
    }
}
