//! An instance described in TOML or JSON: what `vnet apply` reads and `vnet export` writes.
//!
//! ```text
//! [Source, ...] --- read ---> File { description, where each part stands }   or every problem there is
//! description  --- write --> text
//! description before and after --- diff --> [Change, ...]
//! ```
//!
//! Values in, values out: nothing here opens a file. What is read is taken apart by hand, so that everything that is
//! wrong is found at once; [`Model`] is what is written and what the schema is made from, and tests hold both against
//! each other.

mod conflicts;
mod diff;
mod json;
mod model;
mod problem;
mod read;
#[cfg(test)]
mod tests;

pub use diff::{Action, Change, Field, diff, kept};
pub use model::{Model, schema};
pub use problem::{Problem, Problems, Source, Spot};
pub use read::{File, Flawed, Known, describes_router, read};
