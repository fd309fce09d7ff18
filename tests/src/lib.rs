//! The lab, and what every test that needs a kernel is written with.

pub mod case;
pub mod datagrams;
pub mod frame;
pub mod interrupt;
pub mod lab;
pub mod peer;
pub mod report;
pub mod runner;
pub mod terminal;
