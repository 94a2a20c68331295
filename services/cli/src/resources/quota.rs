//! Quotas of projects.

use cloud_contracts::v1::{GetQuotaRequest, Quota};
use tonic::Status;

use super::{Fetch, Resource, View};
use crate::connect::{Cloud, ask};

/// What is limited: its column, its label, its name in the contract.
const LIMITED: [(&str, &str, &str); 7] = [
    ("INSTANCES", "Instances", "instances"),
    ("VCPUS", "vCPUs", "vcpus"),
    ("MEMORY MIB", "Memory MiB", "memory_mib"),
    ("VOLUME GIB", "Volume GiB", "volume_gib"),
    ("SNAPSHOTS", "Snapshots", "snapshots"),
    ("VPCS", "VPCs", "vpcs"),
    ("FLOATING IPS", "Floating IPs", "floating_ips"),
];

/// What is used, and of how much.
fn of(quota: &Quota, name: &str) -> String {
    let used = quota.used.get(name).copied().unwrap_or(0);
    match quota.limits.get(name) {
        Some(limit) => format!("{used}/{limit}"),
        None => format!("{used}/none"),
    }
}

impl Resource for Quota {
    const KIND: &'static str = "quota";
    const PLURAL: &'static str = "quotas";
    const COLUMNS: &'static [&'static str] =
        &["PROJECT", LIMITED[0].0, LIMITED[1].0, LIMITED[2].0, LIMITED[3].0, LIMITED[4].0, LIMITED[5].0, LIMITED[6].0];

    fn row(&self, _view: View) -> Vec<String> {
        let all = LIMITED.iter().map(|(_, _, name)| of(self, name));
        std::iter::once(self.project.clone()).chain(all).collect()
    }

    fn details(&self, _view: View) -> Vec<(&'static str, String)> {
        let all = LIMITED.iter().map(|(_, label, name)| (*label, of(self, name)));
        std::iter::once(("Project", self.project.clone())).chain(all).collect()
    }
}

impl Fetch for Quota {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.quotas().get_quota(ask(GetQuotaRequest { project: id.to_owned() })).await?.into_inner())
    }
}
