//! `qemu-img`, by argument vectors.

use std::{path::Path, sync::Arc, time::Duration};

use cloud_domain::Mib;
use cloud_service_kit::exec::{Command, ExecError, run};
use tokio::sync::Semaphore;

use crate::core::{StorageError, model::Format};

const DEADLINE: Duration = Duration::from_secs(50);

/// Runs `qemu-img`, a few at a time.
pub(super) struct QemuImg {
    permits: Arc<Semaphore>,
}

/// What came of a command that needs the image for itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// A process has it open.
    Locked,
}

impl QemuImg {
    pub(super) fn new(at_once: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_once.max(1))) }
    }

    pub(super) async fn create(
        &self,
        path: &Path,
        size: Mib,
        backing: Option<(&Path, Format)>,
    ) -> Result<(), StorageError> {
        self.run(&create(path, size, backing)).await.map_err(|e| StorageError::backend("make a volume's file", e))
    }

    pub(super) async fn resize(&self, path: &Path, size: Mib) -> Result<Outcome, StorageError> {
        match self.run(&resize(path, size)).await {
            Ok(()) => Ok(Outcome::Done),
            // block/file-posix.c: "Failed to get "write" lock", "Is another process using the image […]?"
            Err(ExecError::Failed { stderr, .. }) if stderr.contains("lock") && stderr.contains("another process") => {
                Ok(Outcome::Locked)
            }
            Err(error) => Err(StorageError::backend("grow a volume's file", error)),
        }
    }

    async fn run(&self, command: &Command) -> Result<(), ExecError> {
        // Never closed; without a permit it would only run unbounded.
        let _permit = self.permits.acquire().await.ok();
        run(command).await.map(drop)
    }
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
        insta::assert_snapshot!(resize(path, size), @"qemu-img resize -q -f qcow2 -- /pool/volumes/.v.tmp 2147483648");
    }
}
