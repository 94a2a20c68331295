//! Backups of a gateway's database, as `cloud admin` makes and restores them.

use cloud_contracts::v1::{
    BackupDatabaseRequest, RestoreDatabaseHeader, RestoreDatabaseRequest, RestoreDatabaseResponse,
    admin_service_client::AdminServiceClient, restore_database_request::Message,
};
use cloud_testkit::GatewayProcess;
use sha2::{Digest, Sha256};
use tonic::Status;

/// A backup.
///
/// # Errors
/// The gateway's.
pub async fn back_up(gateway: &GatewayProcess) -> anyhow::Result<Vec<u8>> {
    let mut admin = AdminServiceClient::new(gateway.grpc()?.service());
    let mut stream = admin.backup_database(BackupDatabaseRequest {}).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

/// Restores it.
///
/// # Errors
/// The gateway's.
pub async fn restore(gateway: &GatewayProcess, bytes: &[u8]) -> Result<RestoreDatabaseResponse, Status> {
    restore_as(gateway, bytes, &hex::encode(Sha256::digest(bytes))).await
}

/// Restores what is said to have this SHA-256.
///
/// # Errors
/// The gateway's.
pub async fn restore_as(
    gateway: &GatewayProcess,
    bytes: &[u8],
    sha256: &str,
) -> Result<RestoreDatabaseResponse, Status> {
    let say = |message| RestoreDatabaseRequest { message: Some(message) };
    let header = RestoreDatabaseHeader { allow_other_cloud: false, sha256: sha256.to_owned() };
    let mut messages = vec![say(Message::Header(header))];
    messages.extend(bytes.chunks(1 << 16).map(|data| say(Message::Data(data.to_vec().into()))));
    let client = gateway.grpc().map_err(|error| Status::internal(error.to_string()))?;
    let mut admin = AdminServiceClient::new(client.service());
    Ok(admin.restore_database(tokio_stream::iter(messages)).await?.into_inner())
}
