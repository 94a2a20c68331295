//! The LVM commands, by argument vectors.

use std::{sync::Arc, time::Duration};

use cloud_domain::Mib;
use cloud_service_kit::exec::{Command, ExecError, Output, run};
use tokio::sync::Semaphore;

use super::{LvmPlace, tags::Tags};
use crate::core::StorageError;

/// When a command is killed. Less than a caller waits.
pub(super) const DEADLINE: Duration = Duration::from_secs(45);

/// Guests' disks are no physical volumes of this host, whatever they have on them; and what LVM would do by itself when a
/// pool fills up is done by this agent. A new pool fails writes at once when it is full (lvmthin(7), `error_when_full`). An
/// archive of every step would hold thousands of files; the backup of the last one is kept.
const SETTINGS: &str = "devices/scan_lvs=0 activation/thin_pool_autoextend_threshold=100 activation/monitoring=0 \
                        backup/archive=0 activation/error_when_full=1";

/// Runs LVM commands, a few at a time.
#[derive(Debug)]
pub(super) struct Lvm {
    permits: Arc<Semaphore>,
}

/// What a command said that failed as it sometimes does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A logical volume of that name is there already.
    Exists,
    /// There is none of that name.
    Gone,
    /// A process has it open.
    InUse,
    /// It has that size already.
    SameSize,
}

impl Lvm {
    pub(super) fn new(at_once: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_once.max(1))) }
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, doing: &'static str, command: &Command) -> Result<Output, StorageError> {
        match self.attempt(doing, command).await? {
            Ok(output) => Ok(output),
            Err((_, error)) => Err(StorageError::backend(doing, error)),
        }
    }

    /// Runs a command to its end, or to a refusal that is known.
    pub(super) async fn attempt(
        &self,
        doing: &'static str,
        command: &Command,
    ) -> Result<Result<Output, (Refusal, ExecError)>, StorageError> {
        // Never closed; without a permit it would only run unbounded.
        let _permit = self.permits.acquire().await.ok();
        match run(command).await {
            Ok(output) => Ok(Ok(output)),
            Err(error @ ExecError::Deadline { .. }) => {
                tracing::error!(doing, error = &error as &dyn std::error::Error, "a command was killed");
                Err(StorageError::Hung { what: doing.to_owned(), seconds: DEADLINE.as_secs() })
            }
            Err(error) => match refusal(&error) {
                Some(refusal) => Ok(Err((refusal, error))),
                None => Err(StorageError::backend(doing, error)),
            },
        }
    }
}

/// The messages are those of LVM 2.03 in the C locale: lib/metadata, lib/activate and tools/lvresize.
fn refusal(error: &ExecError) -> Option<Refusal> {
    let ExecError::Failed { stderr, .. } = error else { return None };
    let stderr = stderr.to_lowercase();
    let says = |words: &str| stderr.contains(words);
    if says("already exists in volume group") {
        Some(Refusal::Exists)
    } else if says("failed to find logical volume") || says("not found in volume group") {
        Some(Refusal::Gone)
    } else if says(" in use") || says("is used by another device") || says("device or resource busy") {
        Some(Refusal::InUse)
    } else if says("matches existing size") || says("not larger than existing size") {
        Some(Refusal::SameSize)
    } else {
        None
    }
}

/// Quiet, so that one which outlives this agent is not ended half-way by writing to nobody.
fn lvm(program: &str) -> Command {
    Command::new(program).args(["-qq", "--config", SETTINGS]).deadline(DEADLINE)
}

/// Every mapped device, and whether it stands still.
pub(super) fn devices() -> Command {
    Command::new("dmsetup")
        .args(["info", "--columns", "--noheadings", "--separator", ":", "-o", "name,suspended"])
        .deadline(DEADLINE)
}

pub(super) fn resume(device: &str) -> Command {
    Command::new("dmsetup").args(["resume", "--", device]).deadline(DEADLINE)
}

fn bytes(size: u64) -> String {
    format!("{size}b")
}

fn tagged(command: Command, tags: &Tags) -> Command {
    tags.write().iter().fold(command, |command, tag| command.args(["--addtag", tag]))
}

/// Every logical volume of a group, with the group.
pub(super) fn report(place: &LvmPlace) -> Command {
    let fields = "lv_name,lv_uuid,lv_size,lv_attr,lv_tags,pool_lv,data_percent,metadata_percent,lv_metadata_size,vg_uuid,\
                  vg_extent_size,vg_free_count,zero";
    lvm("lvs").args(["--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields, "--", &place.group])
}

/// The group itself.
pub(super) fn group(place: &LvmPlace) -> Command {
    let fields = "vg_name,vg_uuid,vg_extent_size,vg_free_count,vg_attr";
    lvm("vgs").args(["--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields, "--", &place.group])
}

/// A thin pool. It zeroes what it hands out, gives discards on, and fails writes at once when it is full.
pub(super) fn create_pool(place: &LvmPlace, extents: u64, metadata_bytes: u64, chunk_kib: u32) -> Command {
    lvm("lvcreate")
        .args(["--yes", "--type", "thin-pool", "--name", &place.pool])
        .args(["--extents", &extents.to_string(), "--poolmetadatasize", &bytes(metadata_bytes)])
        .args(["--chunksize", &format!("{chunk_kib}k"), "--zero", "y", "--discards", "passdown"])
        .args(["--addtag", "cloud.thin-pool", "--", &place.group])
}

pub(super) fn create_blank(place: &LvmPlace, name: &str, size: Mib, tags: &Tags) -> Command {
    let command = lvm("lvcreate")
        .args(["--yes", "--type", "thin", "--name", name, "--virtualsize", &bytes(size.bytes())])
        .args(["--thinpool", &place.pool, "--wipesignatures", "n", "--setactivationskip", "n"]);
    tagged(command, tags).args(["--", &place.group])
}

/// A thin snapshot that is written to: a copy.
pub(super) fn create_copy(place: &LvmPlace, name: &str, of: &str, tags: &Tags) -> Command {
    let command = lvm("lvcreate").args(["--yes", "--snapshot", "--name", name, "--setactivationskip", "n"]);
    tagged(command, tags).args(["--", &place.full(of)])
}

/// A thin snapshot that stays as it is, and is not activated.
pub(super) fn create_snapshot(place: &LvmPlace, name: &str, of: &str, tags: &Tags) -> Command {
    let command = lvm("lvcreate").args(["--yes", "--snapshot", "--name", name, "--setactivationskip", "y"]);
    tagged(command, tags).args(["--permission", "r", "--", &place.full(of)])
}

pub(super) fn extend(place: &LvmPlace, name: &str, size: Mib) -> Command {
    lvm("lvextend").args(["--size", &bytes(size.bytes()), "--", &place.full(name)])
}

pub(super) fn extend_pool(place: &LvmPlace, extents: u64) -> Command {
    lvm("lvextend").args(["--extents", &format!("+{extents}"), "--", &place.full(&place.pool)])
}

pub(super) fn extend_metadata(place: &LvmPlace, by: u64) -> Command {
    lvm("lvextend").args(["--poolmetadatasize", &format!("+{}", bytes(by)), "--", &place.full(&place.pool)])
}

pub(super) fn remove(place: &LvmPlace, name: &str) -> Command {
    lvm("lvremove").args(["--yes", "--", &place.full(name)])
}

pub(super) fn activate(place: &LvmPlace, name: &str) -> Command {
    lvm("lvchange").args(["--activate", "y", "--ignoreactivationskip", "--", &place.full(name)])
}

pub(super) fn deactivate(place: &LvmPlace, name: &str) -> Command {
    lvm("lvchange").args(["--activate", "n", "--", &place.full(name)])
}

/// The commit point of an image: it is whole, and is not activated by itself any more.
pub(super) fn finish_image(place: &LvmPlace, name: &str) -> Command {
    lvm("lvchange").args(["--setactivationskip", "y", "--deltag", super::tags::CREATING, "--", &place.full(name)])
}
