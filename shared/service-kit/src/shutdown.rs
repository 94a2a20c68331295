//! How a daemon is asked to end.

use std::{io, process};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once, with status 130. The task that waits for
/// signals lives as long as the process.
///
/// # Errors
/// The system refuses to deliver signals.
pub fn signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if asked.is_cancelled() {
                tracing::warn!(signal = name, "second signal: ending at once");
                process::exit(130);
            }
            tracing::info!(signal = name, "shutting down");
            asked.cancel();
        }
    });
    Ok(token)
}
