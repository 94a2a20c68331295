//! Services of the contract that are not built yet: every method is UNIMPLEMENTED, by the generated default.

use cloud_contracts::v1::{security_group_service_server::SecurityGroupService, ssh_key_service_server::SshKeyService};

/// Answers for what is not built.
pub struct Unbuilt;

#[tonic::async_trait]
impl SecurityGroupService for Unbuilt {}
#[tonic::async_trait]
impl SshKeyService for Unbuilt {}
