//! `show`: everything about one or several.

use super::batch;
use crate::{args::Names, context::Context, error::Error, resources::Fetch};

/// Prints them.
pub async fn run<R: Fetch>(context: &Context, scope: &R::Scope, names: Names) -> Result<(), Error> {
    let batch = batch::each(names.unique(), |name| async move {
        R::fetch(&context.cloud, scope, &name).await.map_err(Error::refused(format!("{} {name}", R::KIND)))
    })
    .await;
    context.cloud.warn_of_unused_id();
    if !batch.done.is_empty() {
        context.out.details(&batch.done)?;
    }
    batch.finish()
}
