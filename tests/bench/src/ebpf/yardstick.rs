//! A program that always does the same work, of the kind that vnet's programs do: what they take is compared with what
//! this one takes on the same machine in the same minute.

use anyhow::Result;
use aya_obj::generated::{bpf_func_id, bpf_map_type};

use super::instruction::{
    Instruction, R0, R1, R2, R3, R4, R5, R6, R10, Size, add, call, copy, exit, map, set, store, store_value,
};
use super::skb;
use super::system::{Classifier, Map};

/// As many bytes as a tuple and an entry of the flow table.
const KEY: usize = 40;
const VALUE: usize = 72;
/// Where the key stands below the frame pointer.
const KEY_AT: i16 = -(KEY as i16);
/// Entries, as many look-ups, and as many changes of checksums.
const ENTRIES: u32 = 4_096;
const LOOK_UPS: i32 = 8;
const CHECKSUMS: i32 = 4;
/// Where the checksum of TCP stands in a packet.
const CHECKSUM_AT: i32 = 50;

/// Makes one that does the work so many times. Its verdict is [`skb::PASS`].
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn yardstick(times: u32) -> Result<(Classifier, Map)> {
    let table = Map::new(bpf_map_type::BPF_MAP_TYPE_HASH, (KEY, VALUE), ENTRIES)?;
    for number in 0..ENTRIES {
        let mut key = [0; KEY];
        key[..4].copy_from_slice(&number.to_ne_bytes());
        table.set(&key, &[0; VALUE])?;
    }
    Ok((Classifier::load("yardstick", &program(&table, times))?, table))
}

fn program(table: &Map, times: u32) -> Vec<Instruction> {
    let mut program = vec![copy(R6, R1), set(R1, 0)];
    program.extend((KEY_AT..0).step_by(4).map(|at| store(Size::B4, R10, at, R1)));
    for _ in 0..times {
        program.extend(work(table));
    }
    program.extend([set(R0, skb::PASS), exit()]);
    program
}

fn work(table: &Map) -> Vec<Instruction> {
    let mut work = Vec::new();
    for number in 0..LOOK_UPS {
        work.push(store_value(Size::B4, R10, KEY_AT, number * (ENTRIES as i32 / LOOK_UPS)));
        work.extend(map(R1, table.number()));
        work.extend([
            copy(R2, R10),
            add(R2, i32::from(KEY_AT)),
            call(bpf_func_id::BPF_FUNC_map_lookup_elem as u32),
        ]);
    }
    for number in 0..CHECKSUMS {
        work.extend([
            copy(R1, R6),
            set(R2, CHECKSUM_AT),
            set(R3, number),
            set(R4, number + 1),
            // The size of what has changed.
            set(R5, 4),
            call(bpf_func_id::BPF_FUNC_l4_csum_replace as u32),
        ]);
    }
    work.push(call(bpf_func_id::BPF_FUNC_ktime_get_boot_ns as u32));
    work
}
