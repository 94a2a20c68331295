//! What ensuring a guest takes, as a pure function of what is asked and what is there.

use cloud_domain::CloudId;

use super::{ComputeError, Ended, Found, Guest, GuestSpec, Reason, SpecRecord};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnsureStep {
    /// Write the seed, define and start. Repeating it on a domain that is off is harmless, so a half-done start is done whole.
    Launch,
    /// It runs, but its boot generation is lower.
    Reboot,
    /// Nothing: it is as asked for, or it ended by itself and the gateway decides what follows.
    Keep,
}

/// Decides what `spec` takes.
///
/// A guest that ended by itself, or was powered off, is not started again under the same incarnation: that is the gateway's decision, and
/// it says so with a new one. A guest that is off for no reason of its own (defined but never started, a start that failed, a restart of
/// the host or of libvirt) is started. The disks of one that runs are no difference: they are changed one by one.
///
/// # Errors
/// The domain is not this cloud's, another incarnation runs, or this one has another specification.
pub fn decide_ensure(cloud: CloudId, spec: &GuestSpec, found: Option<&Found>) -> Result<EnsureStep, ComputeError> {
    let Some(found) = found else { return Ok(EnsureStep::Launch) };
    let guest = owned(cloud, spec.id, found)?;
    let tag = &guest.tag;
    if tag.incarnation != spec.incarnation {
        return if guest.is_active() {
            Err(ComputeError::OtherIncarnationRunning {
                id: spec.id,
                running: tag.incarnation,
                asked: spec.incarnation,
            })
        } else {
            Ok(EnsureStep::Launch)
        };
    }
    let asked = SpecRecord::of(spec);
    let asked = if guest.is_active() { asked.with_disks_of(&tag.spec) } else { asked };
    if let Some(difference) = tag.spec.difference(&asked) {
        return Err(ComputeError::SpecDiffers { id: spec.id, incarnation: spec.incarnation, difference });
    }
    if guest.is_active() {
        return Ok(if spec.boot_generation > tag.boot_generation { EnsureStep::Reboot } else { EnsureStep::Keep });
    }
    Ok(match guest.reason() {
        Reason::Ended(Ended::GuestShutdown | Ended::Destroyed | Ended::Crashed) => EnsureStep::Keep,
        Reason::Unknown | Reason::StartFailed | Reason::NeverStarted | Reason::IoError => EnsureStep::Launch,
    })
}

/// The guest, if it is this cloud's.
///
/// # Errors
/// [`ComputeError::Foreign`] where it is not.
pub fn owned(cloud: CloudId, id: cloud_domain::InstanceId, found: &Found) -> Result<&Guest, ComputeError> {
    match found {
        Found::Foreign(what) => Err(ComputeError::Foreign { id, what: what.clone() }),
        Found::Tagged(guest) if guest.tag.cloud != cloud => {
            Err(ComputeError::Foreign { id, what: format!("it is tagged as cloud {}'s", guest.tag.cloud) })
        }
        Found::Tagged(guest) => Ok(guest),
    }
}
