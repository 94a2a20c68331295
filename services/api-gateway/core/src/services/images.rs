//! Images: the calls on them.

use std::sync::Arc;

use cloud_domain::ImageId;

use super::{
    Page, PageRequest,
    lookup::{as_id, check_etag, event, insert, labels, live, member, name, operator},
    quotas::hold,
};
use crate::{
    CoreError, Kind,
    model::{ARCHITECTURES, Caller, Image, ImageFormat, ImageSource, ImageStatus, Labels, Meta, Value, Visibility},
    ports::{ImageFile, ImageStore, Query, Store, Tx, WorkKind},
};

/// An image that a caller wants.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub source: ImageSource,
    /// What its bytes must be; none: found out.
    pub format: Option<ImageFormat>,
    /// What their SHA-256 must be, in hex; empty: not checked.
    pub sha256: String,
    /// Who sees it.
    pub visibility: Visibility,
    /// Words of the user's own.
    pub labels: Labels,
    /// Whose machine code is on it; empty: this process's own.
    pub architecture: String,
}

/// Disks to launch instances from.
#[derive(Clone)]
pub struct ImageService<S> {
    store: S,
    files: Arc<dyn ImageStore>,
}

/// The public image of that name, of whichever project; the oldest where there are several.
pub(super) async fn public<T: Tx>(tx: &mut T, name: &str) -> Result<Option<Image>, CoreError> {
    let query = Query {
        columns: vec![("public", Value::Int(1)), ("name", Value::Text(name.to_owned()))],
        limit: Some(1),
        ..Query::default()
    };
    Ok(tx.list(&query).await?.pop())
}

impl<S: Store> ImageService<S> {
    /// The service over a store and the gateway's image files.
    pub fn new(store: S, files: Arc<dyn ImageStore>) -> Self {
        Self { store, files }
    }

    fn row(caller: &Caller, id: ImageId, request: NewImage) -> Result<Image, CoreError> {
        member(caller)?;
        name(&request.name)?;
        labels(&request.labels)?;
        if request.visibility == Visibility::Public {
            operator(caller, "make an image public")?;
        }
        if matches!(request.source, ImageSource::File(_)) {
            operator(caller, "import from the import directory")?;
        }
        let architecture = match request.architecture.as_str() {
            "" => std::env::consts::ARCH,
            named => named,
        };
        if !ARCHITECTURES.contains(&architecture) {
            let problem = format!("`{architecture}` is none: use {}", ARCHITECTURES.join(" or "));
            return Err(CoreError::invalid("architecture", problem));
        }
        Ok(Image {
            architecture: architecture.to_owned(),
            meta: Meta::new(*id.as_uuid(), caller.project, &caller.project_name, &request.name, request.labels),
            visibility: request.visibility,
            status: ImageStatus::Importing,
            status_reason: String::new(),
            source: request.source,
            format: request.format,
            sha256: request.sha256.to_ascii_lowercase(),
            size_bytes: 0,
            virtual_size_bytes: 0,
        })
    }

    /// Accepts an import from a URL or a file: IMPORTING; the reconciler fetches it.
    ///
    /// # Errors
    /// Invalid, `AlreadyExists`, Denied.
    pub async fn import(&self, caller: &Caller, request: NewImage) -> Result<Image, CoreError> {
        let row = Self::row(caller, ImageId::random(), request)?;
        let mut tx = self.store.begin().await?;
        hold(&mut tx, caller.project, &caller.project_name).await?;
        insert(&mut tx, &row).await?;
        tx.enqueue(WorkKind::Image, row.meta.id).await?;
        tx.event(event(caller, &row, "image.import")).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Whether an upload under this name would be taken, before its bytes are sent.
    ///
    /// # Errors
    /// Invalid, `AlreadyExists`, Denied.
    pub async fn check_upload(&self, caller: &Caller, request: &NewImage) -> Result<(), CoreError> {
        Self::row(caller, ImageId::random(), request.clone())?;
        match self.store.find::<Image>(caller.project, &request.name).await? {
            Some(_) => Err(CoreError::AlreadyExists { kind: Kind::Image, name: request.name.clone() }),
            None => Ok(()),
        }
    }

    /// Enters an uploaded and verified file: READY at once. Where that fails the file is removed.
    ///
    /// # Errors
    /// As [`Self::check_upload`].
    pub async fn uploaded(
        &self,
        caller: &Caller,
        id: ImageId,
        request: NewImage,
        file: ImageFile,
    ) -> Result<Image, CoreError> {
        let entered = self.enter(caller, id, request, file).await;
        if entered.is_err()
            && let Err(error) = self.files.remove(id).await
        {
            tracing::warn!(image = %id, %error, "the file of a refused upload could not be removed");
        }
        entered
    }

    async fn enter(
        &self,
        caller: &Caller,
        id: ImageId,
        request: NewImage,
        file: ImageFile,
    ) -> Result<Image, CoreError> {
        let mut row = Self::row(caller, id, request)?;
        row.status = ImageStatus::Ready;
        row.format = Some(file.format);
        row.sha256 = file.sha256;
        row.size_bytes = file.size_bytes;
        row.virtual_size_bytes = file.virtual_size_bytes;
        let mut tx = self.store.begin().await?;
        hold(&mut tx, caller.project, &caller.project_name).await?;
        insert(&mut tx, &row).await?;
        tx.event(event(caller, &row, "image.upload")).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// An image by id or name: the caller's own, or else a public one.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Image, CoreError> {
        let row: Option<Image> = match as_id(id) {
            Some(uuid) => self.store.get(uuid).await?,
            None => match self.store.find(caller.project, id).await? {
                Some(own) => Some(own),
                None => self.public_by_name(id).await?,
            },
        };
        let visible = |i: &Image| i.meta.project == caller.project || i.visibility == Visibility::Public;
        row.filter(visible).ok_or_else(|| CoreError::not_found(Kind::Image, id))
    }

    async fn public_by_name(&self, name: &str) -> Result<Option<Image>, CoreError> {
        let columns = vec![("public", Value::Int(1)), ("name", Value::Text(name.to_owned()))];
        let query = Query { columns, limit: Some(1), ..Query::default() };
        Ok(self.store.list(&query).await?.pop())
    }

    /// The project's images and the public ones.
    ///
    /// # Errors
    /// Invalid filter, order or page token.
    pub async fn list(&self, caller: &Caller, page: &PageRequest) -> Result<Page<Image>, CoreError> {
        let query = Query { or_column: Some(("public", 1)), ..Query::default() };
        page.list(&self.store, Some(caller.project), query).await
    }

    /// Deletes an image. Instances made from it keep running: hosts keep their copy as long as a disk stands on it.
    ///
    /// # Errors
    /// `NotFound`, `StaleEtag`.
    pub async fn delete(&self, caller: &Caller, id: &str, etag: &str) -> Result<Image, CoreError> {
        member(caller)?;
        let mut tx = self.store.begin().await?;
        let mut row: Image = live(&mut tx, caller.project, id).await?;
        check_etag(&row, etag)?;
        if row.status == ImageStatus::Deleting {
            return Ok(row);
        }
        row.status = ImageStatus::Deleting;
        row.status_reason.clear();
        // The work first, as a worker takes them.
        tx.enqueue(WorkKind::Image, row.meta.id).await?;
        tx.update(&mut row).await?;
        tx.event(event(caller, &row, "image.delete")).await?;
        tx.commit().await?;
        Ok(row)
    }
}
