//! From what is wanted and what is there to the steps between them. Pure.
//!
//! ```text
//! desired  (resource, state) --.
//!                               >-- plan() --> [remove ..., create or change ...]
//! obsolete (resource, state) --'
//! ```
//!
//! Laws, tested below: a plan of things that are all as described is empty; doing any beginning of a plan and
//! planning again reaches the same end; what is obsolete goes in reverse order and before anything is made.

mod blocks;
pub mod expand;
mod op;
mod resource;

pub use blocks::{Block, blocks};
pub use op::Op;
pub use resource::{Resource, State, Veth};

/// Steps, in the order in which they are to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub ops: Vec<Op>,
}

/// The steps that lead to the desired resources and away from the obsolete ones. Both lists are in the order
/// of creation.
#[must_use]
pub fn plan(desired: &[(Resource, State)], obsolete: &[(Resource, State)]) -> Plan {
    let wanted = |gone: &Resource| desired.iter().any(|(resource, _)| resource.same_identity(gone));
    // What is both obsolete and wanted again in another form is changed, not taken away in between.
    let removals =
        obsolete.iter().rev().filter(|(resource, state)| *state != State::Absent && !wanted(resource));
    let removals = removals.map(|(resource, _)| Op::Remove(resource.clone()));
    let additions = desired.iter().filter_map(|(resource, state)| match state {
        State::Absent => Some(Op::Create(resource.clone())),
        State::Differs(_) => Some(Op::Change(resource.clone())),
        State::Present => None,
    });
    Plan { ops: removals.chain(additions).collect() }
}
