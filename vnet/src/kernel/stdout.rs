//! Whether anybody is left to read what is printed.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until nobody can read standard output any more: for ever if it is a file.
pub(super) async fn closed() {
    // SAFETY: the descriptor of standard output stays open and the same while the process lives.
    let out = unsafe { AsyncFd::register_with_interest(io::stdout(), Interest::ERROR) };
    // A file cannot be waited for. A pipe without a reader is in error.
    if let Ok(out) = out
        && out.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
