//! Instances.

use cloud_contracts::v1::{
    DeleteInstanceRequest, GetInstanceRequest, Instance, ListInstancesRequest,
    instance::{RestartPolicy, Status as State},
    instance_volume::State as VolumeState,
};
use tonic::Status;

use super::{Delete, Fetch, Listed, Page, PageOf, Resource, Tone, View, Watched, labels, times, yes};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Instance {
    const KIND: &'static str = "instance";
    const PLURAL: &'static str = "instances";
    const COLUMNS: &'static [&'static str] = &["NAME", "STATUS", "TYPE", "IP", "IMAGE", "HOST", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.status_name(),
            self.instance_type.clone(),
            self.ports.iter().map(|port| port.ip.as_str()).collect::<Vec<_>>().join(","),
            self.image.clone(),
            host(self),
            human::age(self.created_at.as_ref(), view.now),
            self.id.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Name", self.name.clone()), ("Id", self.id.clone()), ("Status", self.status_name())];
        if !self.status_reason.is_empty() {
            lines.push(("Reason", self.status_reason.clone()));
        }
        if self.desired_status != self.status {
            lines.push(("Wanted", self.desired_status().as_str_name().to_owned()));
        }
        lines.extend([
            ("Project", self.project.clone()),
            ("Image", self.image.clone()),
            ("Type", format!("{} ({} vCPU, {})", self.instance_type, self.vcpus, human::mib(self.memory_mib.into()))),
            ("Host", host(self)),
        ]);
        for port in &self.ports {
            let floating = if port.floating_ip.is_empty() { "" } else { ", floating " };
            lines.push((
                "Port",
                format!(
                    "{}{floating}{} on {}/{} ({}, {})",
                    port.ip, port.floating_ip, port.vpc, port.subnet, port.mac, port.id
                ),
            ));
        }
        for port in &self.published_ports {
            lines.push(("Published", format!("{} -> {}/{}", port.host_port, port.guest_port, port.protocol)));
        }
        for volume in &self.volumes {
            let is = match volume.state() {
                VolumeState::Attaching => ", being attached",
                VolumeState::Detaching => ", being detached",
                _ if volume.root => ", root",
                _ => "",
            };
            lines.push(("Volume", format!("{} ({} GiB{is}, {})", volume.name, volume.size_gib, volume.id)));
        }
        lines.extend([
            ("Restart", restart(self).to_owned()),
            ("SSH keys", self.ssh_keys.len().to_string()),
            ("User data", format!("{} bytes", self.user_data.len())),
            ("Labels", labels(&self.labels)),
            ("Console", yes(self.console_available)),
        ]);
        lines.extend(times(
            view,
            [
                ("Started", self.started_at.as_ref()),
                ("Created", self.created_at.as_ref()),
                ("Updated", self.updated_at.as_ref()),
                ("Deleted", self.deleted_at.as_ref()),
            ],
        ));
        lines
    }

    fn tone(&self) -> Tone {
        match self.status() {
            State::Running => Tone::Good,
            State::Error => Tone::Bad,
            State::Starting | State::Stopping | State::Deleting | State::Migrating | State::Paused => Tone::Busy,
            State::Stopped | State::Deleted | State::Unspecified => Tone::Plain,
        }
    }
}

/// What happens when its guest ends by itself, as `--restart` takes it.
fn restart(instance: &Instance) -> &'static str {
    match instance.restart_policy() {
        RestartPolicy::Unspecified | RestartPolicy::Never => "never",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Always => "always",
    }
}

/// The host's name, and whether what is shown is only what was last known.
fn host(instance: &Instance) -> String {
    if instance.host.is_empty() || instance.host_reachable {
        instance.host.clone()
    } else {
        format!("{} (unreachable)", instance.host)
    }
}

impl Fetch for Instance {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.instances().get_instance(ask(GetInstanceRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Instance {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListInstancesRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
            show_deleted: page.show_deleted,
        };
        let answer = cloud.instances().list_instances(ask(request)).await?.into_inner();
        Ok((answer.instances, answer.next_page_token))
    }
}

impl Delete for Instance {
    async fn delete(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        let request = DeleteInstanceRequest { id: id.to_owned(), ..Default::default() };
        Ok(cloud.instances().delete_instance(ask(request)).await?.into_inner())
    }
}

impl Watched for Instance {
    fn id(&self) -> &str {
        &self.id
    }
    fn status_name(&self) -> String {
        self.status().as_str_name().to_owned()
    }
    fn status_reason(&self) -> &str {
        &self.status_reason
    }
    fn is_error(&self) -> bool {
        self.status() == State::Error
    }
    fn is_deleted(&self) -> bool {
        self.status() == State::Deleted
    }
}
