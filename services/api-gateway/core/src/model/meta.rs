//! What every row has, and how a row tells the store about itself.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cloud_domain::ProjectId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    Kind,
    filter::{Field, ID, LABELS, NAME},
};

/// Words of the user's own.
pub type Labels = BTreeMap<String, String>;

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment by the machine's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This much earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// What every row has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The row's id.
    pub id: Uuid,
    /// The project it belongs to; nil for what belongs to the cloud.
    pub project: ProjectId,
    /// The project's name (projects are not renamed).
    pub project_name: String,
    /// Unique among live rows of its kind in its project.
    pub name: String,
    /// Goes up with every write; the etag.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Words of the user's own.
    #[serde(default)]
    pub labels: Labels,
}

impl Meta {
    /// The meta of a new row.
    #[must_use]
    pub fn new(id: Uuid, project: ProjectId, project_name: &str, name: &str, labels: Labels) -> Self {
        let now = Timestamp::now();
        Self {
            id,
            project,
            project_name: project_name.to_owned(),
            name: name.to_owned(),
            version: 1,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            labels,
        }
    }

    /// The version as users see it.
    #[must_use]
    pub fn etag(&self) -> String {
        self.version.to_string()
    }
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// TEXT.
    Text(String),
    /// BIGINT.
    Int(i64),
    /// NULL of a TEXT column.
    NoText,
}

impl Value {
    /// A text column that may be NULL.
    pub fn text(value: Option<impl ToString>) -> Self {
        value.map_or(Self::NoText, |v| Self::Text(v.to_string()))
    }
}

/// A kind of row. What is constrained or searched is a column; all else is a JSON body, so that a new field needs no migration.
pub trait Resource: Serialize + DeserializeOwned + Clone + Send + Sync + Unpin + 'static {
    /// What it is.
    const KIND: Kind;
    /// Its table.
    const TABLE: &'static str;
    /// The columns it has beside those of [`Meta`].
    const COLUMNS: &'static [&'static str];
    /// What it can be filtered by.
    const FIELDS: &'static [Field] = &[ID, NAME, LABELS];

    /// What every row has.
    fn meta(&self) -> &Meta;
    /// What every row has.
    fn meta_mut(&mut self) -> &mut Meta;
    /// The values of [`Self::COLUMNS`], in their order.
    fn columns(&self) -> Vec<Value>;
}

/// Implements [`Resource`] for a row type with a field `meta`.
macro_rules! resource {
    ($type:ty, $kind:ident, $table:literal, |$row:ident| { $($column:literal: $value:expr),* $(,)? } $(, fields: $fields:expr)?) => {
        impl $crate::model::Resource for $type {
            const KIND: $crate::Kind = $crate::Kind::$kind;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[$($column),*];
            $(const FIELDS: &'static [$crate::filter::Field] = $fields;)?

            fn meta(&self) -> &$crate::model::Meta {
                &self.meta
            }

            fn meta_mut(&mut self) -> &mut $crate::model::Meta {
                &mut self.meta
            }

            fn columns(&self) -> Vec<$crate::model::Value> {
                #[allow(unused_variables)]
                let $row = self;
                vec![$($value),*]
            }
        }
    };
}
pub(super) use resource;
