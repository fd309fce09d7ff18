//! The topology of an instance as a drawing: the world, uplinks, networks, and endpoints with what is published for them.
//!
//! ```text
//! record, counters -- Graph --+-- svg       laid out and drawn here
//!                             +-- dot       for Graphviz
//!                             '-- mermaid   for pages in Markdown
//! ```
//!
//! Nothing here asks anybody: the same instance gives the same drawing.

mod dot;
mod mermaid;
mod model;
mod svg;

#[cfg(test)]
mod tests;

pub use dot::dot;
pub use mermaid::mermaid;
pub use model::{Direct, Endpoint, Floating, Graph, Network, Published, Rates, Uplink};
pub use svg::svg;
