//! What a new cloud begins with: a project with a VPC, the instance types, and the key of its first operator.

use cloud_domain::{ApiKeyId, Cidr, Gib, ProjectId, VpcId};
use uuid::Uuid;

use super::{KeyHash, vpcs};
use crate::{
    CoreError,
    model::{ApiKey, InstanceType, Labels, Meta, Project, Role, Vpc},
    ports::{Store, Tx},
};

/// Name, processors, memory in MiB, disk in GiB, whether it is the default.
const TYPES: [(&str, u32, u32, u64, bool); 5] = [
    ("tiny", 1, 128, 1, false),
    ("small", 1, 512, 5, true),
    ("medium", 2, 2048, 20, false),
    ("large", 4, 8192, 40, false),
    ("xlarge", 8, 16384, 80, false),
];

/// The name of the project that exists from the start.
const PROJECT: &str = "default";
/// The name of the first operator's key.
const KEY: &str = "admin";

/// Makes sure that a cloud has what it begins with. `secret` is the first operator's key: it is entered under its hash, beside those that
/// are there already. Safe to repeat.
///
/// # Errors
/// The store's.
pub async fn bootstrap<S: Store>(store: &S, secret: &str) -> Result<(), CoreError> {
    let nobody = ProjectId::from(Uuid::nil());
    let mut tx = store.begin().await?;
    let project = match tx.find::<Project>(nobody, PROJECT).await? {
        Some(project) => project,
        None => {
            let id = *ProjectId::random().as_uuid();
            let project = Project { meta: Meta::new(id, nobody, "", PROJECT, Labels::new()) };
            tx.insert(&project).await?;
            for (name, vcpus, memory_mib, disk, is_default) in TYPES {
                let meta = Meta::new(Uuid::new_v4(), nobody, "", name, Labels::new());
                let disk = Gib::try_from(disk).map_err(|e| CoreError::Internal(Box::new(e)))?;
                tx.insert(&InstanceType { meta, vcpus, memory_mib, disk, is_default }).await?;
            }
            project
        }
    };
    let owner = ProjectId::from(project.meta.id);
    let meta = |id: Uuid, name: &str| Meta::new(id, owner, PROJECT, name, Labels::new());
    if tx.find::<Vpc>(owner, PROJECT).await?.is_none() {
        let cidr: Cidr = "10.0.0.0/16".parse().map_err(|e| CoreError::Internal(Box::new(e)))?;
        vpcs::make(&mut tx, meta(*VpcId::random().as_uuid(), PROJECT), cidr, true).await?;
    }
    let hash = KeyHash::of(secret);
    match tx.find::<ApiKey>(owner, KEY).await? {
        Some(mut key) if key.hash != hash => {
            // The operator's key file was lost or replaced: whoever can write it is the operator.
            key.prefix = prefix(secret);
            key.hash = hash;
            tx.update(&mut key).await?;
        }
        Some(_) => {}
        None => {
            let key = ApiKey {
                meta: meta(*ApiKeyId::random().as_uuid(), KEY),
                prefix: prefix(secret),
                hash,
                role: Role::Operator,
                expires_at: None,
                revoked_at: None,
            };
            tx.insert(&key).await?;
        }
    }
    tx.commit().await?;
    Ok(())
}

fn prefix(secret: &str) -> String {
    secret.chars().take(10).collect()
}
