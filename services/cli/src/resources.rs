//! What every kind of resource can do: be printed, fetched, listed, deleted, waited for. One file per kind says how.

mod api_key;
mod authority;
mod event;
pub mod follow;
mod host;
mod image;
mod instance;
mod instance_type;
mod join_token;
mod orphan;
mod port;
mod project;
mod quota;
mod snapshot;
pub mod subnet;
mod volume;
mod vpc;

use std::{collections::BTreeMap, future::Future, time::SystemTime};

use serde::Serialize;
use tonic::Status;

use crate::{connect::Cloud, output::human};

/// From when it is seen.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// What ages are counted to.
    pub now: SystemTime,
}

/// How a status feels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Needs somebody.
    Bad,
    /// Neither.
    Plain,
}

/// Something that can be printed.
pub trait Resource: Serialize {
    /// The noun of the command line.
    const KIND: &'static str;
    /// The field of a list answer.
    const PLURAL: &'static str;
    /// The columns of a table.
    const COLUMNS: &'static [&'static str];
    /// One cell for each column; empty where there is nothing.
    fn row(&self, view: View) -> Vec<String>;
    /// Everything, in lines of label and text.
    fn details(&self, view: View) -> Vec<(&'static str, String)>;
    /// How its status feels.
    fn tone(&self) -> Tone {
        Tone::Plain
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Default)]
pub struct PageOf {
    /// At most so many.
    pub size: i32,
    /// `next_page_token` of the page before.
    pub token: String,
    /// Also what was deleted and is still kept.
    pub show_deleted: bool,
    /// Only those that it means.
    pub filter: String,
    /// In which order.
    pub order_by: String,
}

/// A page and the token of the next.
pub type Page<R> = Result<(Vec<R>, String), Status>;

/// Something that can be fetched by id or name.
pub trait Fetch: Resource + Sized {
    /// Where it is looked for beside the project: subnets live in a VPC.
    type Scope: Clone;
    /// Fetches it.
    fn fetch(cloud: &Cloud, scope: &Self::Scope, id: &str) -> impl Future<Output = Result<Self, Status>>;
}

/// Something that can be listed.
pub trait Listed: Resource + Sized {
    /// Sends a page.
    fn page(cloud: &Cloud, page: PageOf) -> impl Future<Output = Page<Self>>;
}

/// Something that can be deleted.
pub trait Delete: Fetch {
    /// Deletes it, and answers with it as last seen.
    fn delete(cloud: &Cloud, scope: &Self::Scope, id: &str) -> impl Future<Output = Result<Self, Status>>;
}

/// Something with a status that changes by itself.
pub trait Watched: Fetch {
    /// Its id.
    fn id(&self) -> &str;
    /// Its status as users see it.
    fn status_name(&self) -> String;
    /// Why.
    fn status_reason(&self) -> &str;
    /// Whether it is in ERROR.
    fn is_error(&self) -> bool;
    /// Whether it is DELETED.
    fn is_deleted(&self) -> bool;
}

/// `KEY=VALUE, …` in the order of the keys.
fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}

/// The lines that close the details of most resources.
fn times<'a>(
    view: View,
    stamps: impl IntoIterator<Item = (&'static str, Option<&'a prost_types::Timestamp>)>,
) -> Vec<(&'static str, String)> {
    let line = |(label, stamp): (&'static str, Option<&prost_types::Timestamp>)| {
        stamp.map(|stamp| (label, human::time(Some(stamp), view.now)))
    };
    stamps.into_iter().filter_map(line).collect()
}

/// `yes` or `no`.
fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// A size in bytes that the contract carries signed.
fn size(bytes: i64) -> String {
    match u64::try_from(bytes) {
        Ok(0) | Err(_) => String::new(),
        Ok(bytes) => human::bytes(bytes),
    }
}
