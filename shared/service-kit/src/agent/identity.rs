//! Which host this is.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use cloud_domain::{HostId, HostName};

use super::AgentArgs;

/// A host: what its three agents have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// Its id, kept in a file.
    pub id: HostId,
    /// Its name.
    pub name: HostName,
}

/// Why the host's identity is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The host's name cannot be a name in the cloud.
    #[error("`{name}` cannot be this host's name in the cloud, it {problem}: choose one with --host-name")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: cloud_domain::NameError,
    },
    /// The id file holds something else.
    #[error("{} does not hold a host id: restore it or, if this host never was in a cloud, remove it", path.display())]
    Id {
        /// The file.
        path: PathBuf,
    },
    /// The id file cannot be read or made.
    #[error("cannot keep the host id in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// This host's identity. Makes the id file if there is none; of several processes that do so at once, all get the same id.
///
/// # Errors
/// The name is not usable, or the file is unreadable or damaged.
pub fn host_identity(args: &AgentArgs) -> Result<HostIdentity, IdentityError> {
    let name = match &args.host_name {
        Some(name) => name.clone(),
        None => {
            let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
            name.split('.').next().unwrap_or_default().to_owned()
        }
    };
    let name = name.parse().map_err(|problem| IdentityError::Name { name, problem })?;
    Ok(HostIdentity { id: host_id(&args.host_id_file)?, name })
}

fn host_id(path: &Path) -> Result<HostId, IdentityError> {
    let file_error = |source| IdentityError::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| IdentityError::Id { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path).map_err(file_error)?;
            let text = fs::read_to_string(path).map_err(file_error)?;
            text.trim().parse().map_err(|_| IdentityError::Id { path: path.to_owned() })
        }
        Err(error) => Err(file_error(error)),
    }
}

/// Makes the file, whole from its first moment, unless somebody else does so first: a hard link fails if its name exists.
fn create(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let temporary = directory.join(format!(".host-id.{}", uuid::Uuid::new_v4()));
    let linked = write_synced(&temporary, HostId::random()).and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&temporary);
    linked.and(removed)?;
    fs::File::open(directory)?.sync_all()
}

fn write_synced(path: &Path, id: HostId) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    writeln!(file, "{id}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, os::unix::fs::PermissionsExt as _, sync::Barrier, thread};

    use super::*;
    use crate::Address;

    fn args(file: PathBuf) -> AgentArgs {
        AgentArgs {
            gateway: vec![Address::Unix("/none".into())],
            state_dir: "/none".into(),
            host_name: Some("h1".into()),
            host_id_file: file,
            advertise: None,
            tls: super::super::AgentTlsArgs::default(),
        }
    }

    #[test]
    fn all_agents_that_start_at_once_agree_and_leave_one_file() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let file = directory.path().join(format!("state{round}/host-id"));
            let barrier = Barrier::new(16);
            let ids: HashSet<HostId> = thread::scope(|scope| {
                let start = || {
                    barrier.wait();
                    host_identity(&args(file.clone())).unwrap().id
                };
                let all: Vec<_> = (0..16).map(|_| scope.spawn(start)).collect();
                all.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(ids.len(), 1);
            assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "a temporary file is left");
            assert_eq!(host_identity(&args(file.clone())).unwrap().id, *ids.iter().next().unwrap());
            let mode = fs::metadata(file.parent().unwrap()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("host-id");
        fs::write(&file, "").unwrap();
        assert!(matches!(host_identity(&args(file.clone())), Err(IdentityError::Id { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
    }

    #[test]
    fn a_bad_name_says_what_to_do() {
        let mut args = args("/none".into());
        args.host_name = Some("Host_1".into());
        let error = host_identity(&args).unwrap_err().to_string();
        assert!(error.contains("`Host_1`") && error.contains("--host-name"), "{error}");
    }
}
