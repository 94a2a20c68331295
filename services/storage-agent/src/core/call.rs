//! Who calls, and how new the call's intent is.

use cloud_domain::{CloudId, Incarnation};
use uuid::Uuid;

use super::{error::StorageError, model::Owner};

/// What every changing call carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The cloud that calls.
    pub cloud_id: CloudId,
    /// The agent session that is meant.
    pub session_id: String,
    /// Orders before `version`.
    pub epoch: u64,
    /// The row version that the call carries out.
    pub version: u64,
    /// The incarnation that the call is about, where there is one.
    pub incarnation: Option<Incarnation>,
}

impl Call {
    /// The owner of what this call makes.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let Self { cloud_id, epoch, version, incarnation, .. } = *self;
        Owner { cloud_id, epoch, version, incarnation }
    }

    /// Whether the caller owns `what`.
    ///
    /// # Errors
    /// [`StorageError::OtherCloud`] where it does not.
    pub fn owns(&self, what: impl FnOnce() -> String, owner: &Owner) -> Result<(), StorageError> {
        if owner.cloud_id == self.cloud_id {
            return Ok(());
        }
        Err(StorageError::OtherCloud { what: what(), cloud: owner.cloud_id })
    }
}

/// Remembers the newest call by resource, removed resources included, and refuses what is older or meant for another
/// session.
pub trait Admission: Send + Sync + 'static {
    /// Admits the call, and remembers it, where it is not older than one that was admitted before.
    ///
    /// # Errors
    /// [`StorageError::NotAdmitted`].
    fn admit(&self, resource: Uuid, call: &Call) -> Result<(), StorageError>;

    /// The resource is gone: its calls need not be remembered for ever.
    fn removed(&self, resource: Uuid);
}
