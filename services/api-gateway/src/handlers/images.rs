//! `cloud.v1.ImageService`, and uploads of both protocols.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cloud_contracts::v1::{
    self, image_service_server::ImageService, import_image_request::Source, upload_image_request::Message,
};
use cloud_core::{
    CoreError,
    model::{Image, ImageFormat, ImageSource, ImageStatus, Visibility},
    ports::{FetchError, Store},
    services::{NewImage, Services},
};
use cloud_domain::ImageId;
use cloud_rest::Subject;
use cloud_service_kit::ServiceError;
use futures::{Stream, StreamExt};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use tracing::Instrument;

use super::{
    RequestLog, error,
    watch::{answer, watch_request},
    wire::{caller, page_of, signed, time},
};
use crate::adapters::images::ImageFiles;

/// How long an upload may stand still.
const IDLE: Duration = Duration::from_secs(60);

/// The method's full name.
const UPLOAD: &str = "cloud.v1.ImageService.UploadImage";

/// Images over the core's service, and the gateway's image files.
pub struct Images<S> {
    services: Services<S>,
    files: Arc<ImageFiles>,
}

impl<S> Clone for Images<S>
where
    S: Clone,
{
    fn clone(&self) -> Self {
        Self { services: self.services.clone(), files: Arc::clone(&self.files) }
    }
}

impl<S: Store> Images<S> {
    /// The handler over the services and the files.
    pub fn new(services: Services<S>, files: Arc<ImageFiles>) -> Self {
        Self { services, files }
    }

    /// Takes an image whose bytes the caller sends. Answers when it is READY; a caller that goes away leaves nothing. An upload that
    /// repeats an earlier one, by its request id, is answered without its bytes being read.
    ///
    /// # Errors
    /// The header or the bytes are refused, the name is taken, or the bytes stop coming.
    pub async fn upload(
        &self,
        request: Request<v1::UploadImageHeader>,
        bytes: impl Stream<Item = Result<Bytes, Status>> + Send,
    ) -> Result<Response<v1::Image>, Status> {
        cloud_rest::check(request.get_ref())?;
        cloud_rest::once(
            &RequestLog(self.services.requests.clone()),
            UPLOAD,
            request,
            |header| std::mem::take(&mut header.request_id),
            |image: &v1::Image| image.id.as_str(),
            |request| self.receive(request, bytes),
            |request, id| self.get_image(request.map(|_| v1::GetImageRequest { id })),
        )
        .await
    }

    async fn receive(
        &self,
        request: Request<v1::UploadImageHeader>,
        bytes: impl Stream<Item = Result<Bytes, Status>> + Send,
    ) -> Result<Response<v1::Image>, Status> {
        let (caller, header) = (caller(&request)?, request.into_inner());
        let new = NewImage {
            source: ImageSource::Upload,
            format: format(header.format).map_err(error::status)?,
            visibility: visibility(header.visibility).map_err(error::status)?,
            name: header.name,
            sha256: header.sha256,
            labels: header.labels,
            architecture: header.architecture,
        };
        self.services.images.check_upload(&caller, &new).await.map_err(error::status)?;
        let id = ImageId::random();
        let mut upload = self.files.begin(id).await.map_err(refused)?;
        let mut bytes = std::pin::pin!(bytes);
        loop {
            match timeout(IDLE, bytes.next()).await {
                Ok(None) => break,
                Ok(Some(chunk)) => upload.write(chunk?).await.map_err(refused)?,
                Err(_) => {
                    let message = format!("no bytes came for {} s: upload the image again", IDLE.as_secs());
                    return Err(ServiceError::aborted("UPLOAD_STALLED", message).into());
                }
            }
        }
        // From here on it is not given up half-way when the caller goes: the file and the row belong together.
        let this = self.clone();
        let entering = async move {
            let file = this.files.finish(upload, new.format, &new.sha256).await.map_err(refused)?;
            this.services.images.uploaded(&caller, id, new, file).await.map_err(error::status)
        };
        let entered = tokio::spawn(entering.in_current_span()).await;
        let entered = entered.map_err(|panicked| Status::from(ServiceError::internal(panicked)))?;
        entered.map(|row| Response::new(wire(row)))
    }
}

#[tonic::async_trait]
impl<S: Store> ImageService for Images<S> {
    async fn import_image(&self, request: Request<v1::ImportImageRequest>) -> Result<Response<v1::Image>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let new = import(request).map_err(error::status)?;
        let made = self.services.images.import(&caller, new).await;
        made.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn upload_image(
        &self,
        request: Request<Streaming<v1::UploadImageRequest>>,
    ) -> Result<Response<v1::Image>, Status> {
        let subject = request.extensions().get::<Subject>().cloned().unwrap_or_default();
        let (metadata, extensions, mut messages) = request.into_parts();
        let Some(Message::Header(header)) = messages.message().await?.and_then(|m| m.message) else {
            return Err(ServiceError::invalid("header", "the first message is the image's header").into());
        };
        subject.set(&header.name);
        let bytes = messages.map(|message| match message?.message {
            Some(Message::Data(data)) => Ok(data),
            Some(Message::Header(_)) | None => {
                Err(ServiceError::invalid("data", "every message after the first carries bytes").into())
            }
        });
        self.upload(Request::from_parts(metadata, extensions, header), bytes).await
    }

    async fn get_image(&self, request: Request<v1::GetImageRequest>) -> Result<Response<v1::Image>, Status> {
        let caller = caller(&request)?;
        let found = self.services.images.get(&caller, &request.get_ref().id).await;
        found.map(|row| Response::new(wire(row))).map_err(error::status)
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let page = self.services.images.list(&caller, &page_of!(request)).await.map_err(error::status)?;
        let images = page.rows.into_iter().map(wire).collect();
        Ok(Response::new(v1::ListImagesResponse { images, next_page_token: page.next }))
    }

    async fn watch_images(
        &self,
        request: Request<v1::WatchImagesRequest>,
    ) -> Result<Response<BoxStream<v1::WatchImagesResponse>>, Status> {
        let (caller, watch) =
            (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, &request.get_ref().id));
        let watch = self.services.watch.images(&caller, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchImagesResponse, image, wire))
    }

    async fn delete_image(&self, request: Request<v1::DeleteImageRequest>) -> Result<Response<v1::Image>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let deleted = self.services.images.delete(&caller, &request.id, &request.etag).await;
        deleted.map(|row| Response::new(wire(row))).map_err(error::status)
    }
}

fn import(request: v1::ImportImageRequest) -> Result<NewImage, CoreError> {
    let source = match request.source {
        Some(Source::Url(url)) => {
            crate::adapters::images::check_url(&url).map_err(|e| CoreError::invalid("url", e))?;
            ImageSource::Url(url)
        }
        Some(Source::File(file)) => {
            crate::adapters::images::check_relative(&file).map_err(|e| CoreError::invalid("file", e))?;
            ImageSource::File(file)
        }
        None => return Err(CoreError::invalid("url", "say where the image is: set `url` or `file`")),
    };
    Ok(NewImage {
        source,
        format: format(request.format)?,
        visibility: visibility(request.visibility)?,
        name: request.name,
        sha256: request.sha256,
        labels: request.labels,
        architecture: request.architecture,
    })
}

fn format(number: i32) -> Result<Option<ImageFormat>, CoreError> {
    match v1::image::Format::try_from(number) {
        Ok(v1::image::Format::Unspecified) => Ok(None),
        Ok(v1::image::Format::Qcow2) => Ok(Some(ImageFormat::Qcow2)),
        Ok(v1::image::Format::Raw) => Ok(Some(ImageFormat::Raw)),
        Err(_) => Err(CoreError::invalid("format", format!("{number} is no format: use QCOW2 or RAW"))),
    }
}

fn visibility(number: i32) -> Result<Visibility, CoreError> {
    match v1::image::Visibility::try_from(number) {
        Ok(v1::image::Visibility::Unspecified | v1::image::Visibility::Private) => Ok(Visibility::Private),
        Ok(v1::image::Visibility::Public) => Ok(Visibility::Public),
        Err(_) => Err(CoreError::invalid("visibility", format!("{number} is no visibility: use PRIVATE or PUBLIC"))),
    }
}

fn refused(error: FetchError) -> Status {
    Status::from(match error {
        FetchError::Refused(message) => ServiceError::invalid("data", message),
        FetchError::Later(message) => ServiceError::unavailable("IMAGE_STORE", message),
    })
}

fn wire(row: Image) -> v1::Image {
    let status = match row.status {
        ImageStatus::Importing => v1::image::Status::Importing,
        ImageStatus::Ready => v1::image::Status::Ready,
        ImageStatus::Error => v1::image::Status::Error,
        ImageStatus::Deleting => v1::image::Status::Deleting,
        ImageStatus::Deleted => v1::image::Status::Deleted,
    };
    let format = match row.format {
        None => v1::image::Format::Unspecified,
        Some(ImageFormat::Qcow2) => v1::image::Format::Qcow2,
        Some(ImageFormat::Raw) => v1::image::Format::Raw,
    };
    let visibility = match row.visibility {
        Visibility::Private => v1::image::Visibility::Private,
        Visibility::Public => v1::image::Visibility::Public,
    };
    v1::Image {
        id: row.meta.id.to_string(),
        etag: row.meta.etag(),
        name: row.meta.name,
        project: row.meta.project_name,
        visibility: visibility.into(),
        status: status.into(),
        status_reason: row.status_reason,
        format: format.into(),
        size_bytes: signed(row.size_bytes),
        virtual_size_bytes: signed(row.virtual_size_bytes),
        sha256: row.sha256,
        architecture: row.architecture,
        source: match row.source {
            ImageSource::Url(url) => url,
            ImageSource::File(file) => file,
            ImageSource::Upload => "upload".to_owned(),
        },
        labels: row.meta.labels,
        created_at: time(row.meta.created_at),
        updated_at: time(row.meta.updated_at),
        deleted_at: row.meta.deleted_at.and_then(time),
    }
}
