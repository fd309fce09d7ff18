//! Reading, writing and deleting many entries of a map at a time, which aya does not offer: one system call for
//! thousands of entries instead of one or two for each.
//!
//! Of a hash map the kernel copies one bucket after the other, and locks only the one it copies: the data path waits
//! for a few entries at most. It never starts over, whatever is deleted meanwhile.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use bytemuck::Pod;
use nix::libc;

/// `BPF_MAP_LOOKUP_BATCH` of the kernel's `enum bpf_cmd` (Linux 5.6).
const MAP_LOOKUP_BATCH: libc::c_long = 24;
/// `BPF_MAP_UPDATE_BATCH`, likewise.
const MAP_UPDATE_BATCH: libc::c_long = 26;
/// `BPF_MAP_DELETE_BATCH`, likewise.
const MAP_DELETE_BATCH: libc::c_long = 27;
/// What the kernel says of a kind of map that cannot be read so; an error number that it meant for itself.
const ENOTSUPP: i32 = 524;
/// Entries asked for at once. A bucket is given whole, so this must be more than any bucket has.
const AT_ONCE: usize = 4096;
/// Times that a bucket may be found locked before that is an error.
const MAX_BUSY: u32 = 1000;
/// The kernel's note of where it stands: the number of a bucket, or a key, the longest of which is shorter.
type Position = [u64; 8];

/// The part of the kernel's `union bpf_attr` that is for batches.
#[repr(C)]
struct Request {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Hands each entry of a map to `each` as long as that says to go on; returns whether the map can be read so, and hands
/// nothing over if not.
///
/// The sizes of `K` and `V` must be the map's, and it must have one value for a key.
pub(super) fn read<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(K, V) -> bool,
) -> io::Result<bool> {
    let sizes = Sizes { key: size_of::<K>(), value: size_of::<V>() };
    read_bytes(map, sizes, |key, value| {
        each(bytemuck::pod_read_unaligned(key), bytemuck::pod_read_unaligned(value))
    })
}

/// Bytes that the kernel copies of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) key: usize,
    /// Of maps with a value for each CPU all of them, each rounded up to a multiple of eight.
    pub(super) value: usize,
}

/// As [`read`], for types that are not known here; the sizes must be the map's.
pub(super) fn read_bytes(
    map: BorrowedFd<'_>,
    sizes: Sizes,
    mut each: impl FnMut(&[u8], &[u8]) -> bool,
) -> io::Result<bool> {
    assert!(sizes.key <= size_of::<Position>(), "a key is where the kernel may stand");
    let (mut here, mut next) = (Position::default(), Position::default());
    let (mut keys, mut values) = (vec![0_u8; AT_ONCE * sizes.key], vec![0_u8; AT_ONCE * sizes.value]);
    let (mut first, mut busy) = (true, 0);
    loop {
        let mut request = Request {
            in_batch: if first { 0 } else { here.as_ptr() as u64 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: AT_ONCE as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let answer = look_up(&mut request);
        let errno = answer.as_ref().err().and_then(io::Error::raw_os_error);
        match errno {
            Some(ENOTSUPP | libc::EINVAL) if first => return Ok(false),
            // The last batch, with all that was left.
            None | Some(libc::ENOENT) => busy = 0,
            // The bucket that comes next was locked; those before it have been copied.
            Some(libc::EBUSY) if busy < MAX_BUSY => busy += 1,
            Some(_) => return answer.map(|()| true),
        }
        let count = (request.count as usize).min(AT_ONCE);
        let entries = keys.chunks_exact(sizes.key).zip(values.chunks_exact(sizes.value));
        let goes_on = entries.take(count).all(|(key, value)| each(key, value));
        if errno == Some(libc::ENOENT) || !goes_on {
            return Ok(true);
        }
        here = next;
        first = false;
    }
}

/// Writes entries, in order, whether they are there or not. An error comes with the number of those written before it.
///
/// The sizes of `K` and `V` must be the map's, and it must have one value for a key.
pub(super) fn write<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> Result<(), (usize, io::Error)> {
    assert_eq!(keys.len(), values.len(), "each key has a value");
    write_bytes(map, keys.len(), bytemuck::cast_slice(keys), bytemuck::cast_slice(values))
}

/// Deletes entries, in order; those that are not there are deleted already. An error comes with the number of those
/// that were dealt with before it.
///
/// The size of `K` must be the map's.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> Result<(), (usize, io::Error)> {
    delete_bytes(map, keys.len(), bytemuck::cast_slice(keys))
}

/// As [`write`], for types that are not known here: as many keys and values one after the other, of the map's sizes.
pub(super) fn write_bytes(
    map: BorrowedFd<'_>,
    count: usize,
    keys: &[u8],
    values: &[u8],
) -> Result<(), (usize, io::Error)> {
    change(MAP_UPDATE_BATCH, map, count, keys, values.as_ptr() as u64)
}

/// As [`delete`], for keys of a type that is not known here.
pub(super) fn delete_bytes(map: BorrowedFd<'_>, count: usize, keys: &[u8]) -> Result<(), (usize, io::Error)> {
    let size = keys.len().checked_div(count).unwrap_or(0);
    let mut done = 0;
    while let Err((more, error)) = change(MAP_DELETE_BATCH, map, count - done, &keys[done * size..], 0) {
        done += more;
        if error.raw_os_error() != Some(libc::ENOENT) {
            return Err((done, error));
        }
        // The kernel stops at what is not there.
        done += 1;
    }
    Ok(())
}

/// Changes the entries of `count` keys; `values` points at as many values, if the command takes some.
fn change(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    count: usize,
    keys: &[u8],
    values: u64,
) -> Result<(), (usize, io::Error)> {
    if count == 0 {
        return Ok(());
    }
    let mut request = Request {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values,
        // No map has room for more.
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    let (pointer, size) = (&raw mut request, size_of::<Request>());
    // SAFETY: the kernel reads `count` keys and, for an update, as many values, all of the map's sizes, from slices
    // that outlive the call; of the request it writes the number of entries it has dealt with.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) };
    if result < 0 {
        let error = io::Error::last_os_error();
        // If the kernel gave up before it began, the count is as it was.
        let done = Some(request.count as usize).filter(|done| *done < count);
        return Err((done.unwrap_or(0), error));
    }
    Ok(())
}

fn look_up(request: &mut Request) -> io::Result<()> {
    let (request, size) = (std::ptr::from_mut(request), size_of::<Request>());
    // SAFETY: the kernel writes at most `count` keys and values of the map's sizes, which are those of the buffers'
    // elements, and one position; all of them are alive and exclusively borrowed by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_LOOKUP_BATCH, request, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
