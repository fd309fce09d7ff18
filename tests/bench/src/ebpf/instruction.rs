//! The instructions that the benchmark's programs are made of (RFC 9669), by what they do.

use bytemuck::{Pod, Zeroable};

/// One instruction, as the kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register(u8);

pub(crate) const R0: Register = Register(0);
pub(crate) const R1: Register = Register(1);
pub(crate) const R2: Register = Register(2);
pub(crate) const R3: Register = Register(3);
pub(crate) const R4: Register = Register(4);
pub(crate) const R5: Register = Register(5);
pub(crate) const R6: Register = Register(6);
pub(crate) const R7: Register = Register(7);
/// The frame pointer.
pub(crate) const R10: Register = Register(10);

/// How many bytes are loaded or stored: the size bits of an instruction's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    B4 = 0x00,
    B2 = 0x08,
}

const fn instruction(code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to.0 | from.0 << 4, offset, immediate }
}

/// `to = from`
pub(crate) const fn copy(to: Register, from: Register) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `to = value`, with its sign
pub(crate) const fn set(to: Register, value: i32) -> Instruction {
    instruction(0xb7, to, R0, 0, value)
}

/// `to += value`
pub(crate) const fn add(to: Register, value: i32) -> Instruction {
    instruction(0x07, to, R0, 0, value)
}

/// `to = from[offset]`
pub(crate) const fn load(size: Size, to: Register, from: Register, offset: i16) -> Instruction {
    instruction(0x61 | size as u8, to, from, offset, 0)
}

/// `to[offset] = value`
pub(crate) const fn store_value(size: Size, to: Register, offset: i16, value: i32) -> Instruction {
    instruction(0x62 | size as u8, to, R0, offset, value)
}

/// `to[offset] = from`
pub(crate) const fn store(size: Size, to: Register, offset: i16, from: Register) -> Instruction {
    instruction(0x63 | size as u8, to, from, offset, 0)
}

/// `to /= value`, of the lower half, without sign
pub(crate) const fn divide(to: Register, value: u32) -> Instruction {
    instruction(0x34, to, R0, 0, value as i32)
}

/// `to %= value`, of the lower half, without sign
pub(crate) const fn remainder(to: Register, value: u32) -> Instruction {
    instruction(0x94, to, R0, 0, value as i32)
}

/// Puts the lowest bytes into network byte order.
pub(crate) const fn to_network(size: Size, to: Register) -> Instruction {
    let bits = match size {
        Size::B4 => 32,
        Size::B2 => 16,
    };
    instruction(0xdc, to, R0, 0, bits)
}

/// `to` = the map with this descriptor.
pub(crate) const fn map(to: Register, descriptor: u32) -> [Instruction; 2] {
    [instruction(0x18, to, Register(1), 0, descriptor as i32), instruction(0, R0, R0, 0, 0)]
}

/// `to` = where the first value of an array is.
pub(crate) const fn first_value(to: Register, descriptor: u32) -> [Instruction; 2] {
    [instruction(0x18, to, Register(2), 0, descriptor as i32), instruction(0, R0, R0, 0, 0)]
}

/// Skips so many instructions if `left > right`.
pub(crate) const fn skip_if_greater(left: Register, right: Register, skip: i16) -> Instruction {
    instruction(0x2d, left, right, skip, 0)
}

/// Skips so many instructions unless the lower half of `left` is `value`.
pub(crate) const fn skip_unless_equal(left: Register, value: i32, skip: i16) -> Instruction {
    instruction(0x56, left, R0, skip, value)
}

/// Calls a helper of the kernel by its number (`enum bpf_func_id`).
pub(crate) const fn call(helper: u32) -> Instruction {
    instruction(0x85, R0, R0, 0, helper as i32)
}

/// Ends the program with what is in `R0`.
pub(crate) const fn exit() -> Instruction {
    instruction(0x95, R0, R0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `llvm-objdump` would show them.
    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let bytes = |it: Instruction| bytemuck::bytes_of(&it).to_vec();
        assert_eq!(bytes(copy(R6, R1)), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(set(R0, -1)), [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes(load(Size::B4, R2, R1, 76)), [0x61, 0x12, 76, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(store_value(Size::B4, R10, -20, 2)), [0x62, 0x0a, 0xec, 0xff, 2, 0, 0, 0]);
        assert_eq!(bytes(store(Size::B2, R7, 52, R1)), [0x6b, 0x17, 52, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(to_network(Size::B2, R1)), [0xdc, 0x01, 0, 0, 16, 0, 0, 0]);
        assert_eq!(bytes(remainder(R0, 7)), [0x94, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(map(R2, 5).map(bytes)[0], [0x18, 0x12, 0, 0, 5, 0, 0, 0]);
        assert_eq!(bytes(call(155)), [0x85, 0, 0, 0, 155, 0, 0, 0]);
        assert_eq!(bytes(exit()), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }
}
