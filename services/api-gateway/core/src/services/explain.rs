//! Why an instance is in its state, and why it is where it is.

use std::time::Duration;

use super::{HostRegistry, lookup::any};
use crate::{
    CoreError,
    model::{Caller, Desired, DiskChange, Instance, Port, Timestamp, Volume},
    ports::{Query, Store, WorkKind},
};

/// An instance, explained.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Its row.
    pub row: Instance,
    /// How it was placed, in words.
    pub placement: String,
    /// The present state of each of its parts, in words.
    pub parts: Vec<String>,
    /// Why its work failed last; empty: it did not.
    pub last_error: String,
    /// Tries since its work last succeeded.
    pub attempts: u32,
    /// When its work is tried next; none: there is nothing to do.
    pub next_attempt_at: Option<Timestamp>,
}

pub(super) async fn explain<S: Store>(
    store: &S,
    registry: &HostRegistry,
    caller: &Caller,
    id: &str,
) -> Result<Explanation, CoreError> {
    let row: Instance = any(store, caller.project, id).await?;
    let volumes: Vec<Volume> = store.list(&Query::by("instance_id", &row.id())).await?;
    let ports: Vec<Port> = store.list(&Query::by("instance_id", &row.id())).await?;
    let mut parts = vec![intent(&row), host(registry, &row)];
    for volume in &volumes {
        parts.push(of_volume(volume, &row));
    }
    for port in &ports {
        let generation = store.vpc_generation(port.vpc).await?;
        parts.push(of_port(port, generation));
    }
    parts.push(guest(&row));
    let work = store.work(WorkKind::Instance, row.meta.id).await?;
    let now = Timestamp::now();
    Ok(Explanation {
        placement: placement(&row),
        parts: parts
            .into_iter()
            .chain(work.as_ref().filter(|w| w.is_under_way).map(|_| "work: under way".into()))
            .collect(),
        last_error: work.as_ref().and_then(|w| w.last_error.clone()).unwrap_or_default(),
        attempts: work.as_ref().map(|w| w.attempts).unwrap_or_default(),
        next_attempt_at: work.and_then(|w| w.due_in).map(|wait: Duration| now.plus(wait)),
        row,
    })
}

fn placement(row: &Instance) -> String {
    let Some(placed) = &row.placed else {
        return format!("on host {}, by a release that did not remember why", row.host_name);
    };
    let chosen = placed.candidates.iter().find(|c| c.chosen);
    let why = chosen.map_or_else(String::new, |c| {
        let image = if c.cached { "it had the image" } else { "the image had to be sent there" };
        let group = match (row.anti_affinity_group.as_str(), c.group) {
            ("", _) => String::new(),
            (group, there) => format!(", with {there} instances of group `{group}`"),
        };
        format!(": it was {}.{} % full, {image}{group}", c.fill / 10, c.fill % 10)
    });
    format!(
        "on host {} by {}, of {} hosts of which {} passed the filters{why}",
        row.host_name, placed.strategy, placed.hosts, placed.fitting
    )
}

fn intent(row: &Instance) -> String {
    let shall = match row.desired {
        Desired::Running => "run",
        Desired::Stopped => "be stopped",
        Desired::Deleted => "be gone",
        Desired::Cleaned => "have nothing left on its host: it could not be provisioned",
    };
    let why = if row.status_reason.is_empty() { String::new() } else { format!(": {}", row.status_reason) };
    format!("instance: {}, shall {shall}, version {}{why}", row.status, row.meta.version)
}

fn host(registry: &HostRegistry, row: &Instance) -> String {
    let (state, why) = registry.state(row.host);
    let why = if why.is_empty() { why } else { format!(": {why}") };
    format!("host {}: {}{why}", row.host_name, state.as_str())
}

fn of_volume(volume: &Volume, row: &Instance) -> String {
    let kind = if volume.root { "root disk" } else { "volume" };
    let place =
        if volume.host_name.is_empty() { "no host yet".to_owned() } else { format!("host {}", volume.host_name) };
    let (name, status, size) = (&volume.meta.name, volume.status.as_str(), volume.size.get());
    let why = if volume.status_reason.is_empty() { String::new() } else { format!(": {}", volume.status_reason) };
    let change = match row.disks.iter().find(|disk| disk.volume == volume.id()).and_then(|disk| disk.change) {
        Some(DiskChange::Attaching) => ", being attached",
        Some(DiskChange::Detaching) => ", being detached",
        Some(DiskChange::Limiting) => ", being given other limits",
        None => "",
    };
    let limits = volume.limits;
    format!("{kind} {name}: {status}{change}, {size} GiB, {limits}, pool `{}` on {place}{why}", volume.pool)
}

fn of_port(port: &Port, generation: Option<u64>) -> String {
    let does = if port.removing { "being unplugged" } else { "to be plugged" };
    let generation = generation.map(|g| format!(", generation {g} of the VPC")).unwrap_or_default();
    let (mac, ip, vpc, subnet) = (port.mac, port.ip, &port.vpc_name, &port.subnet_name);
    format!("port {ip} ({mac}): {does} on host {}, VPC {vpc}, subnet {subnet}{generation}", port.host_name)
}

fn guest(row: &Instance) -> String {
    let ran = match (row.started_at, row.has_run) {
        (Some(_), _) => "was last reported running",
        (None, true) => "has run, and was last reported not to",
        (None, false) => "has not run yet",
    };
    let reboots = match row.boot_generation.saturating_sub(row.booted_generation) {
        0 => String::new(),
        _ => format!(", reboot {} of {} under way", row.booted_generation + 1, row.boot_generation),
    };
    format!("guest: {ran}; start {}{reboots}", row.incarnation)
}
