//! What systemd is told (`sd_notify(3)`), where it is systemd that started this.

use std::time::Duration;

use sd_notify::NotifyState;

/// Whoever started this, if it wants to know.
#[derive(Debug)]
pub(super) struct Service {
    watchdog: Option<Duration>,
}

impl Service {
    pub(super) fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often it wants to hear that this lives: twice within what it allows.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|allowed| allowed / 2)
    }

    pub(super) fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn alive(&self) {
        notify(&[NotifyState::Watchdog]);
    }

    pub(super) fn status(&self, text: String) {
        notify(&[NotifyState::Status(&text)]);
    }

    pub(super) fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

/// Nobody is told that nobody listens: the work goes on.
fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}
