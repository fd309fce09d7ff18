//! Ctrl-C: noticed, so that the lab can be taken down instead of being left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Whether somebody has asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    happened: Arc<AtomicBool>,
}

/// The payload with which a scene is left.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl Interrupt {
    /// Takes SIGINT and SIGTERM over. Programs started from here on do not get them either: the terminal sends
    /// Ctrl-C to all of its processes, and `vnet down` must not be one that heeds it.
    pub(crate) fn catch() -> Self {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().expect("block signals");
        let happened = Arc::new(AtomicBool::new(false));
        let noticed = Arc::clone(&happened);
        thread::spawn(move || {
            while signals.wait().is_ok() {
                noticed.store(true, Ordering::Relaxed);
            }
        });
        Self { happened }
    }

    pub(crate) fn happened(&self) -> bool {
        self.happened.load(Ordering::Relaxed)
    }

    /// Takes it as answered.
    pub(crate) fn forget(&self) {
        self.happened.store(false, Ordering::Relaxed);
    }

    /// Leaves the scene if somebody has asked to stop.
    pub(crate) fn check(&self) {
        if self.happened() {
            std::panic::resume_unwind(Box::new(Interrupted));
        }
    }
}
