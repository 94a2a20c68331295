//! What the business needs of the world: a store, the agents of every host, and a place for image files.

mod authority;
mod backends;
mod changes;
mod fence;
mod images;
mod store;
mod work;

pub use authority::{AuthorityError, CertificateAuthority, Issued, NoAuthority, TrustedAuthority};
pub use backends::{
    BackendError, ComputeBackend, DiskSpec, FoundSnapshot, FoundVolume, FoundVpc, Guest, GuestPower, GuestReason,
    GuestSpec, GuestTarget, NetworkBackend, NicSpec, PluggedPort, SlicePort, SliceSubnet, SnapshotSpec, StorageBackend,
    StoredVolume, VolumeSpec, VpcSlice,
};
pub use changes::{Changed, Changes, Mark};
pub use fence::Fencer;
pub use images::{FetchError, HeldImage, ImageFile, ImageStore};
pub use store::{Audited, Claim, Cursor, EventQuery, Fill, HeardAgent, Key, Query, Store, StoreError, Tx, VpcSnapshot};
pub use work::{WorkItem, WorkKind, WorkState};
