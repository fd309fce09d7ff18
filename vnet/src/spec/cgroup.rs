//! How much processes of a cgroup may send by the uplinks.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, Limit};

/// Whose sockets are limited.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// A cgroup of the unified hierarchy (version 2), with those below it.
    Path(CgroupPath),
    /// A class of `net_cls` (version 1).
    ClassId(ClassId),
}

impl Cgroup {
    /// What it is and which, for people: `cgroup /a` or `class 1:10`.
    #[must_use]
    pub fn in_full(&self) -> String {
        match self {
            Self::Path(path) => format!("cgroup {path}"),
            Self::ClassId(class) => format!("class {class}"),
        }
    }

    /// Its path, if it is of the unified hierarchy.
    #[must_use]
    pub fn into_path(self) -> Option<CgroupPath> {
        match self {
            Self::Path(path) => Some(path),
            Self::ClassId(_) => None,
        }
    }

    /// The option of `vnet limit` that names it.
    #[must_use]
    pub fn as_option(&self) -> String {
        match self {
            Self::Path(path) => format!("--cgroup {path}"),
            Self::ClassId(class) => format!("--classid {class}"),
        }
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::ClassId(class) => class.fmt(f),
        }
    }
}

/// Where a cgroup is below the root of its hierarchy: as in `/proc/PID/cgroup`, with a `/` in front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath(String);

impl CgroupPath {
    /// The path, which begins with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below the root of its hierarchy, if it was given with the place where that is mounted.
    #[must_use]
    pub fn below(self, mount: &Path) -> Self {
        match Path::new(&self.0).strip_prefix(mount) {
            Ok(rest) => Self(format!("/{}", rest.display())),
            Err(_) => self,
        }
    }

    /// The cgroups around it, the nearest first.
    fn around(&self) -> impl Iterator<Item = &str> {
        Path::new(&self.0).ancestors().skip(1).filter_map(Path::to_str)
    }

    /// How many cgroups it is in; 0 for the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        Path::new(&self.0).components().count() - 1
    }
}

impl FromStr for CgroupPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Cgroup { text: text.to_owned(), reason };
        if text.is_empty() {
            return Err(bad("write it like /user.slice, or as the directory that it is"));
        }
        if text.contains(['\0', '\n']) {
            return Err(bad("no cgroup has such a name"));
        }
        let mut path = String::new();
        for component in Path::new(text).components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    path.push('/');
                    path.push_str(name.to_str().ok_or_else(|| bad("it is not text"))?);
                }
                Component::ParentDir | Component::Prefix(_) => return Err(bad("write it without \"..\"")),
            }
        }
        Ok(Self(if path.is_empty() { "/".to_owned() } else { path }))
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> Self {
        path.0
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A class of `net_cls`, as `net_cls.classid` has it: the major number in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ClassId(u32);

impl TryFrom<u32> for ClassId {
    type Error = Error;

    fn try_from(number: u32) -> Result<Self, Error> {
        if number == 0 {
            return Err(Error::ClassId { text: number.to_string() });
        }
        Ok(Self(number))
    }
}

impl From<ClassId> for u32 {
    fn from(class: ClassId) -> Self {
        class.0
    }
}

impl FromStr for ClassId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::ClassId { text: text.to_owned() };
        let half = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u16::from_str_radix(digits, 16).ok()).flatten().ok_or_else(bad)
        };
        let number = match text.split_once(':') {
            Some((major, minor)) => u32::from(half(major)?) << 16 | u32::from(half(minor)?),
            None => {
                let digits = text.strip_prefix("0x").ok_or_else(bad)?;
                let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten().ok_or_else(bad)?
            }
        };
        Self::try_from(number).map_err(|_| bad())
    }
}

impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// How packets of limited cgroups are made to wait: one way for all limits of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pacing {
    /// A program gives each packet the time at which it leaves, and `sch_fq` keeps it until then.
    Fq,
    /// `sch_htb` has a class for each limit, and a program says which a packet is in.
    Htb,
}

impl Pacing {
    /// The queueing discipline.
    #[must_use]
    pub const fn discipline(self) -> &'static str {
        match self {
            Self::Fq => "fq",
            Self::Htb => "htb",
        }
    }

    /// How many limits can be inside one another, where that is bounded: `htb` has eight levels of classes
    /// (`TC_HTB_MAXDEPTH`), of which the innermost is for what is in no other.
    #[must_use]
    pub const fn levels(self) -> Option<usize> {
        match self {
            Self::Fq => None,
            Self::Htb => Some(7),
        }
    }
}

/// A limit of what processes of a cgroup send by the uplinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimit {
    /// Whose.
    pub cgroup: Cgroup,
    /// How much.
    pub limit: Limit,
    /// Its number, no other's.
    pub number: u16,
    /// How it is held.
    pub pacing: Pacing,
}

impl CgroupLimit {
    /// How many there can be: each takes two of the classes of a queueing discipline.
    pub const MOST: u16 = 4_000;
    /// [`CgroupPath::depth`] of the deepest cgroup that can be limited: the root is a level as well.
    pub const DEEPEST: usize = vnet_common::maps::CGROUP_LEVELS as usize - 1;
    /// MTU for which bursts are reckoned.
    const MTU: u32 = 1_500;
    /// The largest packets that are handed over to be cut up later wait as a whole: so many bytes may wait, whatever the
    /// rate, or connections that use them would lose every one.
    const LEAST_QUEUE: u32 = 256 * 1024;

    /// Bytes that pass at once after a pause.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.limit.burst(Self::MTU)
    }

    /// Bytes that may wait.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.limit.queue(Self::MTU).max(Self::LEAST_QUEUE)
    }
}

/// Which limits are inside which.
#[derive(Debug)]
pub struct Nesting<'a>(HashMap<&'a str, &'a CgroupLimit>);

impl<'a> Nesting<'a> {
    /// That of these limits.
    #[must_use]
    pub fn of(limits: &'a [CgroupLimit]) -> Self {
        let by_path = |limit: &'a CgroupLimit| match &limit.cgroup {
            Cgroup::Path(path) => Some((path.as_str(), limit)),
            Cgroup::ClassId(_) => None,
        };
        Self(limits.iter().filter_map(by_path).collect())
    }

    /// The limits that hold for whatever this one holds for, the nearest first.
    pub fn around(&self, cgroup: &Cgroup) -> impl Iterator<Item = &'a CgroupLimit> {
        let paths = match cgroup {
            Cgroup::Path(path) => Some(path.around()),
            Cgroup::ClassId(_) => None,
        };
        paths.into_iter().flatten().filter_map(|path| self.0.get(path).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_kernel_however_they_are_written() {
        for (text, path, depth) in [
            ("/user.slice/user-1000.slice", "/user.slice/user-1000.slice", 2),
            ("user.slice//./a/", "/user.slice/a", 2),
            ("/", "/", 0),
        ] {
            let read: CgroupPath = text.parse().unwrap();
            assert_eq!((read.as_str(), read.depth()), (path, depth), "{text}");
        }
        for bad in ["", "../x", "/a/../b", "a\nb"] {
            let error = bad.parse::<CgroupPath>().unwrap_err().to_string();
            assert!(error.contains("is not a cgroup"), "{error}");
        }
        let mounted = |text: &str| text.parse::<CgroupPath>().unwrap().below(Path::new("/sys/fs/cgroup"));
        assert_eq!(mounted("/sys/fs/cgroup/a/b").as_str(), "/a/b");
        assert_eq!(mounted("/sys/fs/cgroup").as_str(), "/");
        assert_eq!(mounted("/a/b").as_str(), "/a/b");
    }

    #[test]
    fn classes_are_hexadecimal_as_everywhere() {
        for (text, number, shown) in [
            ("1:10", 0x1_0010, "1:10"),
            ("0x100001", 0x10_0001, "10:1"),
            ("ffff:FFFF", u32::MAX, "ffff:ffff"),
        ] {
            let class: ClassId = text.parse().unwrap();
            assert_eq!((u32::from(class), class.to_string()), (number, shown.to_owned()), "{text}");
        }
        for bad in ["", "1", "0:0", "0x0", "1:", ":1", "1:10000", "1:1:1", "+1:1", "0x1ffffffff", "0x+1"] {
            assert!(bad.parse::<ClassId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_limit_is_inside_those_around_it() {
        let limit = |cgroup: Cgroup, number| CgroupLimit {
            cgroup,
            limit: Limit { rate: "10mbit".parse().unwrap(), burst: None },
            number,
            pacing: Pacing::Fq,
        };
        let path = |text: &str| Cgroup::Path(text.parse().unwrap());
        let class = Cgroup::ClassId("1:1".parse().unwrap());
        let all = [limit(path("/a"), 1), limit(path("/a/b/c"), 2), limit(class, 3), limit(path("/ab"), 4)];
        let nesting = Nesting::of(&all);
        let around = |cgroup: &Cgroup| nesting.around(cgroup).map(|it| it.number).collect::<Vec<_>>();
        assert_eq!(around(&path("/a/b")), [1]);
        assert_eq!(around(&path("/a/b/c/d/e")), [2, 1]);
        assert!(around(&path("/a")).is_empty());
        assert!(around(&path("/abc")).is_empty());
        assert_eq!(around(&all[1].cgroup), [1]);
        assert!(around(&all[2].cgroup).is_empty());
        assert_eq!((all[0].burst(), all[0].queue()), (8192, 256 * 1024));
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        for (cgroup, text) in [("/a", r#"{"path":"/a"}"#), ("1:10", r#"{"classid":65552}"#)] {
            let cgroup = match cgroup.parse() {
                Ok(class) => Cgroup::ClassId(class),
                Err(_) => Cgroup::Path(cgroup.parse().unwrap()),
            };
            assert_eq!(serde_json::to_string(&cgroup).unwrap(), text);
            assert_eq!(serde_json::from_str::<Cgroup>(text).unwrap(), cgroup);
        }
        assert!(serde_json::from_str::<Cgroup>(r#"{"path":"/a/../b"}"#).is_err());
    }
}
