//! The agent's files for a guest: `<instances>/<id>/{seed.img,record,serial.sock,console.log}`.
//!
//! The hypervisor's own user has to reach them by name, so directories may be passed through (0711) and not listed; each file is readable by
//! its owner alone, whom libvirt makes the hypervisor's user while the guest runs. A seed holds secrets, and so does a record.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cloud_domain::InstanceId;

use crate::core::HypervisorError;

/// Where the files of all guests are. Methods block.
#[derive(Debug, Clone)]
pub struct Files {
    instances: PathBuf,
}

/// The longest path of a unix socket (unix(7)), without the final zero.
const SOCKET_PATH_MAX: usize = 107;

impl Files {
    /// Files below `instances`, which is made.
    ///
    /// # Errors
    /// The directory cannot be made, or its path is too long for a socket in it.
    pub fn new(instances: PathBuf) -> Result<Self, HypervisorError> {
        let files = Self { instances };
        let socket = files.serial_socket(InstanceId::from(uuid::Uuid::nil()));
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            let problem =
                format!("a unix socket's path has at most {SOCKET_PATH_MAX} bytes: use a shorter --state-dir");
            return Err(HypervisorError::Files { path: socket, problem });
        }
        make_dir(&files.instances).map_err(|error| failed(&files.instances, &error))?;
        Ok(files)
    }

    /// A guest's directory.
    pub fn directory(&self, id: InstanceId) -> PathBuf {
        self.instances.join(id.to_string())
    }

    /// Its seed image.
    pub fn seed(&self, id: InstanceId) -> PathBuf {
        self.directory(id).join("seed.img")
    }

    /// What the gateway wants back.
    fn record(&self, id: InstanceId) -> PathBuf {
        self.directory(id).join("record")
    }

    /// Its serial console's socket.
    pub fn serial_socket(&self, id: InstanceId) -> PathBuf {
        self.directory(id).join("serial.sock")
    }

    /// What its serial console said.
    pub fn console_log(&self, id: InstanceId) -> PathBuf {
        self.directory(id).join("console.log")
    }

    /// Whether this agent made files for the guest.
    pub fn exists(&self, id: InstanceId) -> bool {
        self.directory(id).is_dir()
    }

    /// Writes the seed image, whole or not at all.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_seed(&self, id: InstanceId, image: &[u8]) -> Result<(), HypervisorError> {
        self.write(id, &self.seed(id), image)
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_record(&self, id: InstanceId, record: &str) -> Result<(), HypervisorError> {
        self.write(id, &self.record(id), record.as_bytes())
    }

    /// The record; empty where there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_record(&self, id: InstanceId) -> Result<String, HypervisorError> {
        let path = self.record(id);
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|error| failed(&path, &error)),
        }
    }

    fn write(&self, id: InstanceId, path: &Path, bytes: &[u8]) -> Result<(), HypervisorError> {
        let directory = self.directory(id);
        make_dir(&directory).map_err(|error| failed(&directory, &error))?;
        let new = path.with_added_extension("new");
        let write = || {
            remove_if_there(&new)?;
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            // Not synced: after a power failure the guest is launched anew, and its files written again.
            file.write_all(bytes)?;
            std::fs::rename(&new, path)
        };
        write().map_err(|error| failed(path, &error))
    }

    /// Removes everything of a guest.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let directory = self.directory(id);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&directory, &error)),
            _ => Ok(()),
        }
    }

    /// The last `max` bytes of the console's log. virtlogd renames a full log to `.0`, so a fresh one is completed from there.
    ///
    /// # Errors
    /// What the system says; a log that is not there is empty.
    pub fn console_tail(&self, id: InstanceId, max: usize) -> Result<Vec<u8>, HypervisorError> {
        let path = self.console_log(id);
        let tail = |path: &Path, max| tail(path, max).map_err(|error| failed(path, &error));
        let newest = tail(&path, max)?;
        if newest.len() >= max {
            return Ok(newest);
        }
        let mut whole = tail(&path.with_extension("log.0"), max - newest.len())?;
        whole.extend(newest);
        Ok(whole)
    }
}

fn tail(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let max = u64::try_from(max).unwrap_or(u64::MAX);
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut data = Vec::new();
    file.take(max).read_to_end(&mut data)?;
    Ok(data)
}

fn make_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: &io::Error) -> HypervisorError {
    HypervisorError::Files { path: path.to_owned(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_for_its_owner_only_and_goes_with_the_guest() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().join("instances")).unwrap();
        let id = InstanceId::random();
        files.write_seed(id, b"one").unwrap();
        files.write_seed(id, b"two").unwrap();
        assert_eq!(std::fs::read(files.seed(id)).unwrap(), b"two");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(files.read_record(id).unwrap(), "");
        files.write_record(id, "what it was").unwrap();
        assert_eq!(files.read_record(id).unwrap(), "what it was");
        assert_eq!((mode(&files.seed(id)), mode(&files.directory(id))), (0o600, 0o711));
        assert_eq!(mode(&files.record(id)), 0o600);
        files.remove(id).unwrap();
        files.remove(id).unwrap();
        assert!(!files.exists(id));
    }

    #[test]
    fn a_rotated_log_is_read_across_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path().join("i")).unwrap();
        let id = InstanceId::random();
        assert!(files.console_tail(id, 10).unwrap().is_empty());
        files.write_seed(id, b"").unwrap();
        std::fs::write(files.console_log(id), "world").unwrap();
        std::fs::write(files.directory(id).join("console.log.0"), "hello ").unwrap();
        assert_eq!(files.console_tail(id, 100).unwrap(), b"hello world");
        assert_eq!(files.console_tail(id, 7).unwrap(), b"o world");
        assert_eq!(files.console_tail(id, 3).unwrap(), b"rld");
    }

    #[test]
    fn a_state_directory_too_deep_for_sockets_is_refused() {
        let error = Files::new(PathBuf::from(format!("/{}", "x".repeat(90)))).unwrap_err();
        assert!(error.to_string().contains("shorter --state-dir"), "{error}");
    }
}
