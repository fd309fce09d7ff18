//! The client of sustained rates: several workers, each of which opens a connection, has a byte sent back, closes it
//! and goes on with the next.
//!
//! They share a CPU with the server, as in other dialogues: several at once, so that it does not fall asleep between them.
//!
//! It closes with a reset, so that neither side keeps the connection's ports for a minute: what then runs out is not
//! the client's doing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::client::{connect, reset, there_and_back};
use super::pin;
use crate::latency::Percentiles;

/// Connections at once.
const WORKERS: usize = 4;
/// How often progress is said, in seconds.
const SAID_EVERY: u64 = 10;

/// What the client is to do.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Sustain {
    /// What leads to the server
    #[arg(long)]
    pub target: SocketAddr,
    /// For how long, in seconds
    #[arg(long)]
    pub seconds: u64,
    /// The CPU to stay on
    #[arg(long)]
    pub cpu: usize,
}

/// What it found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// Connections a second, over all of the time.
    pub per_second: f64,
    /// Those of the slowest second.
    pub slowest_second: f64,
    /// Connections that were not made, or brought no byte back.
    pub failed: f64,
    /// What a connection took, from its beginning to its end.
    pub latency: Percentiles,
    /// How many failed, by reason.
    pub failures: BTreeMap<String, f64>,
}

#[derive(Default)]
struct Worked {
    took: Vec<Duration>,
    failures: BTreeMap<String, f64>,
}

/// Opens connections as fast as they go, and prints every now and then how many a second those were.
///
/// # Errors
/// When not a single one could be opened.
pub fn sustain(order: &Sustain) -> Result<Rate> {
    pin(order.cpu)?;
    let (made, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (seconds, worked) = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..WORKERS).map(|_| scope.spawn(|| work(order.target, &made, &over))).collect();
        let seconds = watch(order.seconds, &made);
        over.store(true, Ordering::Relaxed);
        let worked = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
        (seconds, worked.collect::<Vec<_>>())
    });
    let (mut took, mut failures) = (Vec::new(), BTreeMap::new());
    for worker in worked {
        took.extend(worker.took);
        for (reason, count) in worker.failures {
            *failures.entry(reason).or_default() += count;
        }
    }
    let latency = Percentiles::of(took)
        .with_context(|| format!("no connection to {} was made: {failures:?}", order.target))?;
    Ok(Rate {
        per_second: seconds.iter().sum::<f64>() / seconds.len() as f64,
        slowest_second: seconds.iter().copied().fold(f64::INFINITY, f64::min),
        failed: failures.values().fold(0.0, |all, count| all + count),
        latency,
        failures,
    })
}

/// The rate of each second.
fn watch(seconds: u64, made: &AtomicU64) -> Vec<f64> {
    let begun = Instant::now();
    let (mut rates, mut before, mut since) = (Vec::new(), 0, begun);
    for second in 1..=seconds {
        let end = begun + Duration::from_secs(second);
        thread::sleep(end.saturating_duration_since(Instant::now()));
        let (now, count) = (Instant::now(), made.load(Ordering::Relaxed));
        rates.push((count - before) as f64 / (now - since).as_secs_f64());
        (before, since) = (count, now);
        if second.is_multiple_of(SAID_EVERY) {
            eprintln!("{second} s: {count} connections");
        }
    }
    rates
}

fn work(target: SocketAddr, made: &AtomicU64, over: &AtomicBool) -> Worked {
    let mut worked = Worked::default();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let once = connect(target).and_then(|mut stream| {
            there_and_back(&mut stream)?;
            reset(stream)
        });
        match once {
            Ok(()) => {
                worked.took.push(begun.elapsed());
                made.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => *worked.failures.entry(format!("{error:#}")).or_default() += 1.0,
        }
    }
    worked
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};

    use vnet_tests::lab::Lab;

    use super::*;
    use crate::generator::cpus;

    #[test]
    fn connections_are_counted_and_failures_are_told() {
        let lab = Lab::new();
        let cpu = cpus().unwrap()[0];
        let sustained = |port: u16| {
            let target = (Ipv4Addr::LOCALHOST, port).into();
            lab.host().enter(|| sustain(&Sustain { target, seconds: 1, cpu }))
        };
        let listener = lab.host().enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        // Ends with the process: nothing more comes.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut byte = [0];
                let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
            }
        });
        let rate = sustained(port).unwrap();
        assert!(rate.per_second > 0.0 && rate.slowest_second <= rate.per_second, "{rate:?}");
        assert_eq!((rate.failed, rate.failures.len()), (0.0, 0), "{rate:?}");
        let unheard = sustained(1).unwrap_err().to_string();
        assert!(unheard.contains("no connection to 127.0.0.1:1") && unheard.contains("refused"), "{unheard}");
    }
}
