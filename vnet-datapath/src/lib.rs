//! The packet logic: what becomes of a packet, as a pure function of its bytes and of the tables.
//!
//! ```text
//!                    .--------------------------------------------.
//!   endpoint  -----> | from_endpoint   parse                      | --redirect_neigh--> uplink
//!                    |                 is the source its own?     | --redirect_peer---> endpoint
//!                    |                 tracked? a new flow? why?  | --pass-----.
//!                    |                 checks while still original|            |  host's stack
//!                    |                 rewrite                    |            v
//!   uplink   <------ | to_uplink  (what came through the stack)   | <----------'
//!   uplink   ------> | from_uplink     tracked? published?        | --redirect_peer---> endpoint
//!                    '--------------------------------------------'
//! ```
//!
//! One policy: what is not ours *passes* untouched; what is ours and broken is *dropped* with a reason. Every
//! check happens while the packet is still original, so that what the fast path cannot do goes whole to the
//! host's stack.
//!
//! The same code runs in tests (over a byte slice), as a TC classifier and as an XDP program, which is why it
//! keeps eight rules:
//!
//! 1. Never form a slice over packet memory. Headers are `[u8; N]` values.
//! 2. Every function is `#[inline(always)]`, and what is to be a function of its own in the kernel is a step
//!    ([`step::Steps`]) or an outlined method of [`Tables`]: it takes [`Scratch`] and returns a number. Others break on
//!    the verifier's limits on arguments, returned structs and stack.
//! 3. At most four parameters; group into structs.
//! 4. No indexing by a non-constant, no `unwrap`, no arithmetic that can overflow-panic, no `unreachable!`.
//! 5. Loops have a `const` bound named for its meaning.
//! 6. Bytes from a map are numbers until `from_u8` says otherwise; unknown means "do nothing".
//! 7. No `bool` or enum inside a POD.
//! 8. The clock, randomness, routes and maps come through [`Tables`].
#![cfg_attr(not(any(test, feature = "model")), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_inline_in_public_items)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::unreachable
    )
)]

pub mod answer;
pub mod begin;
#[cfg(any(test, feature = "model"))]
pub mod buffer;
pub mod checksum;
pub mod conntrack;
pub mod early;
pub mod fragments;
pub mod local;
#[cfg(test)]
mod lookups;
pub mod mappings;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod nat;
pub mod neighbour;
pub mod open;
mod packet;
mod parse;
pub mod pipeline;
pub mod probe;
#[cfg(test)]
mod properties;
mod published;
pub mod related;
mod scratch;
pub mod shape;
pub mod step;
mod tables;
mod verdict;
mod ways;
pub mod wire;

pub use fragments::Piece;
pub use packet::{Covers, L4Checksum, Packet, Slice};
pub use parse::{Headers, L4, Parsed, option_at, parse};
pub use published::{Target, published, published_on};
pub use scratch::{Decided, Opening, Place, Progress, Scratch, SourcePorts};
pub use tables::{Flow, Mapping, NextHop, Ports, Route, RouteQuery, Source, Tables};
pub use verdict::{Delivery, Verdict};
