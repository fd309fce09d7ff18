//! Offsets in `struct __sk_buff`, and what programs return.

pub(crate) const MARK: i16 = 8;
pub(crate) const PROTOCOL: i16 = 16;
pub(crate) const TC_INDEX: i16 = 44;
pub(crate) const DATA: i16 = 76;
pub(crate) const DATA_END: i16 = 80;

/// `TC_ACT_UNSPEC`: the packet goes on to whatever comes next.
pub(crate) const PASS: i32 = -1;
/// `TC_ACT_REDIRECT`.
pub(crate) const REDIRECT: i32 = 7;
