//! The lock of an instance: one command at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Error;
use crate::instance::Instance;

/// How long a command waits before it says for whom.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks meanwhile.
const INTERVAL: Duration = Duration::from_millis(5);

/// The lock, held until it is dropped. The file is closed on exec, so no user's command inherits it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of an instance, whose directory it makes.
    pub(super) fn take(instance: &Instance) -> Result<Self, Error> {
        let directory = instance.run_dir();
        let path = instance.lock_file();
        loop {
            let mut file =
                match File::options().read(true).write(true).create(true).truncate(false).open(&path) {
                    // There is no directory as yet, or it went away: a `down` has just finished.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        make_directory(&directory)?;
                        continue;
                    }
                    other => other.map_err(failed("open", &path))?,
                };
            wait(&mut file, instance, &path)?;
            // A `down` removes the file while others wait for it: they hold a lock that nobody else will meet.
            if is_still(&file, &path) {
                // Best effort: it is only for those who wait, and where there is no room left for it, `down` must go on.
                let _ = note_owner(&file);
                return Ok(Self { _file: file });
            }
        }
    }
}

impl Lock {
    /// Takes the lock of an instance that is up, if nobody has it.
    pub(super) fn take_if_free(instance: &Instance) -> Result<Option<Self>, Error> {
        let path = instance.lock_file();
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("open", &path))?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
            Ok(()) => {}
        }
        if !is_still(&file, &path) {
            return Ok(None);
        }
        note_owner(&file).map_err(failed("write", &path))?;
        Ok(Some(Self { _file: file }))
    }
}

fn make_directory(directory: &Path) -> Result<(), Error> {
    if let Some(parent) = directory.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed("make", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        // The last `down` has just taken the one around it away: whoever asks for the lock tries again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("make", directory)(error)),
        _ => Ok(()),
    }
}

/// Waits for the lock; says so when it takes long.
fn wait(file: &mut File, instance: &Instance, path: &Path) -> Result<(), Error> {
    let begin = Instant::now();
    let patience = instance.wait().map_or(PATIENCE, |wait| wait.min(PATIENCE));
    if try_until(file, begin + patience).map_err(failed("lock", path))? {
        return Ok(());
    }
    let Some(wait) = instance.wait() else {
        say_for_whom(file, instance).map_err(failed("read", path))?;
        return file.lock().map_err(failed("lock", path));
    };
    if wait > patience {
        say_for_whom(file, instance).map_err(failed("read", path))?;
        if try_until(file, begin + wait).map_err(failed("lock", path))? {
            return Ok(());
        }
    }
    let holder = holder(file).map_err(failed("read", path))?;
    Err(Error::Busy { instance: instance.name().to_owned(), holder, waited: wait })
}

/// Tries to take the lock until then, and once at least; says whether it has got it.
fn try_until(file: &File, end: Instant) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(INTERVAL),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn say_for_whom(file: &mut File, instance: &Instance) -> io::Result<()> {
    eprintln!("vnet: waiting for {}, which is changing instance {}", holder(file)?, instance.name());
    Ok(())
}

/// Whose the lock is, as he noted himself.
fn holder(file: &mut File) -> io::Result<String> {
    let mut holder = String::new();
    file.rewind()?;
    file.read_to_string(&mut holder)?;
    let holder = holder.trim();
    Ok(if holder.is_empty() { "another command".to_owned() } else { format!("process {holder}") })
}

fn is_still(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (Ok(open), Ok(named)) = (file.metadata(), path.metadata()) else { return false };
    identity(open) == identity(named)
}

/// Notes whose the lock is. The file is written over and then cut, not emptied first: to give its block back can take a
/// file system milliseconds.
fn note_owner(file: &File) -> io::Result<()> {
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let owner = format!("{} (vnet {command})", std::process::id());
    file.write_all_at(owner.as_bytes(), 0)?;
    file.set_len(owner.len() as u64)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = PathBuf::from(path);
    move |source| Error::File { doing, path, source }
}
