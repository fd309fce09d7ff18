//! What vnet costs, measured beside other ways to do the same, in labs of network namespaces.
//!
//! Numbers of a shared machine scatter. So everything is repeated, vnet and its rivals take turns within one run, and
//! a difference that is smaller than the spread is called that. Nothing here asserts a time: benchmarks are not tests.

pub mod case;
pub mod chart;
mod conntrack;
mod delivery;
mod ebpf;
mod endpoints;
mod floods;
pub mod generator;
pub mod goals;
pub mod guard;
pub mod in_process;
pub mod latency;
pub mod machine;
mod maker;
mod mappings;
mod packaged;
pub mod page;
mod programs;
mod raw;
pub mod results;
pub mod rig;
pub mod rival;
pub mod run;
pub mod spread;
mod sustained;
pub mod topic;
