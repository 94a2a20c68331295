//! Consoles: a token that opens one instance's console for a while. Signed, so that any gateway of the cloud can check it.

use std::sync::Arc;

use cloud_domain::{InstanceId, InstanceStatus};
use uuid::Uuid;

use super::{Settings, lookup::any, lookup::member};
use crate::{
    CoreError,
    model::{ApiKey, Caller, Instance, Timestamp},
    ports::Store,
};

/// What opens a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleTicket {
    /// Goes into the URL: `<instance id>.<expiry in microseconds, hex>.<key id>.<signature, hex>`.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Consoles of instances.
#[derive(Clone)]
pub struct ConsoleService<S> {
    store: S,
    settings: Arc<Settings>,
}

impl<S: Store> ConsoleService<S> {
    /// The service over a store.
    pub fn new(store: S, settings: Arc<Settings>) -> Self {
        Self { store, settings }
    }

    /// Lets the holder of a token onto an instance's console.
    ///
    /// # Errors
    /// `NotFound`; Precondition where it does not run.
    pub async fn issue(&self, caller: &Caller, id: &str) -> Result<ConsoleTicket, CoreError> {
        let instance = self.open(caller, id).await?;
        let expires_at = Timestamp::now().plus(self.settings.console_ttl);
        let body = format!("{}.{:x}.{}", instance.meta.id, expires_at.0, caller.key);
        Ok(ConsoleTicket { token: format!("{body}.{}", self.sign(&body)), expires_at })
    }

    /// The instance that a caller may see the console of.
    ///
    /// # Errors
    /// `NotFound`; Precondition where it does not run; Denied where the key may only read.
    pub async fn open(&self, caller: &Caller, id: &str) -> Result<Instance, CoreError> {
        member(caller)?;
        let instance: Instance = any(&self.store, caller.project, id).await?;
        runs(instance)
    }

    /// The instance whose console's log a caller may read, also while it does not run.
    ///
    /// # Errors
    /// `NotFound`; Precondition where it is deleted: its log went with it.
    pub async fn logged(&self, caller: &Caller, id: &str) -> Result<Instance, CoreError> {
        let instance: Instance = any(&self.store, caller.project, id).await?;
        match instance.status {
            InstanceStatus::Deleted => {
                let message = format!("instance `{}` is deleted, and its console's log with it", instance.meta.name);
                Err(CoreError::precondition("INSTANCE_STATE", message))
            }
            _ => Ok(instance),
        }
    }

    /// The instance that a token opens.
    ///
    /// # Errors
    /// Unauthenticated where the token is not ours or has ended, itself or the key that it was given to; Precondition where the instance does
    /// not run.
    pub async fn redeem(&self, token: &str) -> Result<Instance, CoreError> {
        let bad = CoreError::Unauthenticated("this console link is not valid: ask for a new one");
        let Some((body, signature)) = token.rsplit_once('.') else { return Err(bad) };
        // Comparing hashes of both sides takes no time that depends on where they differ.
        if blake3::hash(self.sign(body).as_bytes()) != blake3::hash(signature.as_bytes()) {
            return Err(bad);
        }
        let mut parts = body.split('.');
        let (Some(id), Some(expiry), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(bad) };
        let (Ok(id), Ok(expiry)) = (Uuid::try_parse(id), i64::from_str_radix(expiry, 16)) else { return Err(bad) };
        let Ok(key) = Uuid::try_parse(key) else { return Err(bad) };
        // Revoking a key ends what it was given, too.
        let ended = Timestamp(expiry) < Timestamp::now() || !key_lives(&self.store, key).await?;
        if ended {
            return Err(CoreError::Unauthenticated("this console link has ended: ask for a new one"));
        }
        let row = self.store.get::<Instance>(*InstanceId::from(id).as_uuid()).await?;
        runs(row.ok_or_else(|| CoreError::not_found(crate::Kind::Instance, id.to_string()))?)
    }

    fn sign(&self, body: &str) -> String {
        blake3::keyed_hash(&self.store.secret(), format!("console {body}").as_bytes()).to_hex().to_string()
    }
}

/// Whether the key that was given a token still opens.
async fn key_lives<S: Store>(store: &S, key: Uuid) -> Result<bool, CoreError> {
    let key: Option<ApiKey> = store.get(key).await?;
    Ok(key.is_some_and(|key| key.opens(&key.hash, Timestamp::now())))
}

fn runs(instance: Instance) -> Result<Instance, CoreError> {
    match instance.status {
        InstanceStatus::Running | InstanceStatus::Stopping | InstanceStatus::Paused => Ok(instance),
        status => Err(CoreError::precondition(
            "INSTANCE_STATE",
            format!("instance `{}` is {status}: it has a console while it runs", instance.meta.name),
        )),
    }
}
