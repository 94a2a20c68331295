//! What a new cloud begins with: a project with a VPC, the instance types, and the key of its first operator.

use cloud_domain::{ApiKeyId, Gib, ProjectId};
use uuid::Uuid;

use super::{
    KeyHash,
    identity::shown,
    projects::{DEFAULT, furnish, nobody},
};
use crate::{
    CoreError,
    model::{ApiKey, InstanceType, Labels, Meta, Project, Role, Value},
    ports::{Query, Store, Tx},
};

/// Name, processors, memory in MiB, disk in GiB, whether it is the default.
const TYPES: [(&str, u32, u32, u64, bool); 5] = [
    ("tiny", 1, 128, 1, false),
    ("small", 1, 512, 5, true),
    ("medium", 2, 2048, 20, false),
    ("large", 4, 8192, 40, false),
    ("xlarge", 8, 16384, 80, false),
];

/// The name of the first operator's key.
const KEY: &str = "admin";

/// Makes sure that a cloud has what it begins with. `secret` is the first operator's key: it is entered under its hash, in place of the one
/// that was entered before; unless it was revoked or rotated away, which is for good. Safe to repeat.
///
/// # Errors
/// The store's.
pub async fn bootstrap<S: Store>(store: &S, secret: &str) -> Result<(), CoreError> {
    let mut tx = store.begin().await?;
    let project = match tx.find::<Project>(nobody(), DEFAULT).await? {
        Some(project) => project,
        None => {
            let id = *ProjectId::random().as_uuid();
            let project = Project { meta: Meta::new(id, nobody(), "", DEFAULT, Labels::new()) };
            tx.insert(&project).await?;
            furnish(&mut tx, &project).await?;
            for (name, vcpus, memory_mib, disk, is_default) in TYPES {
                let meta = Meta::new(Uuid::new_v4(), nobody(), "", name, Labels::new());
                let disk = Gib::try_from(disk).map_err(|e| CoreError::Internal(Box::new(e)))?;
                tx.insert(&InstanceType { meta, vcpus, memory_mib, disk, is_default }).await?;
            }
            project
        }
    };
    enter_key(&mut tx, ProjectId::from(project.meta.id), secret).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether a key is one that the operator's file held, or may have.
pub(crate) fn is_of_the_file(key: &ApiKey) -> bool {
    key.meta.name == KEY && key.meta.project_name == DEFAULT
}

async fn enter_key<T: Tx>(tx: &mut T, owner: ProjectId, secret: &str) -> Result<(), CoreError> {
    let hash = KeyHash::of(secret);
    // Every key that the operator's file ever held has this name, unless somebody made another one of that name.
    let columns = vec![("name", Value::Text(KEY.to_owned()))];
    let known = Query { project: Some(owner), columns, deleted: true, ..Query::default() };
    let known: Vec<ApiKey> = tx.list(&known).await?;
    if let Some(key) = known.iter().find(|key| key.hash == hash || key.retired.contains(&hash)) {
        if key.hash != hash || key.revoked_at.is_some() {
            tracing::warn!(
                key = KEY,
                "the secret in the API key file was revoked or rotated away: write the current one there, or remove the file to get a new one"
            );
        }
        return Ok(());
    }
    match known.into_iter().find(|key| key.meta.deleted_at.is_none()) {
        Some(mut key) => {
            // The operator's key file was lost or replaced: whoever can write it is the operator.
            let before = std::mem::replace(&mut key.hash, hash);
            key.retired.push(before);
            key.old = None;
            key.prefix = shown(secret);
            key.role = Role::Operator;
            key.expires_at = None;
            tx.update(&mut key).await?;
        }
        None => {
            let key = ApiKey {
                meta: Meta::new(*ApiKeyId::random().as_uuid(), owner, DEFAULT, KEY, Labels::new()),
                prefix: shown(secret),
                hash,
                role: Role::Operator,
                expires_at: None,
                revoked_at: None,
                old: None,
                retired: Vec::new(),
            };
            tx.insert(&key).await?;
        }
    }
    Ok(())
}
