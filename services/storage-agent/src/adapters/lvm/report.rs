//! What a group has, as `lvs` says.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    LvmPlace,
    commands::{self, Lvm},
};
use crate::core::{StorageError, model::ThinStatus};

/// A logical volume, as `lvs --reportformat json --units b --nosuffix` has it: numbers are texts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lv {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) size: u64,
    /// See lvs(8), "Notes": the fifth says whether it is active, the sixth whether it is open.
    pub(super) attr: String,
    pub(super) tags: String,
    /// The thin pool that it is in.
    pub(super) pool: String,
    /// How full it is, in thousandths; none where that is not known, such as of what is inactive.
    pub(super) data_permille: Option<u32>,
    pub(super) metadata_permille: Option<u32>,
    pub(super) metadata_size: u64,
    pub(super) zeroes: bool,
    group_uuid: String,
    extent_size: u64,
    free_extents: u64,
}

impl Lv {
    fn attribute(&self, index: usize) -> char {
        self.attr.chars().nth(index).unwrap_or('-')
    }

    pub(super) fn is_active(&self) -> bool {
        self.attribute(4) == 'a'
    }

    pub(super) fn is_thin_pool(&self) -> bool {
        self.attribute(0) == 't'
    }

    /// Bytes of it that are written.
    pub(super) fn allocated(&self) -> u64 {
        let permille = u64::from(self.data_permille.unwrap_or(0));
        u64::try_from(u128::from(self.size) * u128::from(permille) / 1000).unwrap_or(self.size)
    }

    /// Bytes of a pool that are not handed out.
    pub(super) fn free_bytes(&self) -> u64 {
        self.size.saturating_sub(self.allocated())
    }

    /// Why a thin pool cannot be relied on, in the words of lvs(8).
    pub(super) fn what_is_wrong(&self) -> Option<String> {
        let state = match self.attribute(4) {
            's' => Some("it is suspended"),
            'X' | '-' => Some("it is not active"),
            'c' => Some("its metadata need a check"),
            _ => None,
        };
        let health = match self.attribute(8) {
            'F' => Some("its metadata are damaged: see lvconvert --repair"),
            'M' => Some("its metadata are read only"),
            'p' => Some("some of its physical volumes are missing"),
            'r' => Some("it needs a refresh: a physical volume failed"),
            _ => None,
        };
        health.or(state).map(ToOwned::to_owned)
    }
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) volumes: Vec<Lv>,
}

impl Report {
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let answer: Answer = serde_json::from_slice(json)?;
        let rows = answer.report.into_iter().flat_map(|part| part.lv);
        rows.map(Row::read).collect::<Result<_, _>>().map(|volumes| Self { volumes })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Lv> {
        self.volumes.iter().find(|lv| lv.name == name)
    }

    pub(super) fn pool(&self, place: &LvmPlace) -> Option<&Lv> {
        self.get(&place.pool).filter(|lv| lv.is_thin_pool())
    }

    pub(super) fn group_uuid(&self) -> Option<&str> {
        self.volumes.first().map(|lv| lv.group_uuid.as_str())
    }

    pub(super) fn extent_size(&self) -> u64 {
        self.volumes.first().map_or(0, |lv| lv.extent_size)
    }

    pub(super) fn free_extents(&self) -> u64 {
        self.volumes.first().map_or(0, |lv| lv.free_extents)
    }

    pub(super) fn group_free(&self) -> u64 {
        self.free_extents().saturating_mul(self.extent_size())
    }

    pub(super) fn thin(&self, place: &LvmPlace) -> ThinStatus {
        let pool = self.pool(place);
        // What the group can still add counts: the pool is extended before it is full.
        let size = pool.map_or(0, |lv| lv.size).saturating_add(self.group_free());
        let data = pool.map_or(0, Lv::allocated);
        ThinStatus {
            data_permille: u32::try_from(u128::from(data) * 1000 / u128::from(size.max(1))).unwrap_or(u32::MAX),
            metadata_permille: pool.and_then(|lv| lv.metadata_permille).unwrap_or(0),
            virtual_bytes: self.volumes.iter().filter(|lv| lv.pool == place.pool).map(|lv| lv.size).sum(),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    report: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    lv: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    lv_name: String,
    lv_uuid: String,
    lv_size: String,
    lv_attr: String,
    lv_tags: String,
    pool_lv: String,
    data_percent: String,
    metadata_percent: String,
    lv_metadata_size: String,
    vg_uuid: String,
    vg_extent_size: String,
    vg_free_count: String,
    zero: String,
}

impl Row {
    fn read(self) -> Result<Lv, serde_json::Error> {
        let wrong = |field: &str, text: &str| {
            <serde_json::Error as serde::de::Error>::custom(format!("{field} of `{}` is `{text}`", self.lv_name))
        };
        let number = |field: &str, text: &str| text.parse().map_err(|_| wrong(field, text));
        let permille = |field: &str, text: &str| {
            if text.is_empty() {
                return Ok(None);
            }
            permille(text).map(Some).ok_or_else(|| wrong(field, text))
        };
        Ok(Lv {
            size: number("lv_size", &self.lv_size)?,
            data_permille: permille("data_percent", &self.data_percent)?,
            metadata_permille: permille("metadata_percent", &self.metadata_percent)?,
            metadata_size: if self.lv_metadata_size.is_empty() {
                0
            } else {
                number("lv_metadata_size", &self.lv_metadata_size)?
            },
            zeroes: self.zero == "zero",
            extent_size: number("vg_extent_size", &self.vg_extent_size)?,
            free_extents: number("vg_free_count", &self.vg_free_count)?,
            name: self.lv_name,
            uuid: self.lv_uuid,
            attr: self.lv_attr,
            tags: self.lv_tags,
            pool: self.pool_lv,
            group_uuid: self.vg_uuid,
        })
    }
}

/// A percentage such as `12.34`, in thousandths of the whole, rounded up: what is nearly full is full.
fn permille(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let hundredths: u32 = format!("{part:0<2}").get(..2)?.parse().ok()?;
    let whole: u32 = whole.parse().ok()?;
    Some((whole.checked_mul(100)?.checked_add(hundredths)?).div_ceil(10))
}

/// Reports, shared by all who wait for one: each gets one that was begun after it asked.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// How many have asked.
    asked: AtomicU64,
    /// Held while one is made. How many had asked when the last one was begun.
    making: tokio::sync::Mutex<u64>,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl Reports {
    pub(super) async fn fresh(&self, lvm: &Lvm, place: &LvmPlace) -> Result<Arc<Report>, StorageError> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut covers = self.making.lock().await;
        if *covers >= turn
            && let Some((_, report)) = self.last()
        {
            return Ok(report);
        }
        let (asked, begun) = (self.asked.load(Ordering::SeqCst), Instant::now());
        let doing = "read the state of the volume group";
        let output = lvm.run(doing, &commands::report(place)).await?;
        let report = Arc::new(Report::parse(&output.stdout).map_err(|e| StorageError::backend(doing, e))?);
        *covers = asked;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((begun, Arc::clone(&report)));
        Ok(report)
    }

    fn last(&self) -> Option<(Instant, Arc<Report>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last one, where it is younger.
    pub(super) fn younger(&self, than: Duration) -> Option<Arc<Report>> {
        self.last().filter(|(begun, _)| begun.elapsed() < than).map(|(_, report)| report)
    }
}
