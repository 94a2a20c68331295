//! Opening the pool: which one it is, and making it where it never was.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{
    LvmThin, Options,
    commands::{self, Lvm},
    report::{Report, Reports},
    tags::What,
};
use crate::{
    adapters::{files, qemu_img::QemuImg},
    core::StorageError,
};

/// Where an LVM pool is: `GROUP/POOL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LvmPlace {
    /// The volume group.
    pub group: String,
    /// The thin pool in it.
    pub pool: String,
}

/// A text that is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be `GROUP/POOL`, two names of letters, digits and `+_.-`, is `{0}`")]
pub struct PlaceError(String);

impl FromStr for LvmPlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        // lvm(8), "Valid names".
        let valid = |name: &str| {
            !name.is_empty()
                && name.len() <= 100
                && !name.starts_with('-')
                && name != "."
                && name != ".."
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "+_.-".contains(c))
        };
        match text.split_once('/') {
            Some((group, pool)) if valid(group) && valid(pool) => {
                Ok(Self { group: group.to_owned(), pool: pool.to_owned() })
            }
            _ => Err(PlaceError(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for LvmPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.pool)
    }
}

impl LvmPlace {
    /// A logical volume, as commands take it.
    pub(super) fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.group)
    }

    /// The device of a logical volume.
    pub(super) fn device(&self, name: &str) -> PathBuf {
        Path::new("/dev").join(&self.group).join(name)
    }
}

/// Which pool it is, whatever it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    group: String,
    pool: String,
    #[serde(skip)]
    pub(super) extent_size: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.pool)
    }
}

impl Identity {
    pub(super) fn of(report: &Report, place: &LvmPlace) -> Option<Self> {
        let pool = report.pool(place)?.uuid.clone();
        Some(Self { group: report.group_uuid()?.to_owned(), pool, extent_size: report.extent_size() })
    }

    fn is(&self, remembered: &Self) -> bool {
        (&self.group, &self.pool) == (&remembered.group, &remembered.pool)
    }
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The group is not there.
    #[error("volume group `{group}` cannot be used: make it with `vgcreate {group} DEVICE`, or give its disk back")]
    Group {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: Box<StorageError>,
    },
    /// Something else has the pool's name.
    #[error("`{0}` is there and is no thin pool: name another one")]
    NoPool(LvmPlace),
    /// It hands out blocks as they are.
    #[error(
        "thin pool `{0}` does not zero what it hands out, so that one tenant could read another one's data: `lvchange --zero y {0}`"
    )]
    Unzeroed(LvmPlace),
    /// This host had another pool there.
    #[error(
        "`{place}` is {found}, but this host had {expected} there: is the right disk there? If the pool was replaced on \
         purpose, remove `{}` and start again", memory.display()
    )]
    Another {
        /// Where.
        place: LvmPlace,
        /// What is there.
        found: String,
        /// What was there.
        expected: String,
        /// Where it is remembered.
        memory: PathBuf,
    },
    /// The group has no room for a pool.
    #[error("volume group `{0}` has no room for a thin pool: it needs 64 MiB at least")]
    NoRoom(String),
    /// Another agent has it.
    #[error("pool `{0}` is in use by another storage-agent: stop that one first")]
    InUse(LvmPlace),
    /// A file of the agent cannot be read or written.
    #[error("failed to use `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command failed.
    #[error("failed to open the pool `{place}`")]
    Lvm {
        /// Where.
        place: LvmPlace,
        /// Why.
        #[source]
        source: Box<StorageError>,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> PoolError {
    move |source| PoolError::Io { path: path.to_owned(), source }
}

impl LvmThin {
    /// Opens the pool, or makes it where its group has none of the name and this host never had one, and clears what a
    /// crash left half-done.
    ///
    /// # Errors
    /// [`PoolError`] says why there is no pool, and what to do.
    pub async fn open(options: Options) -> Result<Self, PoolError> {
        let Options { name, place, memory, incoming, max_commands, probe, handover } = options;
        for directory in [memory.parent(), Some(incoming.as_path())].into_iter().flatten() {
            fs::create_dir_all(directory).map_err(at(directory))?;
        }
        let lock = lock(&place, &memory, handover).await?;
        for file in files::names(&incoming).map_err(at(&incoming))?.iter().filter(|name| files::is_temporary(name)) {
            files::remove(&incoming.join(file)).map_err(at(&incoming))?;
        }
        let lvm = Arc::new(Lvm::new(max_commands));
        let failed = |error| PoolError::Lvm { place: place.clone(), source: Box::new(error) };
        resume(&lvm, &place).await.map_err(failed)?;
        let free = room(&lvm, &place).await?;
        let reports = Reports::default();
        let remembered = remembered(&memory)?;
        let mut report = reports.fresh(&lvm, &place).await.map_err(failed)?;
        if report.get(&place.pool).is_none() {
            if let Some(expected) = &remembered {
                let (found, expected) = ("not there".to_owned(), expected.to_string());
                return Err(PoolError::Another { place, found, expected, memory });
            }
            make(&lvm, &place, free).await?;
            report = reports.fresh(&lvm, &place).await.map_err(failed)?;
        }
        let pool = report.pool(&place).ok_or_else(|| PoolError::NoPool(place.clone()))?;
        if !pool.zeroes {
            return Err(PoolError::Unzeroed(place));
        }
        let identity = Identity::of(&report, &place).ok_or_else(|| PoolError::NoPool(place.clone()))?;
        match &remembered {
            Some(expected) if !identity.is(expected) => {
                let (found, expected) = (identity.to_string(), expected.to_string());
                return Err(PoolError::Another { place, found, expected, memory });
            }
            Some(_) => {}
            None => {
                let bytes = serde_json::to_vec(&identity).map_err(io::Error::other).map_err(at(&memory))?;
                files::write(&memory, &bytes, files::PRIVATE).map_err(at(&memory))?;
            }
        }
        if !pool.is_active() {
            lvm.run("activate the pool", &commands::activate(&place, &place.pool)).await.map_err(failed)?;
        }
        let opened = Self {
            name,
            place,
            identity,
            lvm,
            reports,
            qemu_img: Arc::new(QemuImg::new(max_commands)),
            probe,
            incoming,
            extending: Arc::default(),
            stuck: Arc::new(Mutex::new(None)),
            _lock: lock,
        };
        opened.recover(&report).await;
        Ok(opened)
    }

    /// Removes what was begun and not finished. What cannot be removed stays for the next call for it.
    async fn recover(&self, report: &Report) {
        for (lv, tags) in self.ours(report) {
            let unfinished = match tags.what {
                What::Volume { created_size_bytes, .. } => lv.size < created_size_bytes,
                What::Image { creating, .. } => creating,
                What::Snapshot { .. } => false,
            };
            if !unfinished {
                continue;
            }
            match self.remove(&lv.name, || StorageError::backend("remove what is unfinished", "it is in use")).await {
                Ok(()) => tracing::info!(lv = lv.name, "cleared what was unfinished"),
                Err(error) => {
                    tracing::warn!(
                        lv = lv.name,
                        error = &error as &dyn std::error::Error,
                        "failed to clear what is unfinished"
                    );
                }
            }
        }
    }
}

/// Lets devices of this pool go on that a command which was killed left suspended: whoever has one open waits for ever, and so does every
/// command that looks at it.
async fn resume(lvm: &Lvm, place: &LvmPlace) -> Result<(), StorageError> {
    let listed = lvm.run("list the mapped devices", &commands::devices()).await?;
    for device in suspended(&listed.text(), place) {
        tracing::warn!(device, "a device was left suspended by a command that was killed: it goes on");
        lvm.run("resume a device", &commands::resume(&device)).await?;
    }
    Ok(())
}

/// Ours among the suspended devices. The device mapper writes `-` within a name twice (lvm(8)).
pub(super) fn suspended(listed: &str, place: &LvmPlace) -> Vec<String> {
    let mapped = |name: &str| name.replace('-', "--");
    let group = mapped(&place.group);
    let pool = mapped(&place.pool);
    let is_ours = |name: &str| {
        let Some(volume) = name.strip_prefix(&group).and_then(|rest| rest.strip_prefix('-')) else { return false };
        let of_pool =
            volume.strip_prefix(&pool).is_some_and(|rest| matches!(rest, "" | "-tpool" | "_tdata" | "_tmeta"));
        of_pool || ["vol--", "snap--", "img--"].iter().any(|kind| volume.starts_with(kind))
    };
    let lines = listed.lines().filter_map(|line| line.trim().rsplit_once(':'));
    lines.filter(|(name, state)| *state == "Suspended" && is_ours(name)).map(|(name, _)| name.to_owned()).collect()
}

/// Bytes of the group that nothing has, and the size of its extents.
async fn room(lvm: &Lvm, place: &LvmPlace) -> Result<(u64, u64), PoolError> {
    #[derive(Deserialize)]
    struct Answer {
        report: Vec<Part>,
    }
    #[derive(Deserialize)]
    struct Part {
        vg: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        vg_extent_size: String,
        vg_free_count: String,
    }
    let failed = |error| PoolError::Group { group: place.group.clone(), source: Box::new(error) };
    let doing = "look at the volume group";
    let output = lvm.run(doing, &commands::group(place)).await.map_err(failed)?;
    let odd = |e: Box<dyn std::error::Error + Send + Sync>| failed(StorageError::backend(doing, e));
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|e| odd(e.into()))?;
    let group = answer.report.into_iter().flat_map(|part| part.vg).next().ok_or_else(|| odd("no answer".into()))?;
    let number = |text: &str| text.parse::<u64>().map_err(|e| odd(e.into()));
    Ok((number(&group.vg_free_count)?, number(&group.vg_extent_size)?))
}

/// What a new pool gets of a group's free extents: extents of data, bytes of metadata, KiB of a chunk.
pub(super) fn shape(free_extents: u64, extent: u64) -> Option<(u64, u64, u32)> {
    let free = free_extents.saturating_mul(extent);
    if free < 64 << 20 {
        return None;
    }
    // 64 bytes for each chunk (kernel, thin-provisioning.txt), eight times that for snapshots that differ; twice, as LVM
    // keeps a spare copy. 15.8 GiB is the most that the kernel uses.
    let metadata = (free >> 7).clamp(8 << 20, 15 << 30).next_multiple_of(extent.max(1));
    // The rest of the group stays for what is extended.
    let data = (free - free / 5).saturating_sub(2 * metadata) / extent.max(1);
    // Every chunk of a full pool has its metadata twice over.
    let mut chunk = 64;
    while data.saturating_mul(extent) / (u64::from(chunk) << 10) * 128 > metadata {
        chunk *= 2;
    }
    Some((data, metadata, chunk))
}

async fn make(lvm: &Lvm, place: &LvmPlace, (free, extent): (u64, u64)) -> Result<(), PoolError> {
    let (extents, metadata, chunk) = shape(free, extent).ok_or_else(|| PoolError::NoRoom(place.group.clone()))?;
    let command = commands::create_pool(place, extents, metadata, chunk);
    lvm.run("make the thin pool", &command)
        .await
        .map_err(|error| PoolError::Lvm { place: place.clone(), source: Box::new(error) })?;
    tracing::info!(pool = %place, extents, metadata_bytes = metadata, chunk_kib = chunk, "made a new thin pool");
    Ok(())
}

fn remembered(memory: &Path) -> Result<Option<Identity>, PoolError> {
    let Some(bytes) = files::read(memory).map_err(at(memory))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| at(memory)(io::Error::other(e)))
}

/// Keeps other agents out. One that is about to end finishes its work first.
async fn lock(place: &LvmPlace, memory: &Path, handover: Duration) -> Result<File, PoolError> {
    let path = memory.with_extension("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(at(&path))?;
    let deadline = Instant::now() + handover;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(PoolError::InUse(place.clone())),
            Err(error) => return Err(at(&path)(error.into())),
        }
    }
}
