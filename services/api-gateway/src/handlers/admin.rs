//! `cloud.v1.AdminService`: the database's backup and restore, as streams of bytes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cloud_contracts::v1::{self, admin_service_server::AdminService, restore_database_request::Message};
use cloud_core::model::Caller;
use cloud_service_kit::ServiceError;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use tracing::Instrument;

use super::{error, wire::caller};
use crate::adapters::sql::{BackupError, BackupFile, Restored};

/// How much of a backup goes into a message.
const CHUNK: usize = 64 << 10;
/// How long an upload may stand still.
const IDLE: Duration = Duration::from_secs(60);

/// What backups need of the store: object-safe, so that the router need not know which store it is.
#[async_trait]
pub trait Backups: Send + Sync {
    /// A copy of this moment, and an event that says so.
    async fn back_up(&self, caller: &Caller) -> Result<BackupFile, BackupError>;
    /// A place for a backup that is about to arrive.
    fn incoming(&self) -> Result<BackupFile, BackupError>;
    /// Decides that a backup takes the database's place at the next start. It holds an event that says so.
    async fn restore(
        &self,
        caller: &Caller,
        file: BackupFile,
        allow_other_cloud: bool,
    ) -> Result<Restored, BackupError>;
}

/// Backups over the store, and the order to start again.
#[derive(Clone)]
pub struct Admin {
    backups: Arc<dyn Backups>,
    restart: CancellationToken,
    /// One restore is decided at a time: the next one would replace it before it was carried out.
    turn: Arc<Semaphore>,
}

impl Admin {
    /// The handler; `restart` is cancelled when a restore is decided.
    pub fn new(backups: Arc<dyn Backups>, restart: CancellationToken) -> Self {
        Self { backups, restart, turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Admin {
    async fn decide(&self, caller: &Caller, file: BackupFile, allow_other_cloud: bool) -> Result<Restored, Status> {
        let _turn = self.turn.acquire().await.map_err(ServiceError::internal)?;
        if self.restart.is_cancelled() {
            return Err(ServiceError::unavailable("RESTARTING", "the gateway is stopping: try again").into());
        }
        let restored = self.backups.restore(caller, file, allow_other_cloud).await.map_err(refused)?;
        // What runs has time to end, this call's answer included.
        self.restart.cancel();
        Ok(restored)
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn backup_database(
        &self,
        request: Request<v1::BackupDatabaseRequest>,
    ) -> Result<Response<BoxStream<v1::BackupDatabaseResponse>>, Status> {
        let (caller, backups) = (caller(&request)?, Arc::clone(&self.backups));
        // The database is not left in the middle of a copy when the caller goes.
        let copying = async move { backups.back_up(&caller).await };
        let copy = tokio::spawn(copying.in_current_span()).await.map_err(ended)?.map_err(refused)?;
        let file = File::open(copy.path()).await.map_err(|e| refused(e.into()))?;
        let data = stream::try_unfold((file, copy), |(mut file, copy)| async move {
            let mut data = BytesMut::with_capacity(CHUNK);
            let read = file.read_buf(&mut data).await.map_err(|e| refused(e.into()))?;
            let message = v1::BackupDatabaseResponse { data: data.freeze() };
            Ok::<_, Status>((read > 0).then_some((message, (file, copy))))
        });
        Ok(Response::new(data.boxed()))
    }

    async fn restore_database(
        &self,
        request: Request<Streaming<v1::RestoreDatabaseRequest>>,
    ) -> Result<Response<v1::RestoreDatabaseResponse>, Status> {
        let (caller, mut messages) = (caller(&request)?, request.into_inner());
        let Some(Message::Header(header)) = next(&mut messages).await? else {
            return Err(ServiceError::invalid("header", "the first message is the header").into());
        };
        let file = self.backups.incoming().map_err(refused)?;
        receive(&mut messages, &file, &header.sha256).await?;
        // From here on it is not given up half-way when the caller goes.
        let this = self.clone();
        let deciding = async move { this.decide(&caller, file, header.allow_other_cloud).await };
        let Restored { cloud, epoch } = tokio::spawn(deciding.in_current_span()).await.map_err(ended)??;
        Ok(Response::new(v1::RestoreDatabaseResponse { cloud_id: cloud, epoch }))
    }
}

/// The next message of an upload; none at its end.
async fn next(messages: &mut Streaming<v1::RestoreDatabaseRequest>) -> Result<Option<Message>, Status> {
    match timeout(IDLE, messages.message()).await {
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(v1::RestoreDatabaseRequest { message: Some(message) }))) => Ok(Some(message)),
        Ok(Ok(Some(_))) => Err(ServiceError::invalid("message", "a message is the header or carries bytes").into()),
        Ok(Err(status)) => Err(status),
        Err(_) => {
            let message = format!("no bytes came for {} s: send the backup again", IDLE.as_secs());
            Err(ServiceError::aborted("UPLOAD_STALLED", message).into())
        }
    }
}

/// Writes what arrives, and compares its SHA-256 where one is expected.
async fn receive(
    messages: &mut Streaming<v1::RestoreDatabaseRequest>,
    file: &BackupFile,
    expected: &str,
) -> Result<(), Status> {
    let failed = |e: std::io::Error| refused(e.into());
    let mut to = File::options().write(true).create_new(true).open(file.path()).await.map_err(failed)?;
    let mut hash = Sha256::new();
    while let Some(message) = next(messages).await? {
        let Message::Data(data) = message else {
            return Err(ServiceError::invalid("data", "every message after the first carries bytes").into());
        };
        let data: Bytes = data;
        hash.update(&data);
        to.write_all(&data).await.map_err(failed)?;
    }
    to.flush().await.map_err(failed)?;
    let found = hex::encode(hash.finalize());
    if !expected.is_empty() && !expected.eq_ignore_ascii_case(&found) {
        let message = format!("the SHA-256 of what arrived is {found}: send the backup again");
        return Err(ServiceError::invalid("sha256", message).into());
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value)] // it is what map_err gives
fn ended(error: tokio::task::JoinError) -> Status {
    ServiceError::internal(error).into()
}

fn refused(error: BackupError) -> Status {
    let message = error.to_string();
    let reason = match error {
        BackupError::NotSqlite => "NOT_SQLITE",
        BackupError::NotOurs(_) => "NOT_A_BACKUP",
        BackupError::Newer => "LATER_RELEASE",
        BackupError::OtherCloud { .. } => "OTHER_CLOUD",
        BackupError::Store(store) => return error::status(store.into()),
        BackupError::Open(_) | BackupError::Database(_) | BackupError::Files(_) => {
            return ServiceError::internal(error).into();
        }
    };
    ServiceError::failed_precondition(reason, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use tonic_types::StatusExt;

    #[test]
    fn refusals_say_which_they_are() {
        let other = BackupError::OtherCloud { backup: "a".into(), present: "b".into() };
        for (error, reason) in [
            (BackupError::NotSqlite, "NOT_SQLITE"),
            (BackupError::NotOurs("damaged".into()), "NOT_A_BACKUP"),
            (BackupError::Newer, "LATER_RELEASE"),
            (other, "OTHER_CLOUD"),
        ] {
            let status = refused(error);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (Code::FailedPrecondition, reason));
        }
        assert_eq!(refused(std::io::Error::other("disk").into()).code(), Code::Internal);
    }
}
