//! Events as they happen, for as many readers as there are.
//!
//! The programs write into one ring buffer, which one process can read. So the first reader reads it for all:
//! ```text
//! ring buffer -> leader --- RUN/NAME/events.socket ---> followers
//! ```
//! The leader holds a lock; when it ends, its followers find the connection closed, and one of them leads on.
//! A follower that does not keep up is disconnected and comes again: it loses events, nobody else does.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use bytemuck::Zeroable;
use vnet_common::Event;

use crate::instance::Instance;
use crate::kernel::{self, Kernel};

/// How long a reader waits that finds neither the lock nor anybody listening: another is about to lead.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not give them.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The files that readers share.
    #[error("share events over {}", path.display())]
    Share {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Hands each event from now on to `each`, until it returns `false` or the future is dropped.
///
/// # Errors
/// When the instance has no data path, or its directory cannot be used.
pub async fn follow(
    instance: &Instance,
    kernel: &Kernel,
    each: &mut dyn FnMut(&Event) -> bool,
) -> Result<(), Error> {
    // What is older has waited in the ring buffer for somebody to read it.
    let begin = u64::from(Kernel::now()) * 1_000_000_000;
    let mut each = |event: &Event| event.time < begin || each(event);
    let path = instance.run_dir().join("events.lock");
    let failed = |source| Error::Share { path: path.clone(), source };
    loop {
        let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => return lead(instance, kernel, &mut each).await,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if !listen(instance, &mut each).await {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn socket(instance: &Instance) -> PathBuf {
    instance.run_dir().join("events.socket")
}

/// Reads the ring buffer, for itself and for everybody who connects.
async fn lead(
    instance: &Instance,
    kernel: &Kernel,
    each: &mut dyn FnMut(&Event) -> bool,
) -> Result<(), Error> {
    let path = socket(instance);
    // A leader that was killed has left its socket.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = listener.map_err(|source| Error::Share { path, source })?;
    let mut followers: Vec<UnixStream> = Vec::new();
    let mut take = |event: &Event| {
        // Whoever has come meanwhile hears of this event already.
        while let Ok((follower, _)) = listener.accept() {
            if follower.set_nonblocking(true).is_ok() {
                followers.push(follower);
            }
        }
        let record = bytemuck::bytes_of(event);
        followers.retain_mut(|follower| follower.write(record).is_ok_and(|written| written == record.len()));
        each(event)
    };
    Ok(kernel.events(&mut take).await?)
}

/// Listens to the leader for as long as there is one; returns whether to go on after it.
async fn listen(instance: &Instance, each: &mut dyn FnMut(&Event) -> bool) -> bool {
    let Ok(leader) = tokio::net::UnixStream::connect(socket(instance)).await else { return true };
    while let Ok(event) = receive(&leader).await {
        if !each(&event) {
            return false;
        }
    }
    true
}

/// The next event of the leader's.
async fn receive(leader: &tokio::net::UnixStream) -> io::Result<Event> {
    let mut event = Event::zeroed();
    let mut rest = bytemuck::bytes_of_mut(&mut event);
    while !rest.is_empty() {
        leader.readable().await?;
        match leader.try_read(rest) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => rest = &mut rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(event)
}
