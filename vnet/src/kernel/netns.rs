//! Network namespaces: made where `ip netns` looks for them, entered by threads of their own.
//!
//! A thread that changes its network namespace never changes back here: it ends. The thread that runs the
//! runtime therefore never enters one, and nothing that runs in it can find itself elsewhere. That a whole process does,
//! before there is a runtime, is another matter: see `home`.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use super::capabilities::check_namespaces;
use super::error::Error;
use super::interface::change_error;
use super::netlink::Netlink;
use crate::plan::State;

/// Where `ip netns` keeps its namespaces.
pub(super) const DIRECTORY: &str = "/run/netns";
/// The loopback's index: it is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// An open network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// Opens the namespace at a path.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file =
            File::open(path).map_err(|source| Error::OpenNamespace { path: path.to_owned(), source })?;
        if is_namespace(&file) {
            Ok(Self { path: path.to_owned(), file })
        } else {
            Err(Error::NotANamespace { path: path.to_owned() })
        }
    }

    /// Opens it if there is one at that path.
    pub(super) fn open_if_any(path: &Path) -> Result<Option<Self>, Error> {
        match Self::open(path) {
            Ok(namespace) => Ok(Some(namespace)),
            Err(Error::NotANamespace { .. }) => Ok(None),
            Err(Error::OpenNamespace { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Moves the calling thread into it, for good.
    pub(super) fn enter(&self) -> Result<(), Error> {
        check_namespaces()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::EnterNamespace { path: self.path.clone(), source: errno.into() })
    }

    /// Does something in a thread inside it.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        in_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// A netlink socket inside it. Needs the runtime.
    pub(super) fn netlink(&self) -> Result<Netlink, Error> {
        let runtime = tokio::runtime::Handle::current();
        self.within(|| {
            let _in_runtime = runtime.enter();
            Netlink::open().map_err(|source| Error::NetlinkSocket { source })
        })
    }
}

/// How the namespace of that name stands.
pub(super) fn state(name: &str) -> Result<State, Error> {
    let path = path_of(name);
    match Namespace::open(&path) {
        Ok(_) => Ok(State::Present),
        Err(error @ Error::NotANamespace { .. }) => Ok(State::Differs(error.to_string())),
        Err(Error::OpenNamespace { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(State::Absent)
        }
        Err(error) => Err(error),
    }
}

/// Makes the namespace of that name, its loopback up. One that is there is left alone.
pub(super) async fn create(name: &str) -> Result<(), Error> {
    let path = path_of(name);
    let Some(namespace) = Namespace::open_if_any(&path)? else { return make(&path) };
    let loopback = namespace.netlink()?.set_up(LOOPBACK, Vec::new()).await;
    loopback.map_err(|source| change_error("lo", &path.display().to_string(), source))
}

/// Removes the namespace of that name. It lives on while processes are in it, without the name.
pub(super) fn remove(name: &str) -> Result<(), Error> {
    let path = path_of(name);
    if path.exists() {
        check_namespaces()?;
    }
    let failed = |source| Error::RemoveNamespace { path: path.clone(), source };
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: a file on which nothing is mounted, left by a creation that was killed.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

pub(super) fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn is_namespace(file: &File) -> bool {
    fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Mounts a new namespace at a path, in place of a plain file if there is one: what a creation leaves behind
/// that was killed between the file and the mount.
fn make(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::MakeNamespace { path: path.to_owned(), source };
    at_path(path, || {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
            // Before anybody finds it: one that has a name is complete.
            loopback_up().map_err(failed)?;
            mount_own(path)
        })
    })
}

/// Mounts the calling thread's own namespace at a path, likewise.
pub(super) fn name_own(path: &Path) -> Result<(), Error> {
    at_path(path, || mount_own(path))
}

fn mount_own(path: &Path) -> Result<(), Error> {
    let own = Some("/proc/thread-self/ns/net");
    let mounted = mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    mounted.map_err(|errno| Error::MakeNamespace { path: path.to_owned(), source: errno.into() })
}

/// Makes the file that a namespace is to be mounted on, which goes again if it cannot be.
fn at_path(path: &Path, mounted: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    let failed = |source| Error::MakeNamespace { path: path.to_owned(), source };
    check_namespaces()?;
    make_directory().map_err(failed)?;
    match File::create_new(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let made = mounted();
    if made.is_err() {
        // Best effort: the error to report is the first one.
        let _ = fs::remove_file(path);
    }
    made
}

/// Sets the loopback interface of the calling thread's namespace up (`SIOCSIFFLAGS`).
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: the request names an interface, ends its name with a zero, and holds the flags that this one reads.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the directory as `ip netns` does: a shared mount, so that a namespace made or removed in one mount
/// namespace is made or removed in all of them.
fn make_directory() -> io::Result<()> {
    let directory = Path::new(DIRECTORY);
    fs::DirBuilder::new().mode(0o755).recursive(true).create(directory)?;
    // Against `ip netns add` at the same moment, which locks the same directory.
    let _lock = Flock::lock(File::open(directory)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let share =
        || mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            mount(
                Some(directory),
                directory,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )?;
            share()?;
        }
        done => done?,
    }
    Ok(())
}

/// Does something in a thread that ends with it.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("vnet-netns".to_owned()).spawn_scoped(scope, work);
        match thread.map_err(|source| Error::Thread { source })?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
