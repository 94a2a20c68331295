//! `rm`: deletes one or several.

use tokio::time::Instant;

use super::batch;
use crate::{
    args::{Names, WaitArgs},
    context::Context,
    error::Error,
    resources::{Delete, Fetch, Watched, follow::Follow},
    wait,
};

/// Deletes what is gone at once.
pub async fn run<R: Delete>(context: &Context, scope: &R::Scope, names: Names) -> Result<(), Error> {
    let batch = batch::each(names.unique(), |name| async move {
        R::delete(&context.cloud, scope, &name).await.map_err(Error::refused(format!("{} {name}", R::KIND)))
    })
    .await;
    context.out.changed(&batch.done)?;
    batch.finish()
}

/// Deletes what takes a while to go, and waits for it where that was asked.
pub async fn run_watched<R: Delete + Watched + Follow<Of = <R as Fetch>::Scope>>(
    context: &Context,
    scope: &<R as Fetch>::Scope,
    names: Names,
    args: WaitArgs,
) -> Result<(), Error> {
    let limit = (args.timeout, Instant::now() + args.timeout);
    let batch = batch::each(names.unique(), |name| async move {
        let subject = format!("{} {name}", R::KIND);
        let seen = R::delete(&context.cloud, scope, &name).await.map_err(Error::refused(subject.clone()))?;
        if !args.wait {
            return Ok(seen);
        }
        let line = context.progress.line(&subject);
        wait::until(&context.cloud, scope, seen, &name, wait::deleted(), limit, &line).await
    })
    .await;
    context.out.changed(&batch.done)?;
    batch.finish()
}
