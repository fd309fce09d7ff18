//! The BPF file system: mounted where an instance wants it, and what is pinned in it taken away.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::attachment;
use super::capabilities::check_namespaces;
use super::error::Error;
use super::object_info::object_info;

/// What happens to links to interfaces when their pins are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InterfaceLinks {
    /// They end.
    Detach,
    /// They are pinned in another place as well and live on.
    Leave,
}

/// Mounts a BPF file system at a path unless there is one.
pub(super) fn mount_bpffs(path: &Path) -> Result<(), Error> {
    if is_bpffs(path) {
        return Ok(());
    }
    if in_private_mounts() {
        return Err(Error::PrivateMounts { path: path.to_owned() });
    }
    check_namespaces()?;
    let failed = |source| Error::MountBpffs { path: path.to_owned(), source };
    if !path.exists() {
        make_directory(path).map_err(failed)?;
    }
    // Two instances that start at once must not mount over each other.
    let directory = File::open(path).map_err(failed)?;
    let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
    if is_bpffs(path) {
        return Ok(());
    }
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|errno| failed(errno.into()))
}

/// Whether there is a BPF file system at a path.
pub(super) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Whether this process sees other mounts than the machine's first process, as under `ip netns exec`: what it
/// mounts then goes when it ends, and every pin with it. Not knowing is not a reason to refuse.
fn in_private_mounts() -> bool {
    let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    mounts("1").zip(mounts("self")).is_some_and(|(first, own)| first != own)
}

/// Makes a directory, and those it is in, for root only.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// What is in a directory, sorted; nothing if it does not exist.
pub(super) fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    match entries {
        Ok(mut paths) => {
            paths.sort_unstable();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::ReadFile { path: directory.to_owned(), source }),
    }
}

/// Removes a tree of pins: links first, so that no program runs without its maps being there to look at.
pub(super) fn remove_tree(root: &Path, interface_links: InterfaceLinks) -> Result<(), Error> {
    let links = root.join("links");
    for pin in list(&links)? {
        if interface_links == InterfaceLinks::Detach || !attachment::is_pin(&pin) {
            detach(&pin)?;
        } else {
            unpin(&pin)?;
        }
    }
    for path in list(root)? {
        if path.is_dir() {
            list(&path)?.iter().try_for_each(|pin| unpin(pin))?;
            remove_directory(&path)?;
        } else {
            unpin(&path)?;
        }
    }
    remove_directory(root)
}

/// Detaches a pinned link at once and removes the pin. Removing the pin alone would detach it as well, but
/// some time later. What is pinned there and is not a link only loses its pin.
pub(super) fn detach(pin: &Path) -> Result<(), Error> {
    match detach_link(pin) {
        Ok(()) => {}
        Err(error) => match error.raw_os_error() {
            // Not pinned, detached already because the interface is gone, or not a link.
            Some(libc::ENOENT | libc::ENOLINK | libc::EINVAL) => {}
            // The file system cannot hold objects, or the kernel (before 5.9) cannot detach: the pin's end does.
            Some(libc::EACCES | libc::EPERM | libc::EOPNOTSUPP) => {}
            _ => return Err(Error::Unpin { pin: pin.to_owned(), source: error }),
        },
    }
    unpin(pin)
}

/// Removes a pin; one that is not there is removed already.
pub(super) fn unpin(pin: &Path) -> Result<(), Error> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Unpin { pin: pin.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Removes an empty directory; one that is not there is removed already.
fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Unpin { pin: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn detach_link(pin: &Path) -> io::Result<()> {
    const LINK_DETACH: libc::c_long = 34;
    let link = open(pin)?;
    let link_fd = link.as_raw_fd() as u32;
    // SAFETY: the attribute is the only member of BPF_LINK_DETACH, a descriptor that lives until the call is over.
    let done = unsafe { libc::syscall(libc::SYS_bpf, LINK_DETACH, &raw const link_fd, size_of::<u32>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a pinned link has been detached: one to a cgroup has no cgroup any more (`bpf_cgroup_link_fill_link_info`), one
/// by XDP to an interface no interface (`bpf_xdp_link_fill_link_info`), whose index stands in the same place.
pub(super) fn is_detached(pin: &Path) -> io::Result<bool> {
    /// The beginning of `struct bpf_link_info`, as it is for links to cgroups. What a kind of link has not is zero.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        cgroup: u64,
        attached: u32,
        padding_at_end: u32,
    }
    let link = open(pin)?;
    Ok(object_info(link.as_fd(), Info::default())?.cgroup == 0)
}

/// Opens what is pinned at a path. Like the other commands of `bpf` here (`include/uapi/linux/bpf.h`), aya does this only
/// without giving the descriptor away, or not at all.
fn open(pin: &Path) -> io::Result<OwnedFd> {
    const OBJ_GET: libc::c_long = 7;
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let pathname = path.as_ptr() as u64;
    // SAFETY: the attribute is the pathname member of BPF_OBJ_GET, which the kernel reads up to its zero byte;
    // the members it is not given are zero to it. `path` outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &raw const pathname, size_of::<u64>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a descriptor of ours alone; the kernel opens it with O_CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
