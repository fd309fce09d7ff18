//! The tables of iptables-legacy, which live beside nftables: blobs that the kernel hands out through socket options.
//!
//! Structures are those of linux/netfilter_ipv4/ip_tables.h and linux/netfilter_ipv6/ip6_tables.h, in the byte order
//! of the machine. Programs that are built for another word size than the kernel's would get another layout; vnet
//! runs on 64-bit machines only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::xtables::{masked, matches, number, short, target};
use crate::firewall::{
    Action, Backend, Base, Chain, Condition, Families, Field, Hook, Netfilter, Policy, Rule, Table,
};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`; that of the entries is one more.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`
const NAME_LENGTH: usize = 32;
/// Bytes of `struct ipt_getinfo`, and where in it the hooks, their ends and the size of all entries are found.
const INFO_LENGTH: usize = 84;
const VALID_HOOKS: usize = 32;
const HOOK_ENTRY: usize = 36;
const UNDERFLOW: usize = 56;
const SIZE: usize = 80;
/// Where the entries begin in `struct ipt_get_entries`.
const ENTRIES: usize = 40;
/// Tables whose chains decide about packets, with the priority at which they are asked (`NF_IP_PRI_…`).
const TABLES: [(&str, i32); 3] = [("mangle", -150), ("filter", 0), ("security", 50)];
/// `NF_INET_LOCAL_IN` and `NF_INET_FORWARD`, and the names of their chains.
const HOOKS: [(usize, Hook, &str); 2] = [(1, Hook::Input, "INPUT"), (2, Hook::Forward, "FORWARD")];

/// What differs between the families.
struct Family {
    families: Families,
    names: &'static str,
    socket: AddressFamily,
    level: libc::c_int,
    /// Bytes of an address.
    address: usize,
    /// Where source and destination are in the IP header.
    source_at: usize,
    /// Bytes of `struct ipt_ip` or `struct ip6t_ip6`.
    ip: usize,
    /// Where in it the protocol is, and where the flags are, before those that turn a condition over.
    protocol: usize,
    flags: usize,
    /// The flag of a rule that goes to a chain for good (`IPT_F_GOTO`, `IP6T_F_GOTO`).
    goto: u8,
    /// Bytes of `struct ipt_entry` or `struct ip6t_entry`.
    entry: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        families: Families::V4,
        names: "/proc/self/net/ip_tables_names",
        socket: AddressFamily::Inet,
        level: libc::IPPROTO_IP,
        address: 4,
        source_at: 12,
        ip: 84,
        protocol: 80,
        flags: 82,
        goto: 2,
        entry: 112,
    },
    Family {
        families: Families::V6,
        names: "/proc/self/net/ip6_tables_names",
        socket: AddressFamily::Inet6,
        level: libc::IPPROTO_IPV6,
        address: 16,
        source_at: 8,
        ip: 136,
        protocol: 128,
        flags: 131,
        goto: 4,
        entry: 168,
    },
];

/// Adds the tables that are there. Looking for them does not make any, and does not load a module.
pub(super) fn read(netfilter: &mut Netfilter) -> io::Result<()> {
    for family in &FAMILIES {
        let names = match fs::read_to_string(family.names) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names?,
        };
        for (name, priority) in TABLES {
            if !names.lines().any(|line| line == name) {
                continue;
            }
            match table(family, name, priority)? {
                Some(table) => netfilter.tables.push(table),
                None => netfilter.unread.push(format!(
                    "table {} {name} of iptables-legacy, which could not be read",
                    family.families.name()
                )),
            }
        }
    }
    Ok(())
}

/// A table; `None` if its entries are not understood.
fn table(family: &Family, name: &str, priority: i32) -> io::Result<Option<Table>> {
    // The kernel answers such questions about any socket of the family.
    let socket = socket(family.socket, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let mut info = vec![0; INFO_LENGTH];
    info[..name.len()].copy_from_slice(name.as_bytes());
    ask(&socket, family.level, GET_INFO, &mut info)?;
    let Some(size) = number(&info, SIZE) else { return Ok(None) };
    let mut answer = vec![0; ENTRIES + size as usize];
    answer[..name.len()].copy_from_slice(name.as_bytes());
    answer[NAME_LENGTH..NAME_LENGTH + 4].copy_from_slice(&size.to_ne_bytes());
    // Another table's size since the last question makes the kernel refuse; the next command will see it.
    ask(&socket, family.level, GET_ENTRIES, &mut answer)?;
    let chains = chains(family, &info, &answer[ENTRIES..], priority);
    Ok(chains.map(|chains| Table {
        families: family.families,
        name: name.to_owned(),
        backend: Backend::Legacy,
        chains,
        sets: BTreeMap::new(),
    }))
}

/// `getsockopt` with a question in the buffer that takes the answer.
fn ask(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which has as many.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An entry: a rule, or the head of a chain.
struct Entry<'a> {
    offset: usize,
    conditions: Vec<Condition>,
    target: &'a str,
    data: &'a [u8],
    goto: bool,
    next: usize,
}

/// All chains of a table; `None` if its entries make no sense.
///
/// The entries of all chains lie one after the other. A built-in chain begins where its hook says and ends with its
/// policy; a user's begins behind an entry whose target is `ERROR` with its name, and ends where the next one begins.
/// A jump names the place of the chain's first entry.
fn chains(family: &Family, info: &[u8], blob: &[u8], priority: i32) -> Option<BTreeMap<String, Chain>> {
    let entries = entries(family, blob)?;
    let valid = number(info, VALID_HOOKS)?;
    let mut begins: BTreeMap<usize, (String, Option<Base>)> = BTreeMap::new();
    for (hook_number, hook, name) in HOOKS {
        if valid & 1 << hook_number != 0 {
            let begin = number(info, HOOK_ENTRY + 4 * hook_number)? as usize;
            let end = number(info, UNDERFLOW + 4 * hook_number)? as usize;
            let policy = entries.iter().find(|entry| entry.offset == end)?;
            let policy = match target(policy.target, policy.data) {
                Action::Drop => Policy::Drop,
                _ => Policy::Accept,
            };
            begins.insert(begin, (name.to_owned(), Some(Base { hook, priority, policy })));
        }
    }
    for entry in entries.iter().filter(|entry| entry.target == "ERROR") {
        begins.insert(entry.next, (text(entry.data)?.to_owned(), None));
    }
    let hooks = (0..5).filter(|hook| valid & 1 << hook != 0);
    let policies: Vec<usize> =
        hooks.filter_map(|hook| number(info, UNDERFLOW + 4 * hook)).map(|at| at as usize).collect();
    let mut chains = BTreeMap::new();
    let mut current: Option<String> = None;
    for entry in &entries {
        if let Some((name, base)) = begins.get(&entry.offset) {
            chains.insert(name.clone(), Chain { base: *base, rules: Vec::new() });
            current = Some(name.clone());
        }
        let chain = current.as_ref().and_then(|name| chains.get_mut(name));
        // What ends a built-in chain is its policy. What follows belongs to another chain, perhaps of another hook.
        if entry.target == "ERROR" || policies.contains(&entry.offset) {
            current = None;
        } else if let Some(chain) = chain {
            let action = action(entry, &begins);
            chain.rules.push(Rule { conditions: entry.conditions.clone(), action });
        }
    }
    Some(chains)
}

fn action(entry: &Entry<'_>, begins: &BTreeMap<usize, (String, Option<Base>)>) -> Action {
    let verdict = number(entry.data, 0).map(u32::cast_signed).filter(|_| entry.target.is_empty());
    match verdict.and_then(|verdict| usize::try_from(verdict).ok()) {
        None => target(entry.target, entry.data),
        // A rule without a target "jumps" to the next one.
        Some(place) if place == entry.next && !entry.goto => Action::Continue,
        Some(place) => match begins.get(&place) {
            Some((name, _)) if entry.goto => Action::Goto(name.clone()),
            Some((name, _)) => Action::Jump(name.clone()),
            None => Action::Unknown("a chain that was not found".to_owned()),
        },
    }
}

fn entries<'a>(family: &Family, blob: &'a [u8]) -> Option<Vec<Entry<'a>>> {
    /// Bytes of `struct xt_entry_match` and `struct xt_entry_target` before their data: a size, a name, a revision.
    const HEAD: usize = 32;
    /// `struct ipt_entry` after its `struct ipt_ip`: a word for the cache, then two offsets.
    const TARGET_OFFSET: usize = 4;
    const NEXT_OFFSET: usize = 6;
    let mut entries = Vec::new();
    let mut offset = 0;
    while offset < blob.len() {
        let entry = &blob[offset..];
        let target_offset = usize::from(short(entry, family.ip + TARGET_OFFSET)?);
        let length = usize::from(short(entry, family.ip + NEXT_OFFSET)?);
        let entry = entry.get(..length).filter(|_| length >= family.entry)?;
        let mut conditions = ip(family, entry)?;
        let mut at = family.entry;
        while at < target_offset {
            let size = usize::from(short(entry, at)?);
            let each = entry.get(at..at + size).filter(|_| size >= HEAD)?;
            conditions.extend(matches(text(&each[2..HEAD - 1])?, u32::from(each[HEAD - 1]), &each[HEAD..]));
            at += size;
        }
        let target = entry.get(target_offset..)?;
        let (name, data) = (text(target.get(2..HEAD - 1)?)?, target.get(HEAD..)?);
        let goto = entry[family.flags] & family.goto != 0;
        entries.push(Entry { offset, conditions, target: name, data, goto, next: offset + length });
        offset += length;
    }
    Some(entries)
}

/// `struct ipt_ip` and `struct ip6t_ip6`: addresses and masks, interfaces and masks, a protocol, flags.
fn ip(family: &Family, entry: &[u8]) -> Option<Vec<Condition>> {
    const INTERFACE: usize = 16;
    /// `IPT_INV_…`
    const INPUT: u8 = 0x01;
    const OUTPUT: u8 = 0x02;
    const SOURCE: u8 = 0x08;
    const DESTINATION: u8 = 0x10;
    const FRAGMENT: u8 = 0x20;
    const PROTOCOL: u8 = 0x40;
    let length = family.address;
    let bytes = |at: usize, length: usize| entry.get(at..at + length);
    let (flags, inverted) = (*entry.get(family.flags)?, *entry.get(family.flags + 1)?);
    let mut conditions = Vec::new();
    let mut asks = |which: Field, value: &[u8], mask: &[u8], bit: u8| {
        if mask.iter().any(|byte| *byte != 0) {
            // The "+" at the end of an interface's name is still there.
            let value: Vec<u8> = value.iter().zip(mask).map(|(byte, mask)| byte & mask).collect();
            conditions.push(masked(which, mask, &value, inverted & bit != 0));
        }
    };
    let address = |offset: usize| Field::Network { offset, length };
    asks(address(family.source_at), bytes(0, length)?, bytes(2 * length, length)?, SOURCE);
    asks(address(family.source_at + length), bytes(length, length)?, bytes(3 * length, length)?, DESTINATION);
    let names = 4 * length;
    let name = |n: usize| bytes(names + n * INTERFACE, INTERFACE);
    asks(Field::InputName, name(0)?, name(2)?, INPUT);
    asks(Field::OutputName, name(1)?, name(3)?, OUTPUT);
    let protocol = u8::try_from(short(entry, family.protocol)?).ok()?;
    asks(Field::Protocol, &[protocol], &[if protocol == 0 { 0 } else { 0xff }], PROTOCOL);
    // `-f`: later pieces of a datagram. The flag means something else for IPv6.
    if family.families == Families::V4 && flags & 1 != 0 && inverted & FRAGMENT == 0 {
        conditions.push(Condition::Never);
    }
    Some(conditions)
}

/// A text that ends with a zero.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}
