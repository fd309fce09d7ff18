//! Waiting for something to become true, with a limit.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything in the lab may take that happens by itself. Generous: only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer.
///
/// # Panics
/// With what was expected, when [`PATIENCE`] runs out.
#[track_caller]
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>, expected: impl Fn() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {}", expected());
        thread::sleep(Duration::from_millis(2));
    }
}
