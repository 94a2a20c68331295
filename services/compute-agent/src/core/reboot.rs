//! Reboots.
//!
//! The intent is written on the domain before the guest is asked: from then on the reboot happens, whoever dies. A task waits until the guest
//! starts over, or resets it when its grace has passed, and only then writes the new boot generation. If the agent dies in between, the next
//! one finds the intent and resets the guest at the same time as the dead one would have, so a crash repeats at most one reboot.

use std::time::{Duration, SystemTime};

use cloud_domain::InstanceId;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};

use super::{Compute, ComputeError, Found, Guest, HypervisorError, HypervisorEvent, PendingReboot, Tag};

/// Between two attempts to write down what happened, while the hypervisor does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// One reboot is told more than once, and late. It is written down when no more of it can come, or the next reboot would be taken for done.
const SETTLE: Duration = Duration::from_millis(500);

impl Compute {
    /// Asks a running guest to start over, unless that is under way.
    pub(super) async fn begin_reboot(&self, guest: &Guest, to: u64) -> Result<(), ComputeError> {
        let hypervisor = &self.inner.hypervisor;
        let id = guest.tag.instance;
        if guest.tag.reboot.is_some_and(|pending| pending.to >= to) {
            self.look_after_reboot(&guest.tag);
            return Ok(());
        }
        let pending = PendingReboot { to, force_at: SystemTime::now() + hypervisor.reboot_grace() };
        let tag = Tag { reboot: Some(pending), ..guest.tag.clone() };
        hypervisor.write_tag(&tag).await?;
        // Listen first, so that a guest that is quick is not missed.
        self.look_after_reboot(&tag);
        match hypervisor.reboot(id).await {
            // It will be reset, or is found off.
            Err(error @ (HypervisorError::WrongState(_) | HypervisorError::Failed { .. })) => {
                tracing::warn!(instance = %id, %error, "the guest could not be asked to reboot; it will be reset");
                Ok(())
            }
            result => Ok(result?),
        }
    }

    /// Starts the task for the reboot that `tag` speaks of, unless there is one.
    pub(super) fn look_after_reboot(&self, tag: &Tag) {
        let id = tag.instance;
        if tag.reboot.is_none() || !self.inner.reboots().insert(id) {
            return;
        }
        let events = self.inner.hypervisor.events();
        let this = self.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = this.finish_reboot(id, events) => {}
                () = this.inner.stop.cancelled() => {}
            }
            this.inner.reboots().remove(&id);
        });
    }

    async fn finish_reboot(&self, id: InstanceId, mut events: broadcast::Receiver<HypervisorEvent>) {
        let mut state = Progress::default();
        loop {
            let step = self.in_turn(id, move |this| async move { this.reboot_step(id, state).await }).await;
            let wait = match step {
                Ok(Step::Finished) => return,
                Ok(Step::Wait(wait, reached)) => {
                    state = reached;
                    wait
                }
                Err(error) => {
                    tracing::warn!(instance = %id, %error, "a reboot cannot be finished yet");
                    RETRY
                }
            };
            state.rebooted |= rebooted_within(id, &mut events, wait).await;
        }
    }

    async fn reboot_step(&self, id: InstanceId, mut state: Progress) -> Result<Step, ComputeError> {
        let hypervisor = &self.inner.hypervisor;
        let Some(Found::Tagged(guest)) = hypervisor.find(id).await? else { return Ok(Step::Finished) };
        let Some(pending) = guest.tag.reboot else { return Ok(Step::Finished) };
        if !guest.is_active() {
            // It went off instead; what follows is the gateway's decision.
            hypervisor.write_tag(&Tag { reboot: None, ..guest.tag }).await?;
            return Ok(Step::Finished);
        }
        if !state.rebooted {
            if let Ok(left) = pending.force_at.duration_since(SystemTime::now()) {
                // A clock that was set back must not keep the guest waiting.
                return Ok(Step::Wait(left.min(hypervisor.reboot_grace()), state));
            }
            tracing::info!(instance = %id, "the guest did not follow the request to reboot and is reset");
            hypervisor.reset(id).await?;
            state.rebooted = true;
        }
        let settled = *state.settled.get_or_insert_with(|| Instant::now() + SETTLE);
        if Instant::now() < settled {
            return Ok(Step::Wait(settled - Instant::now(), state));
        }
        let done = Tag { reboot: None, boot_generation: pending.to, ..guest.tag };
        match hypervisor.write_tag(&done).await {
            Ok(()) => Ok(Step::Finished),
            Err(error) => {
                tracing::warn!(instance = %id, %error, "a finished reboot is not written down yet");
                Ok(Step::Wait(RETRY, state))
            }
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    rebooted: bool,
    /// When this reboot can no longer be taken for the next one.
    settled: Option<Instant>,
}

enum Step {
    Finished,
    Wait(Duration, Progress),
}

/// Waits for the guest to start over, or for anything else to have happened to it, or for the time to pass.
async fn rebooted_within(id: InstanceId, events: &mut broadcast::Receiver<HypervisorEvent>, wait: Duration) -> bool {
    let heard = async {
        loop {
            match events.recv().await {
                Ok(HypervisorEvent::Rebooted(other)) if other == id => return true,
                Ok(HypervisorEvent::Changed(other)) if other == id => return false,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::time::timeout(wait, heard).await.unwrap_or(false)
}
