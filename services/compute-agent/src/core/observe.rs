//! Keeping tags true to what happens: when a guest was started, and how it ended. libvirt knows the latter only until it restarts.

use std::time::{Duration, SystemTime};

use cloud_domain::{CloudId, InstanceId};
use tokio::sync::broadcast::error::RecvError;

use super::{Compute, ComputeError, Found, Guest, HypervisorEvent, Power, Reason, Tag};

/// Every guest is looked at this often even if nothing was heard.
const SWEEP: Duration = Duration::from_secs(60);

/// Runs until [`Compute::close`].
pub(super) async fn run(compute: Compute) {
    let stop = compute.inner.stop.clone();
    tokio::select! {
        () = observe(&compute) => {}
        () = stop.cancelled() => {}
    }
}

async fn observe(compute: &Compute) {
    let mut known = compute.cloud();
    // The sender lives in `compute`, so this ends with an answer or not at all.
    let Ok(Some(cloud)) = known.wait_for(Option::is_some).await.map(|cloud| *cloud) else { return };
    let mut events = compute.inner.hypervisor.events();
    sweep(compute, cloud).await;
    loop {
        let result = match tokio::time::timeout(SWEEP, events.recv()).await {
            Ok(Ok(HypervisorEvent::Changed(id))) => note(compute, cloud, id).await,
            Ok(Ok(HypervisorEvent::Rebooted(_) | HypervisorEvent::Lost)) => Ok(()),
            Ok(Ok(HypervisorEvent::Connected) | Err(RecvError::Lagged(_))) | Err(_) => {
                sweep(compute, cloud).await;
                Ok(())
            }
            Ok(Err(RecvError::Closed)) => return,
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a guest's tag is not up to date; it is tried again within a minute");
        }
    }
}

async fn sweep(compute: &Compute, cloud: CloudId) {
    if !compute.inner.hypervisor.is_connected() {
        return;
    }
    let guests = match compute.list(cloud).await {
        Ok(guests) => guests,
        Err(error) => return tracing::warn!(%error, "cannot look at the guests; it is tried again"),
    };
    for guest in guests {
        compute.look_after_reboot(&guest.tag);
        if noted(&guest).is_some()
            && let Err(error) = note(compute, cloud, guest.tag.instance).await
        {
            tracing::warn!(instance = %guest.tag.instance, %error, "the guest's tag is not up to date");
        }
    }
}

async fn note(compute: &Compute, cloud: CloudId, id: InstanceId) -> Result<(), ComputeError> {
    compute
        .in_turn(id, move |this| async move {
            let found = this.inner.hypervisor.find(id).await?;
            let Some(Found::Tagged(guest)) = found.filter(|found| is_of(cloud, found)) else { return Ok(()) };
            match noted(&guest) {
                Some(tag) => Ok(this.inner.hypervisor.write_tag(&tag).await?),
                None => Ok(()),
            }
        })
        .await
}

fn is_of(cloud: CloudId, found: &Found) -> bool {
    matches!(found, Found::Tagged(guest) if guest.tag.cloud == cloud)
}

/// The tag that says what `guest` shows, where its own does not.
fn noted(guest: &Guest) -> Option<Tag> {
    let tag = &guest.tag;
    match (guest.power, guest.hypervisor_reason) {
        (Power::Running, _) if tag.started_at.is_none() => {
            Some(Tag { started_at: Some(SystemTime::now()), ..tag.clone() })
        }
        (Power::Shutoff | Power::Crashed, Reason::Ended(ended)) if tag.ended != Some(ended) && !tag.host_stop => {
            Some(Tag { ended: Some(ended), ..tag.clone() })
        }
        _ => None,
    }
}
