//! `qemu-img`, by argument vectors.

use std::{path::Path, sync::Arc, time::Duration};

use cloud_domain::Mib;
use cloud_service_kit::exec::{Command, ExecError, run};
use tokio::sync::Semaphore;

use crate::core::{StorageError, model::Format};

const DEADLINE: Duration = Duration::from_secs(50);
/// Copying takes as long as the data are large.
const COPY_DEADLINE: Duration = Duration::from_secs(6 * 3600);

/// Runs `qemu-img`, a few at a time.
pub(in crate::adapters) struct QemuImg {
    permits: Arc<Semaphore>,
}

/// What came of a command that needs the image for itself.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Outcome {
    Done,
    /// A process has it open.
    Locked,
}

impl QemuImg {
    pub(in crate::adapters) fn new(at_once: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_once.max(1))) }
    }

    pub(in crate::adapters) async fn create(
        &self,
        path: &Path,
        size: Mib,
        backing: Option<(&Path, Format)>,
    ) -> Result<(), StorageError> {
        self.run(&create(path, size, backing)).await.map_err(|e| StorageError::backend("make a volume's file", e))
    }

    pub(in crate::adapters) async fn resize(&self, path: &Path, size: Mib) -> Result<Outcome, StorageError> {
        match self.run(&resize(path, size)).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) if is_locked(&error) => Ok(Outcome::Locked),
            Err(error) => Err(StorageError::backend("grow a volume's file", error)),
        }
    }

    /// Copies a qcow2 file that no other process writes to, as it is: what its backing file has stays there. While it is
    /// copied, no process can open it for writing.
    pub(in crate::adapters) async fn copy(
        &self,
        from: &Path,
        to: &Path,
        backing: Option<(&Path, Format)>,
    ) -> Result<Outcome, StorageError> {
        match self.run(&copy(from, to, backing)).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) if is_locked(&error) => Ok(Outcome::Locked),
            Err(error) => Err(StorageError::backend("copy a volume's file", error)),
        }
    }

    /// Writes an image onto a device that reads zeros, sparsely.
    pub(in crate::adapters) async fn unpack(
        &self,
        image: &Path,
        format: Format,
        device: &Path,
    ) -> Result<(), StorageError> {
        self.run(&unpack(image, format, device)).await.map_err(|e| StorageError::backend("unpack an image", e))
    }

    async fn run(&self, command: &Command) -> Result<(), ExecError> {
        // Never closed; without a permit it would only run unbounded.
        let _permit = self.permits.acquire().await.ok();
        run(command).await.map(drop)
    }
}

/// block/file-posix.c: "Failed to get "write" lock", "Is another process using the image […]?"
fn is_locked(error: &ExecError) -> bool {
    matches!(error, ExecError::Failed { stderr, .. } if stderr.contains("lock") && stderr.contains("another process"))
}

/// The backing file is written relative to the volume's directory, so that a pool can be mounted elsewhere; its format is
/// said, never guessed.
fn create(path: &Path, size: Mib, backing: Option<(&Path, Format)>) -> Command {
    let mut command = qemu_img().args(["create", "-q", "-f", "qcow2", "-o", "preallocation=off"]);
    if let Some((path, format)) = backing {
        command = command.arg("-b").arg(path).args(["-F", format.as_str()]);
    }
    command.arg("--").arg(path).arg(size.bytes().to_string())
}

fn resize(path: &Path, size: Mib) -> Command {
    qemu_img().args(["resize", "-q", "-f", "qcow2", "--"]).arg(path).arg(size.bytes().to_string())
}

fn copy(from: &Path, to: &Path, backing: Option<(&Path, Format)>) -> Command {
    let mut command = qemu_img().args(["convert", "-q", "-f", "qcow2", "-O", "qcow2"]).deadline(COPY_DEADLINE);
    if let Some((path, format)) = backing {
        command = command.arg("-B").arg(path).args(["-F", format.as_str()]);
    }
    command.arg("--").arg(from).arg(to)
}

/// The device is newly made and reads zeros, so that blocks of zeros are not written. Past the page cache: what is said to
/// be written is on the pool's disk.
fn unpack(image: &Path, format: Format, device: &Path) -> Command {
    qemu_img()
        .args(["convert", "-q", "-n", "--target-is-zero", "-t", "none", "-f", format.as_str(), "-O", "raw", "--"])
        .arg(image)
        .arg(device)
        .deadline(COPY_DEADLINE)
}

fn qemu_img() -> Command {
    Command::new("qemu-img").deadline(DEADLINE).max_output(64 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_vectors() {
        let path = Path::new("/pool/volumes/.v.tmp");
        let size = Mib::try_from(2048).unwrap();
        let image = Path::new("../images/i.raw");
        insta::assert_snapshot!(create(path, size, None), @"qemu-img create -q -f qcow2 -o preallocation=off -- /pool/volumes/.v.tmp 2147483648");
        insta::assert_snapshot!(create(path, size, Some((image, Format::Raw))), @"qemu-img create -q -f qcow2 -o preallocation=off -b ../images/i.raw -F raw -- /pool/volumes/.v.tmp 2147483648");
        let from = Path::new("/pool/volumes/v.qcow2");
        insta::assert_snapshot!(copy(from, path, Some((image, Format::Raw))), @"qemu-img convert -q -f qcow2 -O qcow2 -B ../images/i.raw -F raw -- /pool/volumes/v.qcow2 /pool/volumes/.v.tmp");
        insta::assert_snapshot!(unpack(from, Format::Qcow2, Path::new("/dev/vg0/img")), @"qemu-img convert -q -n --target-is-zero -t none -f qcow2 -O raw -- /pool/volumes/v.qcow2 /dev/vg0/img");
        insta::assert_snapshot!(resize(path, size), @"qemu-img resize -q -f qcow2 -- /pool/volumes/.v.tmp 2147483648");
    }
}
