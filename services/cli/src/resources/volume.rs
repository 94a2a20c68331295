//! Volumes.

use cloud_contracts::v1::{DeleteVolumeRequest, GetVolumeRequest, ListVolumesRequest, Volume, volume::Status as State};
use tonic::Status;

use super::{Delete, Fetch, Listed, Page, PageOf, Resource, Tone, View, Watched, labels, times, yes};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

/// What it has, and what it is being grown to.
fn size(volume: &Volume) -> String {
    match volume.growing_to_gib {
        0 => format!("{} GiB", volume.size_gib),
        to => format!("{} GiB, to be {to}", volume.size_gib),
    }
}

/// How much its guest may do with it in a second, and whether it has that yet; empty: as much as it can.
fn limits(volume: &Volume) -> String {
    let limits = match (volume.iops, volume.mb_per_second) {
        (0, 0) => String::new(),
        (iops, 0) => format!("{iops} IOPS"),
        (0, mb) => format!("{mb} MB/s"),
        (iops, mb) => format!("{iops} IOPS, {mb} MB/s"),
    };
    match (volume.limits_pending, limits.as_str()) {
        (false, _) => limits,
        (true, "") => "none, not yet in its guest".to_owned(),
        (true, limits) => format!("{limits}, not yet in its guest"),
    }
}

impl Resource for Volume {
    const KIND: &'static str = "volume";
    const PLURAL: &'static str = "volumes";
    const COLUMNS: &'static [&'static str] = &["NAME", "STATUS", "SIZE", "INSTANCE", "ROOT", "HOST", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.status_name(),
            size(self),
            self.instance.clone(),
            yes(self.root),
            self.host.clone(),
            human::age(self.created_at.as_ref(), view.now),
            self.id.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Name", self.name.clone()), ("Id", self.id.clone()), ("Status", self.status_name())];
        if !self.status_reason.is_empty() {
            lines.push(("Reason", self.status_reason.clone()));
        }
        lines.extend([
            ("Project", self.project.clone()),
            ("Size", size(self)),
            ("Limits", limits(self)),
            ("Instance", self.instance.clone()),
            ("Root disk", yes(self.root)),
            ("Host", self.host.clone()),
            ("Pool", self.pool.clone()),
            ("Image", self.image.clone()),
            ("Snapshot", self.snapshot.clone()),
            ("Copy of", self.source_volume.clone()),
            ("Labels", labels(&self.labels)),
        ]);
        lines.extend(times(
            view,
            [
                ("Created", self.created_at.as_ref()),
                ("Updated", self.updated_at.as_ref()),
                ("Deleted", self.deleted_at.as_ref()),
            ],
        ));
        lines
    }

    fn tone(&self) -> Tone {
        match self.status() {
            State::Available | State::InUse => Tone::Good,
            State::Creating | State::Deleting => Tone::Busy,
            State::Error => Tone::Bad,
            State::Deleted | State::Unspecified => Tone::Plain,
        }
    }
}

impl Fetch for Volume {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.volumes().get_volume(ask(GetVolumeRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Volume {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListVolumesRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
            show_deleted: page.show_deleted,
        };
        let answer = cloud.volumes().list_volumes(ask(request)).await?.into_inner();
        Ok((answer.volumes, answer.next_page_token))
    }
}

impl Delete for Volume {
    async fn delete(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        let request = DeleteVolumeRequest { id: id.to_owned(), ..Default::default() };
        Ok(cloud.volumes().delete_volume(ask(request)).await?.into_inner())
    }
}

impl Watched for Volume {
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
