//! Errors as statuses.

use cloud_service_kit::error::{Code, ServiceError};

use crate::core::{ComputeError, HypervisorError};

impl From<ComputeError> for ServiceError {
    fn from(error: ComputeError) -> Self {
        let message = error.to_string();
        match error {
            ComputeError::NotFound(id) => Self::new(Code::NotFound, "NOT_FOUND", message).with_resource("instance", id),
            ComputeError::Foreign { id, .. } => {
                Self::failed_precondition("FOREIGN_DOMAIN", message).with_resource("instance", id)
            }
            ComputeError::OtherIncarnationRunning { id, running, .. } => {
                Self::failed_precondition("OTHER_INCARNATION_RUNNING", message)
                    .with_resource("instance", id)
                    .with_metadata("running_incarnation", running)
            }
            ComputeError::SpecDiffers { id, .. } => {
                Self::new(Code::AlreadyExists, "SPEC_DIFFERS", message).with_resource("instance", id)
            }
            ComputeError::Invalid(error) => Self::invalid(error.field, error.problem),
            ComputeError::Busy(id) => Self::aborted("BUSY", message).with_resource("instance", id),
            ComputeError::NotRunning(id) => {
                Self::failed_precondition("NOT_RUNNING", message).with_resource("instance", id)
            }
            ComputeError::NoDisk { volume, .. } => {
                Self::new(Code::NotFound, "NO_DISK", message).with_resource("volume", volume)
            }
            ComputeError::Hypervisor(error) => hypervisor(&error, message),
        }
    }
}

/// The gateway decides by code whether trying again can help, and shows the message to operators.
fn hypervisor(error: &HypervisorError, message: String) -> ServiceError {
    let precondition = |reason| ServiceError::failed_precondition(reason, message.clone());
    match error {
        HypervisorError::Unavailable(_) => ServiceError::unavailable("HYPERVISOR_UNAVAILABLE", message),
        HypervisorError::Deadline { .. } => ServiceError::deadline_exceeded(message).with_reason("HYPERVISOR_DEADLINE"),
        HypervisorError::NoMemory(_) => ServiceError::new(Code::ResourceExhausted, "NO_MEMORY", message),
        HypervisorError::MissingFile(_) => precondition("MISSING_FILE"),
        HypervisorError::FileAccess(_) => precondition("FILE_ACCESS"),
        HypervisorError::DiskLocked(_) => precondition("DISK_IN_USE"),
        HypervisorError::NetworkDevice(_) => precondition("NETWORK_DEVICE"),
        HypervisorError::WrongState(_) => precondition("WRONG_STATE"),
        HypervisorError::Gone => ServiceError::aborted("GONE", message),
        HypervisorError::Files { .. } => ServiceError::new(Code::Internal, "FILES", message),
        HypervisorError::Failed { .. } => ServiceError::new(Code::Internal, "HYPERVISOR_FAILED", message),
    }
}
