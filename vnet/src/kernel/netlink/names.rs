//! Names and numbers of interfaces, and the number of the namespace itself: what the kernel says of any socket of a
//! namespace, without a message and without the lock of its networking.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;

use super::Netlink;

/// The number of a socket's network namespace (Linux 5.14).
#[derive(Clone, Copy)]
struct NetnsCookie;

nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, u64, GetStruct<u64>);

impl Netlink {
    /// The number of the namespace: never used twice until the next boot.
    pub(in crate::kernel) fn cookie(&self) -> io::Result<u64> {
        Ok(getsockopt(&self.at_once, NetnsCookie)?)
    }

    /// The index of the interface of that name, if there is one.
    pub(in crate::kernel) fn index_of(&self, interface: &str) -> io::Result<Option<u32>> {
        let mut request = no_interface();
        // No interface has a name that is longer than the kernel's longest, of which the last byte is its end.
        if interface.len() >= request.ifr_name.len() {
            return Ok(None);
        }
        for (to, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = byte.cast_signed();
        }
        if !self.ask(libc::SIOCGIFINDEX, &mut request)? {
            return Ok(None);
        }
        // SAFETY: of the union this is what the kernel has written.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        Ok(u32::try_from(index).ok())
    }

    /// The name of the interface of that index, if there is one.
    pub(in crate::kernel) fn name_of(&self, index: u32) -> io::Result<Option<String>> {
        let mut request = no_interface();
        request.ifr_ifru.ifru_ifindex = index.cast_signed();
        if !self.ask(libc::SIOCGIFNAME, &mut request)? {
            return Ok(None);
        }
        let name = request.ifr_name.map(libc::c_char::cast_unsigned);
        let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
        Ok(name.to_str().ok().map(str::to_owned))
    }

    /// Asks about an interface; says whether there is such a one.
    fn ask(&self, question: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<bool> {
        // The C library's type of the question is not the same everywhere.
        let question = question as libc::Ioctl;
        // SAFETY: both questions are asked with a `struct ifreq`, which is the caller's alone and outlives the call.
        let done = unsafe { libc::ioctl(self.at_once.as_raw_fd(), question, std::ptr::from_mut(request)) };
        if done == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENODEV) { Ok(false) } else { Err(error) }
    }
}

fn no_interface() -> libc::ifreq {
    // SAFETY: it consists of numbers and of pointers that may be null, so all zeros are one.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_found_by_name_and_by_number() {
        let netlink = Netlink::open_as_needed().unwrap();
        let index = netlink.index_of("lo").unwrap().expect("a loopback");
        assert_eq!(netlink.name_of(index).unwrap().as_deref(), Some("lo"));
        assert_eq!(netlink.name_of(u32::MAX >> 1).unwrap(), None);
        for name in ["", "no-such-one", "a-name-that-is-too-long"] {
            assert_eq!(netlink.index_of(name).unwrap(), None, "{name:?}");
        }
        assert_eq!(netlink.cookie().unwrap(), Netlink::open_as_needed().unwrap().cookie().unwrap());
    }
}
