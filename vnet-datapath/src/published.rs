//! Which published port a packet or a socket of the host asks for.

use vnet_common::{Addr, Port, PortMapKey, PortMapValue, Proto};

use crate::tables::Ports;

/// Prefix length of a single port.
const SINGLE: u8 = 16;

/// Where a published port leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'t> {
    /// The mapping.
    pub mapping: &'t PortMapValue,
    /// The target's port.
    pub port: Port,
}

/// The mapping for a port of the host: one for that very address beats one for every address, and a single
/// port beats a block. Whether the address is the host's is the caller's to know.
#[must_use]
#[inline(always)]
pub fn published<'t, T: Ports>(tables: &'t T, addr: &Addr, port: Port, proto: Proto) -> Option<Target<'t>> {
    let mut key = PortMapKey { addr: *addr, port, proto, prefix_len: SINGLE };
    if let Some(target) = on_address(tables, &mut key) {
        return Some(target);
    }
    key = PortMapKey { addr: addr.any_of_family(), port, proto, prefix_len: SINGLE };
    on_address(tables, &mut key)
}

/// The mapping for a port of exactly this address.
#[must_use]
#[inline(always)]
pub fn published_on<'t, T: Ports>(
    tables: &'t T,
    addr: &Addr,
    port: Port,
    proto: Proto,
) -> Option<Target<'t>> {
    on_address(tables, &mut PortMapKey { addr: *addr, port, proto, prefix_len: SINGLE })
}

/// The mapping for the single port `key` on exactly its address. Leaves `key` as the block it last asked for.
#[inline(always)]
fn on_address<'t, T: Ports>(tables: &'t T, key: &mut PortMapKey) -> Option<Target<'t>> {
    if let Some(mapping) = tables.port_map(key) {
        return Some(Target { mapping, port: mapping.port });
    }
    let blocks = tables.config()?.port_blocks;
    if blocks == 0 {
        return None;
    }
    let number = key.port.number();
    // Longest prefix first, so that the smallest block wins.
    for back in 1..=SINGLE {
        let length = SINGLE.wrapping_sub(back);
        if blocks & 1_u32.wrapping_shl(u32::from(length)) == 0 {
            continue;
        }
        let in_block = 1_u32.wrapping_shl(u32::from(back)).wrapping_sub(1) as u16;
        key.port = Port::new(number & !in_block);
        key.prefix_len = length;
        if let Some(mapping) = tables.port_map(key) {
            let port = Port::new(mapping.port.number().wrapping_add(number & in_block));
            return Some(Target { mapping, port });
        }
    }
    None
}
