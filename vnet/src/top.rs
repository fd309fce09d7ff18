//! What goes on in an instance, second by second, on a terminal or as tables.
//!
//! ```text
//! Counts, twice -- rates --> Snapshot --+--> App -- draw --> the terminal      keys --> App
//!                                       '--> table, JSON
//! ```
//!
//! A [`Counts`] is what has been counted at a moment. Where a number comes from is said where its column is.

mod app;
mod counts;
mod draw;
mod rates;
mod snapshot;
mod terminal;

#[cfg(test)]
mod tests;

pub use app::{App, Key, Outcome};
pub use counts::{Counts, Dropped, EndpointCounts, Mapping};
pub use draw::draw;
pub use rates::snapshot;
pub use snapshot::{Column, Kind, Row, Snapshot, Tab, Table};
pub use terminal::{Event, run};
