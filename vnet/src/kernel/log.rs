//! What the programs log, read by aya-log as it comes.
//!
//! ```text
//! programs --> ring buffer AYA_LOGS --> a thread: aya-log --> Record, Record, … --> whoever waits
//! ```
//! A thread of its own, since aya-log reads for as long as there is something, and a flood of records must not keep anybody
//! from hearing a signal. Where nobody takes records the ring buffer fills up, and what finds no room is lost: the
//! programs count what they have had to log, so the difference to what was read says how much.

use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use vnet_common::{Hook, LogLevel, maps};

use super::error::Error;
use super::maps::Maps;
use super::programs;
use crate::flow::LogRecord;
use crate::instance::Instance;

/// Records that wait for whoever takes them.
const WAITING: usize = 1024;
/// Milliseconds in which the thread notices that nobody wants more.
const PAUSE: u16 = 200;

/// Takes what aya-log hands over.
struct Sink {
    records: mpsc::Sender<LogRecord>,
    read: Arc<AtomicU64>,
    wanted: Arc<AtomicBool>,
}

impl log::Log for Sink {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.read.fetch_add(1, Ordering::Relaxed);
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let level = LogLevel::ALL.into_iter().find(|level| *level as usize == record.level() as usize);
        let parsed = level.and_then(|level| LogRecord::parse(level, &record.args().to_string()));
        if let Some(record) = parsed {
            // Fails when nobody takes any more.
            let _ = self.records.blocking_send(record);
        }
    }

    fn flush(&self) {}
}

/// The records of an instance's programs, from when it was opened on.
#[derive(Debug)]
pub struct Log {
    instance: Instance,
    records: mpsc::Receiver<LogRecord>,
    read: Arc<AtomicU64>,
    wanted: Arc<AtomicBool>,
    /// What the programs had counted, when it was opened.
    begin: u64,
    /// What they had counted since, when it was last asked how much is lost.
    counted: u64,
    /// What was told of as lost.
    lost: u64,
    /// Tells one ring buffer from another that is pinned in its place.
    stamp: Option<(u64, u64)>,
}

impl Log {
    /// Begins to read; what is there by then is of nobody's concern. The programs should log nothing at the moment.
    pub(super) fn open(instance: &Instance) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::ReadLog { source };
        // By a program that uses it, which is how aya-log finds what it has not loaded itself.
        let program = programs::classifier(instance, Hook::FromUplink)?;
        let id = program.info().map_err(|error| failed(error.into()))?.id();
        let stamp = stamp(instance);
        let (sender, records) = mpsc::channel(WAITING);
        let (read, wanted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let sink = Sink { records: sender, read: Arc::clone(&read), wanted: Arc::clone(&wanted) };
        let mut logger =
            EbpfLogger::init_from_id_with_logger(id, sink).map_err(|error| failed(error.into()))?;
        logger.flush();
        read.store(0, Ordering::Relaxed);
        wanted.store(true, Ordering::Relaxed);
        let begin = Maps::of(instance).logged()?;
        let thread = std::thread::Builder::new().name("vnet-log".to_owned());
        let still_wanted = Arc::clone(&wanted);
        let spawned = thread.spawn(move || follow(&mut logger, &still_wanted));
        spawned.map_err(|error| failed(error.into()))?;
        Ok(Self { instance: instance.clone(), records, read, wanted, begin, counted: 0, lost: 0, stamp })
    }

    /// The next record; `None` if there will be none any more. None is lost if this is dropped.
    pub async fn next(&mut self) -> Option<LogRecord> {
        self.records.recv().await
    }

    /// How many records found no room since the last time this was asked.
    ///
    /// # Errors
    /// When the programs' count cannot be read.
    pub fn newly_lost(&mut self) -> Result<u64, Error> {
        let counted = Maps::of(&self.instance).logged()?.saturating_sub(self.begin);
        // What had been counted by the last time has been read since, or is lost; but for a reader that is behind.
        let before = std::mem::replace(&mut self.counted, counted);
        if !self.records.is_empty() {
            return Ok(0);
        }
        let lost = before.saturating_sub(self.read.load(Ordering::Relaxed));
        let new = lost.saturating_sub(self.lost);
        self.lost += new;
        Ok(new)
    }

    /// Whether another ring buffer is pinned in the place of the one that is read.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        stamp(&self.instance) != self.stamp
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

fn stamp(instance: &Instance) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(instance.map_pin(maps::LOGS)).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Reads until nobody wants more.
fn follow(logger: &mut EbpfLogger<Sink>, wanted: &AtomicBool) {
    while wanted.load(Ordering::Relaxed) {
        let mut ring = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
        // A failure is a signal at most: what is there is read either way.
        let _ = poll(&mut ring, PollTimeout::from(PAUSE));
        logger.flush();
    }
}
