//! Hosts.

use cloud_contracts::v1::{Agent, GetHostRequest, Host, HostPool, ListHostsRequest, host::State};
use tonic::Status;

use super::{Fetch, Listed, Page, PageOf, Resource, Tone, View, labels, times};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Host {
    const KIND: &'static str = "host";
    const PLURAL: &'static str = "hosts";
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "INSTANCES", "VCPUS", "MEMORY", "DISK FREE", "ACCELERATOR", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        let free = self.pools.iter().map(|pool| pool.free_bytes).sum();
        vec![
            self.name.clone(),
            self.state().as_str_name().to_owned(),
            self.instances.to_string(),
            format!("{}/{}", self.vcpus_used, self.vcpus),
            format!("{}/{}", human::mib(self.memory_used_mib), human::mib(self.memory_mib)),
            human::bytes(free),
            self.accelerator.clone(),
            human::age(self.created_at.as_ref(), view.now),
            self.id.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("State", self.state().as_str_name().to_owned()),
        ];
        if !self.state_reason.is_empty() {
            lines.push(("Reason", self.state_reason.clone()));
        }
        lines.extend([
            ("Instances", self.instances.to_string()),
            ("vCPUs", promised_vcpus(self)),
            ("Memory", promised_memory(self)),
            ("Load", describe_load(self)),
        ]);
        lines.extend(self.pools.iter().map(|pool| ("Pool", describe_pool(pool))));
        lines.extend(self.agents.iter().map(|agent| ("Agent", describe_agent(agent, view))));
        lines.extend([
            ("Hypervisor", self.hypervisor.clone()),
            ("Accelerator", self.accelerator.clone()),
            ("Architecture", self.architecture.clone()),
            ("Datapath", self.datapath.clone()),
            ("Switch", self.switch_version.clone()),
            ("Tunnels", self.tunnel_address.clone()),
            ("Labels", labels(&self.labels)),
        ]);
        if self.orphans > 0 {
            lines.push(("Orphans", format!("{} (see `cloud host orphan ls`)", self.orphans)));
        }
        lines.extend(times(
            view,
            [
                ("Inventory", self.inventoried_at.as_ref()),
                ("Created", self.created_at.as_ref()),
                ("Updated", self.updated_at.as_ref()),
                ("Deleted", self.deleted_at.as_ref()),
            ],
        ));
        lines
    }

    fn tone(&self) -> Tone {
        match self.state() {
            State::Up => Tone::Good,
            State::Unreachable | State::Fenced => Tone::Bad,
            State::Cordoned | State::Draining => Tone::Busy,
            State::Removed | State::Unspecified => Tone::Plain,
        }
    }
}

fn promised_vcpus(host: &Host) -> String {
    let (has, kept, percent) = (host.vcpus, host.vcpus_reserved, host.vcpu_overcommit_percent);
    let kept = if kept == 0 { String::new() } else { format!(" less {kept}") };
    format!("{} of {} promised ({has} threads{kept}, at {percent} %)", host.vcpus_used, host.vcpus_promisable)
}

fn promised_memory(host: &Host) -> String {
    let (has, kept) = (human::mib(host.memory_mib), host.memory_reserved_mib);
    let kept = if kept == 0 { String::new() } else { format!(" less {}", human::mib(kept)) };
    let (used, all) = (human::mib(host.memory_used_mib), human::mib(host.memory_promisable_mib));
    format!("{used} of {all} promised ({has}{kept}, at {} %)", host.memory_overcommit_percent)
}

fn describe_load(host: &Host) -> String {
    let loads = [host.load1_hundredths, host.load5_hundredths, host.load15_hundredths];
    loads.map(|load| format!("{}.{:02}", load / 100, load % 100)).join(", ")
}

fn describe_pool(pool: &HostPool) -> String {
    let (free, total) = (human::bytes(pool.free_bytes), human::bytes(pool.total_bytes));
    format!("{} ({}), {free} of {total} free", pool.name, pool.backend)
}

fn describe_agent(agent: &Agent, view: View) -> String {
    let reach = if agent.reachable { "answers" } else { "does not answer" };
    let seen = human::age(agent.last_heartbeat_at.as_ref(), view.now);
    let mut text = format!("{} {}, {reach}, last seen {seen} ago", agent.role, agent.version);
    if !agent.backend_error.is_empty() {
        text.push_str(": ");
        text.push_str(&agent.backend_error);
    }
    text
}

impl Fetch for Host {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.hosts().get_host(ask(GetHostRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Host {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListHostsRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
        };
        let answer = cloud.hosts().list_hosts(ask(request)).await?.into_inner();
        Ok((answer.hosts, answer.next_page_token))
    }
}
