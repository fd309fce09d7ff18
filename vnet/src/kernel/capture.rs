//! Captures dropped packets: the programs hand over those that the filter in their map selects, through perf events of
//! which each CPU has one for as long as the capture lives. They go with its process, however that ends, and what is left
//! of the filter then costs a dropped packet a failing call.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use aya::maps::perf::{PerfEvent, PerfEventArrayBuffer};
use aya::maps::{MapData, PerfEventArray};
use bytemuck::Zeroable as _;
use futures_util::future::select_all;
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vnet_common::{CaptureFilter, CaptureHeader, maps as names};

use super::error::Error;
use super::maps::{Maps, Table};
use crate::instance::Instance;

/// Pages of memory in which a CPU's packets wait to be read: 1 MiB.
const PAGES: usize = 256;
/// How many packets of a CPU are taken in one go: a flood must not keep the runtime from hearing a signal.
const AT_ONCE: usize = 256;

/// A dropped packet.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// What is known of it.
    pub header: CaptureHeader,
    /// Its first bytes, from the link header on.
    pub bytes: &'a [u8],
}

/// What takes the packets: `None` when there is none for now. Says whether to go on.
pub(super) type Take<'a> = dyn FnMut(Option<Captured<'_>>) -> io::Result<bool> + 'a;

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    filter: Table<u32, CaptureFilter>,
    buffers: Vec<Buffer>,
    lost: u64,
    /// There is one capture at a time.
    _lock: File,
}

impl Capture {
    /// Begins to capture.
    pub(super) fn begin(instance: &Instance, maps: &Maps, filter: &CaptureFilter) -> Result<Self, Error> {
        let lock = lock(instance)?;
        let failed = |source: io::Error| Error::Capture { source };
        let mut captured = maps.captured()?;
        let cpus = aya::util::online_cpus().map_err(|(_, source)| failed(source))?;
        let buffers: io::Result<Vec<Buffer>> =
            cpus.into_iter().map(|cpu| Buffer::open(&mut captured, cpu)).collect();
        let table = Table::pinned_at(instance.map_pin(names::CAPTURE), names::CAPTURE);
        let capture = Self { filter: table, buffers: buffers.map_err(failed)?, lost: 0, _lock: lock };
        // Only now: what is handed over from here on is read.
        capture.filter.insert(0, *filter)?;
        Ok(capture)
    }

    /// Hands each packet to `take` as it comes, until that says that it is enough. May be dropped and called again.
    ///
    /// # Errors
    /// When the packets cannot be read, or `take` fails.
    pub async fn read(&mut self, take: &mut Take<'_>) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Capture { source };
        loop {
            let mut more = false;
            for buffer in &mut self.buffers {
                match buffer.take(AT_ONCE, &mut self.lost, take).map_err(failed)? {
                    Taken::Enough => return Ok(()),
                    Taken::Some => more = true,
                    Taken::All => {}
                }
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            if !take(None).map_err(failed)? {
                return Ok(());
            }
            let ready = self.buffers.iter().map(|buffer| Box::pin(buffer.0.readable()));
            let (ready, ..) = select_all(ready).await;
            ready.map_err(failed)?.clear_ready();
        }
    }

    /// Ends the capture, and hands what was captured before to `take`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn end(&mut self, take: &mut Take<'_>) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Capture { source };
        self.stop();
        for buffer in &mut self.buffers {
            buffer.take(usize::MAX, &mut self.lost, take).map_err(failed)?;
        }
        Ok(())
    }

    /// How many packets were not captured so far, for want of room.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Nanoseconds from the clock of packets' times to that of the day: added to the first, they give nanoseconds since
    /// 1970.
    #[must_use]
    pub fn clock_offset() -> i64 {
        nanoseconds(ClockId::CLOCK_REALTIME) - nanoseconds(ClockId::CLOCK_BOOTTIME)
    }

    /// The time on the clock of packets' times, in nanoseconds.
    #[must_use]
    pub fn now() -> u64 {
        nanoseconds(ClockId::CLOCK_BOOTTIME).unsigned_abs()
    }

    fn stop(&self) {
        // The data path may be gone, and then nobody looks at the filter any more.
        let _ = self.filter.insert(0, CaptureFilter::zeroed());
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}

fn nanoseconds(clock: ClockId) -> i64 {
    // Both clocks are always there.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Makes sure that nobody else captures.
fn lock(instance: &Instance) -> Result<File, Error> {
    let path: PathBuf = instance.run_dir().join("capture.lock");
    let opened = File::options().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| Error::WriteFile { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::CaptureUnderWay),
        Err(TryLockError::Error(source)) => Err(Error::WriteFile { path, source }),
    }
}

enum Taken {
    /// There is nothing more for now.
    All,
    /// There may be more.
    Some,
    /// Nobody wants more.
    Enough,
}

/// What one CPU has handed over.
struct Buffer(AsyncFd<PerfEventArrayBuffer<MapData>>);

impl Buffer {
    fn open(map: &mut PerfEventArray<MapData>, cpu: u32) -> io::Result<Self> {
        let buffer = map.open(cpu, Some(PAGES)).map_err(io::Error::other)?;
        // SAFETY: the buffer owns its descriptor, which stays open and the same until it is dropped; it is moved into
        // the `AsyncFd` and never taken out.
        let buffer = unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) };
        Ok(Self(buffer?))
    }

    fn take(&mut self, most: usize, lost: &mut u64, take: &mut Take<'_>) -> io::Result<Taken> {
        let ended = self.0.get_mut().try_fold(0, |count, event| {
            match one(event, lost, take) {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Break(Ok(Taken::Enough)),
                Err(error) => return ControlFlow::Break(Err(error)),
            }
            if count + 1 == most {
                ControlFlow::Break(Ok(Taken::Some))
            } else {
                ControlFlow::Continue(count + 1)
            }
        });
        match ended {
            ControlFlow::Break(ended) => ended,
            ControlFlow::Continue(_) => Ok(Taken::All),
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").finish_non_exhaustive()
    }
}

/// Takes one event; says whether to go on.
fn one(event: PerfEvent<'_>, lost: &mut u64, take: &mut Take<'_>) -> io::Result<bool> {
    let (head, tail) = match event {
        PerfEvent::Sample { head, tail } => (head, tail),
        PerfEvent::Lost { count } => {
            *lost += count;
            return Ok(true);
        }
    };
    // At the end of the memory it goes on at its beginning.
    let whole: Vec<u8>;
    let record = if tail.is_empty() {
        head
    } else {
        whole = [head, tail].concat();
        &whole
    };
    let short = || io::Error::new(io::ErrorKind::InvalidData, "a captured packet is cut short");
    let (header, bytes) = record.split_at_checked(size_of::<CaptureHeader>()).ok_or_else(short)?;
    let header: CaptureHeader = bytemuck::pod_read_unaligned(header);
    // What follows is there because the kernel rounds lengths up.
    let bytes = bytes.get(..header.captured as usize).ok_or_else(short)?;
    take(Some(Captured { header, bytes }))
}
