//! Certificates: the authority, the gateway's own certificate, and who is no longer let in.
//!
//! # Theory of operation
//!
//! The authority's key lies in the database, sealed by the operator's master key, so that every gateway of a cloud issues certificates of the
//! same authority; or in files of the operator's own. Each gateway makes its own key at its start, keeps it in memory, and issues itself a
//! certificate, again before that one ends.
//!
//! An authority is replaced with an overlap. The new one is trusted by all gateways at once, and hosts get their next certificate, with both
//! authorities to trust, from it: the gateways ask them to. The gateways themselves go on showing certificates of the old one for as long as
//! a host's certificate lives: by then, whoever still has one that counts has heard of the new authority. Then they change over, and the old
//! one is forgotten.
//!
//! Once a second the [`keeper`] looks for a new authority and for certificates that were revoked; their connections are cut off.

mod authorities;
mod guard;
mod issue;
mod keeper;
mod master;

pub use authorities::{Authorities, PkiError};
pub use guard::Revocations;
pub use keeper::{Keeper, OwnError, PublicCertificate, gateway_credentials};
pub use master::{MasterKey, MasterKeyError};

#[cfg(test)]
mod tests;
