//! That there is one resident part for an instance.

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use super::Error;
use crate::instance::Instance;

/// Held for as long as the process is the instance's only one. The kernel gives it back, however the process ends.
#[derive(Debug)]
pub(super) struct Only {
    _file: File,
}

impl Only {
    /// Whether there is one. Not knowing is taken for yes.
    pub(super) fn is_taken(instance: &Instance) -> bool {
        match File::open(instance.run_dir().join("run.lock")) {
            Ok(file) => file.try_lock().is_err(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    pub(super) fn take(instance: &Instance) -> Result<Self, Error> {
        let path = instance.run_dir().join("run.lock");
        let failed = |source| Error::Lock { path: path.clone(), source };
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(failed)?;
                let instance = instance.name().to_owned();
                return Err(Error::AlreadyRunning { instance, pid: pid.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let pid = std::process::id().to_string();
        file.write_all_at(pid.as_bytes(), 0).and_then(|()| file.set_len(pid.len() as u64)).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
