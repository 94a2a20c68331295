//! The agent's fence, as the core's port.

use cloud_service_kit::agent::{CallContext, Fence};
use uuid::Uuid;

use crate::core::{
    StorageError,
    call::{Admission, Call},
};

impl Admission for Fence {
    fn admit(&self, resource: Uuid, call: &Call) -> Result<(), StorageError> {
        let context = CallContext {
            cloud_id: call.cloud_id.to_string(),
            session_id: call.session_id.clone(),
            epoch: call.epoch,
            version: call.version,
            incarnation: call.incarnation.map(|i| i.to_string()).unwrap_or_default(),
        };
        // The core holds the resource's lock: the fence's own turn would be a second one.
        match self.check(Some(&context), &resource) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(StorageError::NotAdmitted(Box::new(refusal))),
        }
    }

    fn removed(&self, resource: Uuid) {
        Self::removed(self, &resource);
    }
}
