//! A router's namespace: the whole process enters it before it has a second thread, and remembers where it came from.
//!
//! A router that has no namespace yet gets one without a name. It has its name once it is recorded whose it is, and one
//! that never came to have a name ends with the process.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};

use super::capabilities::check_namespaces;
use super::error::Error;
use super::netlink::Netlink;
use super::netns::{self, Namespace};
use crate::plan::State;

/// The namespace of this process's first thread, and of every other that has not moved.
const OWN: &str = "/proc/self/ns/net";
/// Every process has a directory there.
const PROCESSES: &str = "/proc";

/// Where the process came from, if it has moved.
static ORIGIN: OnceLock<Namespace> = OnceLock::new();

/// The namespace that the process came from; nothing if it is where it began.
pub(super) fn origin() -> Option<&'static Namespace> {
    ORIGIN.get()
}

/// That namespace, for what is to be done there.
pub(super) fn outside() -> Result<&'static Namespace, Error> {
    origin().ok_or(Error::NotEntered)
}

/// The number of a namespace.
pub(super) fn cookie(namespace: &Namespace) -> Result<u64, Error> {
    namespace.within(own_cookie)
}

/// The number of the calling thread's namespace.
pub(super) fn own_cookie() -> Result<u64, Error> {
    let netlink = Netlink::open_as_needed().map_err(|source| Error::NetlinkSocket { source })?;
    netlink.cookie().map_err(|source| Error::NamespaceCookie { source })
}

/// Moves the process into the namespace of that name, if it is the one of that number; says whether it is there now.
///
/// To be called before there is another thread: those that are there would stay behind.
pub(super) fn enter(name: &str, number: u64) -> Result<bool, Error> {
    let Some(namespace) = Namespace::open_if_any(&netns::path_of(name))? else { return Ok(false) };
    if is_own(namespace.path())? {
        return Ok(true);
    }
    if cookie(&namespace)? != number {
        return Ok(false);
    }
    remember()?;
    namespace.enter()?;
    Ok(true)
}

/// Whether there is a namespace of that name, and it is the one of that number.
pub(super) fn has(name: &str, number: u64) -> Result<bool, Error> {
    match Namespace::open_if_any(&netns::path_of(name))? {
        Some(namespace) => Ok(cookie(&namespace)? == number),
        None => Ok(false),
    }
}

/// Moves the process into the namespace of that number, which has lost its name: some other process may live in it. Says
/// whether it is there now. To be called as [`enter`] is.
pub(super) fn enter_nameless(number: u64) -> Result<bool, Error> {
    check_namespaces()?;
    let mut seen = BTreeSet::new();
    let failed = |source| Error::ReadFile { path: PROCESSES.into(), source };
    for entry in fs::read_dir(PROCESSES).map_err(failed)? {
        let path = entry.map_err(failed)?.path().join("ns/net");
        // What is no process, or has ended since.
        let Ok(about) = fs::metadata(&path) else { continue };
        if !seen.insert((about.dev(), about.ino())) || is_own(&path)? {
            continue;
        }
        let Ok(namespace) = Namespace::open(&path) else { continue };
        if cookie(&namespace)? == number {
            remember()?;
            namespace.enter()?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves the process into a new namespace, which has no name as yet. To be called as [`enter`] is.
pub(super) fn enter_new() -> Result<(), Error> {
    check_namespaces()?;
    remember()?;
    let failed = |source| Error::MakeNamespace { path: OWN.into(), source };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    // One that has a name is complete.
    netns::loopback_up().map_err(failed)
}

fn remember() -> Result<(), Error> {
    let here = Namespace::open(Path::new(OWN))?;
    // A process moves once.
    let _ = ORIGIN.set(here);
    Ok(())
}

/// Whether a path leads to the process's own namespace.
pub(super) fn is_own(path: &Path) -> Result<bool, Error> {
    let identity = |path: &Path| {
        let about = fs::metadata(path)?;
        Ok::<_, io::Error>((about.dev(), about.ino()))
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::OpenNamespace { path, source }
    };
    match identity(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => {
            Ok(other.map_err(failed(path))? == identity(Path::new(OWN)).map_err(failed(Path::new(OWN)))?)
        }
    }
}

/// How the name of the process's own namespace stands.
pub(super) fn state(name: &str) -> Result<State, Error> {
    let path = netns::path_of(name);
    if is_own(&path)? {
        return Ok(State::Present);
    }
    match netns::state(name)? {
        State::Present => Ok(State::Differs(format!("{} is another namespace", path.display()))),
        // What a creation that was killed leaves, or nothing.
        other => Ok(other),
    }
}

/// Whether there is anything under that name that is not another namespace.
pub(super) fn is_there(name: &str) -> Result<bool, Error> {
    let path = netns::path_of(name);
    Ok(is_own(&path)? || netns::state(name)? != State::Present && path.exists())
}

/// Gives the process's own namespace its name.
pub(super) fn create(name: &str) -> Result<(), Error> {
    let path = netns::path_of(name);
    if is_own(&path)? {
        return Ok(());
    }
    if netns::state(name)? == State::Present {
        return Err(Error::OtherNamespaceThere { path });
    }
    netns::name_own(&path)
}

/// Takes the name away again, if it is the process's own namespace that has it.
pub(super) fn remove(name: &str) -> Result<(), Error> {
    if is_there(name)? { netns::remove(name) } else { Ok(()) }
}
