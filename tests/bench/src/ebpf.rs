//! Small eBPF programs of the benchmark's own, put together instruction by instruction: what vnet is compared with, and
//! what hands vnet's programs their packets. They are no part of what vnet loads.

pub(crate) mod feeder;
pub(crate) mod instruction;
pub(crate) mod skb;
pub(crate) mod system;
pub(crate) mod timer;
pub(crate) mod yardstick;
