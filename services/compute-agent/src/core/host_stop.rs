//! Stopping a guest for the host's sake: an operator takes the host down, and nobody decided that the instance shall stop.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Found, Guest, Hypervisor, HypervisorError, HypervisorEvent, Tag};

/// The state is asked for this often while nothing is heard.
const ASK: Duration = Duration::from_secs(1);
/// Between two presses of the power button: a guest that boots does not see the first.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

/// Why a guest could not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The hypervisor failed.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// It said that it powered the guest off, and the guest runs.
    #[error("the guest still runs after it was powered off")]
    StillRuns,
}

/// Stops a guest: asks it for `grace`, then powers it off. It is marked first, so that it does not count as stopped by itself and is started
/// again when the host is back. Answers whether it had to be powered off.
///
/// # Errors
/// See [`StopError`].
pub async fn stop_guest(hypervisor: &dyn Hypervisor, guest: &Guest, grace: Duration) -> Result<bool, StopError> {
    if !guest.is_active() {
        return Ok(false);
    }
    let id = guest.tag.instance;
    let mut events = hypervisor.events();
    hypervisor.write_tag(&Tag { host_stop: true, reboot: None, ..guest.tag.clone() }).await?;
    let deadline = Instant::now() + grace;
    let mut press = Instant::now();
    while Instant::now() < deadline {
        if !runs(hypervisor, guest).await? {
            return Ok(false);
        }
        if Instant::now() >= press {
            press = Instant::now() + PRESS_AGAIN;
            match hypervisor.shutdown(id).await {
                Ok(()) | Err(HypervisorError::WrongState(_) | HypervisorError::Gone) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let soon = deadline.min(Instant::now() + ASK);
        let changed = async { while events.recv().await != Ok(HypervisorEvent::Changed(id)) {} };
        // Either way the state is asked for.
        let _ = timeout_at(soon, changed).await;
    }
    match hypervisor.power_off(id).await {
        Ok(()) | Err(HypervisorError::WrongState(_) | HypervisorError::Gone) => {}
        Err(error) => return Err(error.into()),
    }
    if runs(hypervisor, guest).await? { Err(StopError::StillRuns) } else { Ok(true) }
}

async fn runs(hypervisor: &dyn Hypervisor, guest: &Guest) -> Result<bool, HypervisorError> {
    let found = hypervisor.find(guest.tag.instance).await?;
    Ok(matches!(found, Some(Found::Tagged(now)) if now.is_active() && now.tag.incarnation == guest.tag.incarnation))
}
