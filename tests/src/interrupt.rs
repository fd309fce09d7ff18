//! Ctrl-C: noticed, so that the lab can be taken down instead of being left behind.
//! For programs that make labs; tests leave that to the next lab.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Whether somebody has asked to stop.
#[derive(Clone, Debug)]
pub struct Interrupt {
    happened: Arc<AtomicBool>,
}

/// What [`Interrupt::check`] unwinds with.
#[derive(Debug)]
pub struct Interrupted;

impl Interrupt {
    /// Takes SIGINT and SIGTERM over. Programs started from here on do not get them either: the terminal sends
    /// Ctrl-C to all of its processes, and `vnet down` must not be one that heeds it.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn catch() -> Self {
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

    /// Whether somebody has asked to stop.
    #[must_use]
    pub fn happened(&self) -> bool {
        self.happened.load(Ordering::Relaxed)
    }

    /// Takes it as answered.
    pub fn forget(&self) {
        self.happened.store(false, Ordering::Relaxed);
    }

    /// Unwinds with [`Interrupted`] if somebody has asked to stop.
    pub fn check(&self) {
        if self.happened() {
            std::panic::resume_unwind(Box::new(Interrupted));
        }
    }
}
