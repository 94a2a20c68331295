//! What the parts of a simulated host share.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use super::{Faults, Method, Role, model::Model, serve::Owned};

/// How many are kept.
const TRACES: usize = 64;

/// The state behind a host's agents. The agents come and go; this stays.
#[derive(Debug)]
pub(crate) struct Shared {
    pub id: String,
    pub name: String,
    pub pool_id: String,
    pub faults: Faults,
    /// The guests' own doings, such as taking their time to shut down.
    pub guests: Owned,
    pub(super) dir: PathBuf,
    pub(super) gateways: Vec<Channel>,
    pub(super) model: Mutex<Model>,
    pub(super) calls: Mutex<BTreeMap<Method, u64>>,
    /// The last [`TRACES`] `traceparent`s of each method.
    pub(super) traces: Mutex<BTreeMap<String, VecDeque<String>>>,
    pub(super) settings: Mutex<Settings>,
    pub(super) partitioned: watch::Sender<bool>,
    pub(super) hurry: Notify,
}

/// What tests may change while the host runs.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub guest_shutdown: Option<Duration>,
    pub boot_id: String,
}

impl Shared {
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn calls(&self) -> MutexGuard<'_, BTreeMap<Method, u64>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn socket(&self, role: Role) -> PathBuf {
        self.dir.join(format!("{}-{role}.sock", self.name))
    }

    pub fn gateways(&self) -> Vec<Channel> {
        self.gateways.clone()
    }

    pub fn count(&self, method: Method) {
        *self.calls().entry(method).or_default() += 1;
    }

    pub fn traces(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<String>>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which trace a call belongs to. Its path ends with the method's name.
    pub fn note_trace(&self, path: &str, headers: &HeaderMap) {
        let trace = headers.get("traceparent").and_then(|t| t.to_str().ok());
        if let (Some((_, method)), Some(trace)) = (path.rsplit_once('/'), trace) {
            let mut traces = self.traces();
            let seen = traces.entry(method.to_owned()).or_default();
            seen.push_back(trace.to_owned());
            if seen.len() > TRACES {
                seen.pop_front();
            }
        }
    }

    pub fn guest_shutdown_time(&self) -> Option<Duration> {
        self.settings().guest_shutdown
    }

    pub fn boot_id(&self) -> String {
        self.settings().boot_id.clone()
    }

    /// Waits while the network between the host and the gateway is cut.
    pub async fn reachable(&self) {
        let mut partitioned = self.partitioned.subscribe();
        // Fails only where the sender is gone, and it is here.
        let _never = partitioned.wait_for(|cut| !cut).await;
    }

    /// Waits for the next heartbeat, or until something is worth an early one.
    pub async fn heartbeat_due(&self, interval: Duration) {
        // Whichever comes first.
        let _elapsed = tokio::time::timeout(interval, self.hurry.notified()).await;
    }
}
