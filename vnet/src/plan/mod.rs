//! From what is wanted and what is there to the steps between them. Pure.

mod op;
mod resource;

pub use op::Op;
pub use resource::{Resource, State, Veth};
