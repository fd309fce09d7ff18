//! The host's own firewall, as values: netfilter's rules, and a judge who says what they would do to a connection.
//!
//! vnet's data path answers before netfilter is asked. So what the host's firewall would have said about a published
//! port is worth telling, and nothing else can tell it: no packet ever gets there.
//!
//! The judge follows one new connection through the chains of a hook, as the kernel would. Some of what rules ask for
//! is not known in advance (who will connect?) and some is not understood here; then both ways are followed. What
//! all ways agree on is certain, everything else is [`Verdict::Undecided`]: the judge may know less than there is to
//! know, but is never wrong.

mod connection;
mod judge;
mod rules;
mod verdict;

#[cfg(test)]
mod tests;

pub use connection::{Connection, Link};
pub use judge::judge;
pub use rules::{
    Action, Backend, Base, Bridged, Chain, Condition, Element, Families, Field, Hook, Netfilter, Part,
    Policy, Rule, Set, Table, Test,
};
pub use verdict::{Block, By, Owner, Verdict};
