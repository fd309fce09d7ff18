//! What is killed, crowded, taken away or exchanged under vnet: every case is a row of `docs/chaos.md`.
//!
//! Each of these tests does as much as fits into the time that every run of all tests can spare. All of it takes half
//! an hour: `VNET_CHAOS=all cargo xtask test --test chaos`. With `VNET_CHAOS=calls` commands are killed before every
//! system call there is, those that change nothing among them, which takes hours and shows nothing else.

mod clock;
mod company;
mod kill;
mod others;
mod soak;
mod storage;
mod surroundings;
mod upgrade;

/// How much is to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// What fits into the time.
    Some,
    /// Everything.
    All,
    /// Everything, and what follows from it as well.
    EveryCall,
}

fn extent() -> Extent {
    match std::env::var("VNET_CHAOS").as_deref() {
        Err(_) => Extent::Some,
        Ok("all") => Extent::All,
        Ok("calls") => Extent::EveryCall,
        Ok(other) => panic!("VNET_CHAOS is {other:?}: it is `all` or `calls`, or is not set"),
    }
}

/// A number that is another one in each run.
fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
