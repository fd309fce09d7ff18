//! Sockets of the host that dial published ports, or try to bind them: the cgroup hooks on addresses.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_set_retval};
use vnet_common::{Addr, Port, Proto, features};
use vnet_datapath::local::{self, Socket};

use crate::{Maps, environment};

/// Let the system call go on.
pub const PROCEED: i32 = 1;
/// Let the system call fail, with `EPERM` unless the program has said otherwise.
pub const REFUSE: i32 = 0;
const EADDRINUSE: i32 = 98;

/// Which field of the context holds the address.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// `user_ip4`.
    V4,
    /// `user_ip6`, which may hold a mapped IPv4 address.
    V6,
}

/// Points `connect` and `sendto` at the target of a published port.
#[inline(always)]
pub fn dial(context: *mut bpf_sock_addr, family: Family) -> i32 {
    if is_host(context)
        && let Some(to) = local::dial(&Maps::new(context.cast()), &socket(context, family))
    {
        point(context, family, to);
    }
    PROCEED
}

/// Tells `recvfrom` and `getpeername` what was dialled.
#[inline(always)]
pub fn hear(context: *mut bpf_sock_addr, family: Family) -> i32 {
    if is_host(context)
        && let Some(to) = local::dialled(&Maps::new(context.cast()), &socket(context, family))
    {
        point(context, family, to);
    }
    PROCEED
}

/// Refuses to bind a published port: it is in use.
#[inline(always)]
pub fn bind(context: *mut bpf_sock_addr, family: Family) -> i32 {
    if !is_host(context) || local::may_bind(&Maps::new(context.cast()), &socket(context, family)) {
        return PROCEED;
    }
    if environment::has(features::SET_RETVAL) {
        // SAFETY: no preconditions, where there is this helper.
        unsafe { bpf_set_retval(-EADDRINUSE) };
    }
    REFUSE
}

/// Whether the system call is one of the host's: first of all, because most are an endpoint's, and wait for it.
#[inline(always)]
fn is_host(context: *mut bpf_sock_addr) -> bool {
    // SAFETY: the context is valid while the program runs.
    local::is_host(&Maps::new(context.cast()), unsafe { bpf_get_netns_cookie(context.cast()) })
}

#[inline(always)]
fn socket(context: *mut bpf_sock_addr, family: Family) -> Socket {
    // SAFETY: the context is valid while the program runs, and these fields may be read by all its hooks;
    // volatile so that each is loaded whole.
    unsafe {
        let addr = match family {
            Family::V4 => Addr::v4(core::ptr::read_volatile(&raw const (*context).user_ip4).to_ne_bytes()),
            Family::V6 => {
                let word = |i: usize| {
                    core::ptr::read_volatile((&raw const (*context).user_ip6).cast::<u32>().add(i))
                        .to_ne_bytes()
                };
                let ([a, b, c, d], [e, f, g, h]) = (word(0), word(1));
                let ([i, j, k, l], [m, n, o, p]) = (word(2), word(3));
                Addr::v6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
            }
        };
        // The port is in network order in the lower half of a word.
        let port = core::ptr::read_volatile(&raw const (*context).user_port) as u16;
        let proto = core::ptr::read_volatile(&raw const (*context).protocol) as u8;
        Socket { addr, port: Port { bytes: port.to_ne_bytes() }, proto: Proto { number: proto } }
    }
}

#[inline(always)]
fn point(context: *mut bpf_sock_addr, family: Family, (addr, port): (Addr, Port)) {
    // SAFETY: as above; all these hooks may write address and port.
    unsafe {
        match family {
            Family::V4 => {
                core::ptr::write_volatile(&raw mut (*context).user_ip4, u32::from_ne_bytes(addr.v4_bytes()));
            }
            Family::V6 => {
                let [a, b, c, d] = addr.words();
                let words = (&raw mut (*context).user_ip6).cast::<u32>();
                core::ptr::write_volatile(words, a);
                core::ptr::write_volatile(words.add(1), b);
                core::ptr::write_volatile(words.add(2), c);
                core::ptr::write_volatile(words.add(3), d);
            }
        }
        core::ptr::write_volatile(&raw mut (*context).user_port, u32::from(u16::from_ne_bytes(port.bytes)));
    }
}
