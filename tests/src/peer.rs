//! Both ends of the conversations that tests hold: small servers, clients, a ping, a capture, counters.
//!
//! Everything runs on threads of the test inside a [`crate::lab::Netns`]. A server tells each client the address
//! it sees, so that one exchange shows both halves of a translation.

mod capture;
mod client;
mod counters;
mod flood;
mod generator;
mod icmp;
mod server;
mod stream;

pub use capture::{Capture, Injector, inject, interface_mac};
pub use client::{Answer, Ask};
pub use counters::Counters;
pub use flood::Flood;
pub use generator::{Generator, Redirect};
pub use icmp::{Ping, Pong};
pub use server::{Server, Service, serve_until_killed};
pub use stream::{Digest, GIB, receive, send};
