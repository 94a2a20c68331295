//! What is on the hosts, against what the API says there is.

use std::collections::{BTreeMap, BTreeSet};

use cloud_contracts::agent::PowerState;
use cloud_testkit::{SimHost, sim::Snapshot};

use crate::history::{Kind, Seen};

/// Every difference between intended and actual. `all`: every live row of every kind, root disks among them.
pub fn differences(all: &[Seen], hosts: &[SimHost]) -> Vec<String> {
    let mut wrong = Vec::new();
    let live: BTreeMap<&str, &Seen> = all.iter().filter(|s| !s.dead).map(|s| (s.id.as_str(), s)).collect();
    let snapshots: Vec<(&str, Snapshot)> = hosts.iter().map(|h| (h.name(), h.snapshot())).collect();
    for seen in live.values() {
        match seen.key.kind {
            Kind::Instance => instance(seen, &snapshots, &mut wrong),
            Kind::Volume => volume(seen, &snapshots, &mut wrong),
            Kind::Vpc | Kind::Subnet => {}
        }
    }
    let instances = live.values().filter_map(|s| s.claims.as_ref());
    let had: BTreeSet<&str> = instances.flat_map(|claims| claims.volumes.iter().map(String::as_str)).collect();
    for seen in live.values().filter(|s| s.key.kind == Kind::Volume) {
        let is_had = had.contains(seen.id.as_str());
        if (seen.status == "AVAILABLE" && is_had) || (seen.status == "IN_USE" && !is_had) {
            wrong.push(format!("{} ({}) is {} and an instance has it: {is_had}", seen.key, seen.id, seen.status));
        }
    }
    let of_kind = |id: &String, kind| live.get(id.as_str()).is_some_and(|s| s.key.kind == kind);
    let ports: BTreeSet<(&str, &str)> = live
        .values()
        .filter_map(|s| s.claims.as_ref())
        .flat_map(|c| c.ports.iter().map(|p| (c.host.as_str(), p.as_str())))
        .collect();
    for (host, has) in &snapshots {
        let mut left = |what: &str, id: &String| wrong.push(format!("host {host} still has {what} {id}"));
        has.domains.keys().filter(|id| !of_kind(id, Kind::Instance)).for_each(|id| left("domain", id));
        has.volumes.keys().filter(|id| !of_kind(id, Kind::Volume)).for_each(|id| left("volume", id));
        has.vpcs
            .iter()
            .filter(|(id, v)| !of_kind(id, Kind::Vpc) || v.plugged.is_empty() && v.ports.is_empty())
            .for_each(|(id, _)| left("VPC", id));
        let plugged = has.vpcs.values().flat_map(|v| v.plugged.keys());
        plugged.filter(|id| !ports.contains(&(*host, id.as_str()))).for_each(|id| left("port", id));
    }
    wrong
}

/// What hosts saw of their gateways that a correct one never does.
pub fn violations(hosts: &[SimHost]) -> Vec<String> {
    let of = |host: &SimHost| {
        let remade = host.snapshot().volumes.into_iter().filter(|(_, v)| v.created > 1);
        let remade = remade.map(|(id, _)| format!("volume {id} was made anew"));
        host.violations().into_iter().chain(remade).map(|v| format!("host {}: {v}", host.name())).collect::<Vec<_>>()
    };
    hosts.iter().flat_map(of).collect()
}

fn instance(seen: &Seen, snapshots: &[(&str, Snapshot)], wrong: &mut Vec<String>) {
    let name = format!("{} ({})", seen.key, seen.id);
    let domains: Vec<_> = snapshots.iter().filter_map(|(h, s)| s.domains.get(&seen.id).map(|d| (*h, d))).collect();
    for (host, _) in domains.iter().filter(|(host, _)| *host != seen.host) {
        wrong.push(format!("{name} is on host {host} and belongs on {}", seen.host));
    }
    let runs = domains.iter().filter(|(_, d)| d.is_active()).count();
    match seen.status.as_str() {
        "RUNNING" => {
            if !matches!(domains[..], [(_, domain)] if domain.power == PowerState::Running) {
                wrong.push(format!("{name} is RUNNING and {runs} of {} domains run", domains.len()));
            }
            let shall: BTreeSet<&str> = seen.claims.iter().flat_map(|c| c.volumes.iter().map(String::as_str)).collect();
            for (_, domain) in &domains {
                let has: BTreeSet<&str> = domain.spec.disks.iter().map(|disk| disk.volume_id.as_str()).collect();
                if has != shall {
                    wrong.push(format!("{name} has the disks {has:?} and is to have {shall:?}"));
                }
            }
            let plugged = |port: &String| {
                snapshots.iter().any(|(h, s)| *h == seen.host && s.vpcs.values().any(|v| v.plugged.contains_key(port)))
            };
            let ports = seen.claims.iter().flat_map(|c| &c.ports);
            ports.filter(|p| !plugged(p)).for_each(|port| wrong.push(format!("{name}: port {port} is not plugged")));
        }
        "STOPPED" if runs == 0 => {}
        other => wrong.push(format!("{name} is {other} ({}) and {runs} domains run", seen.reason)),
    }
}

fn volume(seen: &Seen, snapshots: &[(&str, Snapshot)], wrong: &mut Vec<String>) {
    let there: Vec<&str> =
        snapshots.iter().filter(|(_, s)| s.volumes.contains_key(&seen.id)).map(|(host, _)| *host).collect();
    let right = match seen.status.as_str() {
        // Of an instance that was stopped before it ran: made or not.
        "CREATING" => there.is_empty() || there == [seen.host.as_str()],
        "AVAILABLE" | "IN_USE" if seen.host.is_empty() => there.is_empty(),
        "AVAILABLE" | "IN_USE" => there == [seen.host.as_str()],
        _ => false,
    };
    if !right {
        wrong
            .push(format!("{} ({}) is {} on host `{}`, found on {there:?}", seen.key, seen.id, seen.status, seen.host));
    }
}
