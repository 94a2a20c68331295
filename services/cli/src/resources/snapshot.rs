//! Snapshots.

use cloud_contracts::v1::{
    DeleteSnapshotRequest, GetSnapshotRequest, ListSnapshotsRequest, Snapshot, snapshot::Status as State,
};
use tonic::Status;

use super::{Delete, Fetch, Listed, Page, PageOf, Resource, Tone, View, Watched, labels, times};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Snapshot {
    const KIND: &'static str = "snapshot";
    const PLURAL: &'static str = "snapshots";
    const COLUMNS: &'static [&'static str] = &["NAME", "STATUS", "VOLUME", "SIZE", "HOST", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.status_name(),
            self.volume.clone(),
            format!("{} GiB", self.size_gib),
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
            ("Volume", self.volume.clone()),
            ("Size", format!("{} GiB", self.size_gib)),
            ("Host", self.host.clone()),
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
            State::Available => Tone::Good,
            State::Creating | State::Deleting => Tone::Busy,
            State::Error => Tone::Bad,
            State::Deleted | State::Unspecified => Tone::Plain,
        }
    }
}

impl Fetch for Snapshot {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.snapshots().get_snapshot(ask(GetSnapshotRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Snapshot {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListSnapshotsRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
            show_deleted: page.show_deleted,
        };
        let answer = cloud.snapshots().list_snapshots(ask(request)).await?.into_inner();
        Ok((answer.snapshots, answer.next_page_token))
    }
}

impl Delete for Snapshot {
    async fn delete(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        let request = DeleteSnapshotRequest { id: id.to_owned(), ..Default::default() };
        Ok(cloud.snapshots().delete_snapshot(ask(request)).await?.into_inner())
    }
}

impl Watched for Snapshot {
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
