//! The load generator: a server and a client, each a process of its own in its namespace, as real ones are.
//!
//! Time is [`std::time::Instant`], which is `CLOCK_MONOTONIC`. Every socket has a timeout, so nothing waits for ever.

mod client;
mod rate;
mod server;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::case::Kind;
use crate::latency::Percentiles;

pub use client::load;
pub use rate::{Rate, Sustain, sustain};
pub use server::serve;

/// What a server prints when it can be dialled.
pub const READY: &str = "ready";
/// How long an answer may take before a measurement has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much a stream hands to the kernel at once.
const BLOCK: usize = 256 * 1024;

/// What a client is to do.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// How to measure
    #[arg(long)]
    pub kind: Kind,
    /// The server, or what leads to it
    #[arg(long)]
    pub target: SocketAddr,
    /// How many operations
    #[arg(long)]
    pub count: u64,
    /// The CPU to stay on
    #[arg(long)]
    pub cpu: usize,
}

/// What a server is to do.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Serve {
    /// What clients will measure
    #[arg(long)]
    pub kind: Kind,
    /// Where to listen, on every address
    #[arg(long)]
    pub port: u16,
    /// The CPU to stay on
    #[arg(long)]
    pub cpu: usize,
}

/// What one measurement found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The number of the kind, in its unit.
    pub value: f64,
    /// What single operations took.
    pub latency: Option<Percentiles>,
    /// Whatever else is worth knowing, by name.
    #[serde(default)]
    pub details: BTreeMap<String, f64>,
}

/// The CPUs this process may use.
///
/// # Errors
/// When the kernel does not say.
pub fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("ask for the CPUs")?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

/// Keeps the calling thread, and those it starts, on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context("no such CPU")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("stay on CPU {cpu}"))
}

/// Allows as many open sockets as the ladder needs.
fn allow_many_sockets() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("ask for the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

fn impatient(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(())
}
