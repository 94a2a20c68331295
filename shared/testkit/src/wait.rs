//! Waiting on a condition with a deadline, instead of sleeping.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// How long a condition is given to come true when a test does not say otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// Asks `probe` until it answers `Ok(Ok(value))`, and returns the value. `Ok(Err(why))` means "not yet".
///
/// # Errors
/// An error of the probe itself, at once; or the last "not yet" when `patience` is over.
pub async fn until<T, W, F>(what: &str, patience: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    W: Display,
    F: Future<Output = anyhow::Result<Result<T, W>>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match probe().await? {
            Ok(value) => return Ok(value),
            Err(not_yet) if Instant::now() >= deadline => {
                anyhow::bail!("waited {} s for {what}: {not_yet}", patience.as_secs_f32());
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

/// [`until`] for conditions that are looked up without waiting.
///
/// # Errors
/// When `patience` is over.
pub async fn until_true(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    until(what, patience, || {
        let answer = if holds() { Ok(()) } else { Err("it does not hold") };
        async move { anyhow::Ok(answer) }
    })
    .await
}
