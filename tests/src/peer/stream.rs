//! Long streams with a digest at both ends: what a checksum of 16 bits would let through shows here.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

/// 2^30 bytes.
pub const GIB: u64 = 1 << 30;

/// SHA-256 of a stream, in hexadecimal.
pub type Digest = String;

/// How much is handed to the socket at once: large enough that the kernel makes full GSO packets of it.
const BLOCK: usize = 256 * 1024;

/// Sends `bytes` bytes of which no two blocks are alike, so that a lost, doubled or misplaced one shows.
///
/// # Errors
/// When the socket fails.
pub fn send(mut to: impl Write, bytes: u64) -> io::Result<Digest> {
    let mut block = noise();
    let mut hash = Sha256::new();
    let mut left = bytes;
    let mut number: u64 = 0;
    while left > 0 {
        // Every 4 KiB of the stream carries its own place in it.
        for page in block.chunks_exact_mut(4096) {
            page[..8].copy_from_slice(&number.to_le_bytes());
            number += 1;
        }
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        hash.update(&block[..length]);
        to.write_all(&block[..length])?;
        left -= length as u64;
    }
    Ok(hex(hash))
}

/// Reads to the end; returns the digest and how many bytes came.
///
/// # Errors
/// When the socket fails.
pub fn receive(mut from: impl Read) -> io::Result<(Digest, u64)> {
    let mut block = vec![0; BLOCK];
    let mut hash = Sha256::new();
    let mut bytes = 0;
    loop {
        match from.read(&mut block)? {
            0 => return Ok((hex(hash), bytes)),
            length => {
                hash.update(&block[..length]);
                bytes += length as u64;
            }
        }
    }
}

/// Bytes without a pattern (xorshift), the same in every run.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend(state.to_le_bytes());
    }
    block
}

fn hex(hash: Sha256) -> Digest {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
