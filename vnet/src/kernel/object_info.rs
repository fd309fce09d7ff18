//! What the kernel tells of a map, a link or type information (`BPF_OBJ_GET_INFO_BY_FD`), as far as aya does not ask.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

/// Asks for what is known of an object. `T` is the beginning of the kernel's structure for objects of that kind; whatever it
/// points at has as much room as it says.
pub(super) fn object_info<T: Copy>(object: BorrowedFd<'_>, mut info: T) -> io::Result<T> {
    const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    #[repr(C)]
    struct Request {
        fd: u32,
        length: u32,
        info: u64,
    }
    let request = Request {
        fd: object.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attribute is the `info` member of BPF_OBJ_GET_INFO_BY_FD; the kernel writes at most `length` bytes to
    // `info`, which lives until the call is over, and to where it points.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw const request, size_of::<Request>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(info) }
}
