//! The ring buffer, read as it fills.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vnet_common::Event;

use super::error::Error;

/// How many events are taken in one go: a flood must not keep the runtime from hearing a signal.
const AT_ONCE: usize = 256;

/// Reads events as they come and hands each to `each`, until it returns `false`.
///
/// A ring buffer has one reader: of two at once, each gets some of the events.
pub(super) async fn read(ring: RingBuf<MapData>, each: &mut dyn FnMut(&Event) -> bool) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Events { source };
    // SAFETY: the ring owns its descriptor, which stays open and the same until the ring is dropped; it is moved
    // into the `AsyncFd` and never taken out.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    let mut ring = ring.map_err(|error| failed(error.into()))?;
    loop {
        let mut ready = ring.readable_mut().await.map_err(failed)?;
        match take(ready.get_inner_mut(), each).map_err(failed)? {
            Taken::All => ready.clear_ready(),
            Taken::Some => tokio::task::yield_now().await,
            Taken::Enough => return Ok(()),
        }
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

fn take(ring: &mut RingBuf<MapData>, each: &mut dyn FnMut(&Event) -> bool) -> io::Result<Taken> {
    for _ in 0..AT_ONCE {
        let Some(record) = ring.next() else { return Ok(Taken::All) };
        let event = bytemuck::try_pod_read_unaligned(&record)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a record is not an event"))?;
        if !each(&event) {
            return Ok(Taken::Enough);
        }
    }
    Ok(Taken::Some)
}
