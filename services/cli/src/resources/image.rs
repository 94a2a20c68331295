//! Images.

use cloud_contracts::v1::{
    DeleteImageRequest, GetImageRequest, Image, ListImagesRequest,
    image::{Format, Status as State, Visibility},
};
use tonic::Status;

use super::{Delete, Fetch, Listed, Page, PageOf, Resource, Tone, View, Watched, labels, size, times};
use crate::{
    connect::{Cloud, ask},
    output::human,
};

impl Resource for Image {
    const KIND: &'static str = "image";
    const PLURAL: &'static str = "images";
    const COLUMNS: &'static [&'static str] = &["NAME", "STATUS", "FORMAT", "SIZE", "DISK", "VISIBILITY", "AGE", "ID"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.status_name(),
            format(self),
            size(self.size_bytes),
            size(self.virtual_size_bytes),
            visibility(self),
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
            ("Visibility", visibility(self)),
            ("Format", format(self)),
            ("Architecture", self.architecture.clone()),
            ("Size", size(self.size_bytes)),
            ("Disk size", size(self.virtual_size_bytes)),
            ("SHA-256", self.sha256.clone()),
            ("Source", self.source.clone()),
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
            State::Ready => Tone::Good,
            State::Importing | State::Deleting => Tone::Busy,
            State::Error => Tone::Bad,
            State::Deleted | State::Unspecified => Tone::Plain,
        }
    }
}

/// The format, where it is known already.
fn format(image: &Image) -> String {
    match image.format() {
        Format::Unspecified => String::new(),
        known => known.as_str_name().to_owned(),
    }
}

fn visibility(image: &Image) -> String {
    match image.visibility() {
        Visibility::Unspecified => String::new(),
        known => known.as_str_name().to_owned(),
    }
}

impl Fetch for Image {
    type Scope = ();
    async fn fetch(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        Ok(cloud.images().get_image(ask(GetImageRequest { id: id.to_owned() })).await?.into_inner())
    }
}

impl Listed for Image {
    async fn page(cloud: &Cloud, page: PageOf) -> Page<Self> {
        let request = ListImagesRequest {
            page_size: page.size,
            page_token: page.token,
            filter: page.filter,
            order_by: page.order_by,
            show_deleted: page.show_deleted,
        };
        let answer = cloud.images().list_images(ask(request)).await?.into_inner();
        Ok((answer.images, answer.next_page_token))
    }
}

impl Delete for Image {
    async fn delete(cloud: &Cloud, (): &(), id: &str) -> Result<Self, Status> {
        let request = DeleteImageRequest { id: id.to_owned(), ..Default::default() };
        Ok(cloud.images().delete_image(ask(request)).await?.into_inner())
    }
}

impl Watched for Image {
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
