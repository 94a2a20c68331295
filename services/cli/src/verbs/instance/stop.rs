//! `cloud instance stop`. The gateway answers when the instance is STOPPED, or after 60 s; `--wait` goes on from there.

use std::time::Duration;

use cloud_contracts::v1::{Instance, StopInstanceRequest, instance::Status as State};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    args::{Names, WaitArgs},
    connect::within,
    context::Context,
    error::Error,
    progress::Line,
    resources::Fetch,
    verbs::batch,
    wait::{self, Goal, Verdict},
};

/// A little more than the gateway's own 60 s, so that it is the gateway who says that it takes longer.
const CALL: Duration = Duration::from_secs(65);

/// STOPPED. One that someone else starts or deletes meanwhile does not get there.
fn stopped() -> Goal<impl Fn(&Instance) -> Verdict> {
    wait::goal("STOPPED", |seen: &Instance| match seen.status() {
        State::Stopped => Verdict::Done,
        State::Deleting | State::Deleted => Verdict::Never,
        State::Starting | State::Running if seen.desired_status() == State::Running => Verdict::Never,
        _ => Verdict::Pending,
    })
}

/// Stops them.
pub async fn run(context: &Context, names: Names, args: WaitArgs) -> Result<(), Error> {
    let limit = (args.timeout, Instant::now() + args.timeout);
    let batch = batch::each(names.unique(), |name| async move {
        let line = args.wait.then(|| context.progress.line(&format!("instance {name}")));
        stop(context, &name, line.as_ref(), limit).await
    })
    .await;
    context.out.changed(&batch.done)?;
    batch.finish()
}

async fn stop(
    context: &Context,
    name: &str,
    line: Option<&Line>,
    limit: (Duration, Instant),
) -> Result<Instance, Error> {
    let subject = format!("instance {name}");
    let request = StopInstanceRequest { id: name.to_owned(), ..Default::default() };
    let time = if line.is_some() { CALL.min(limit.0) } else { CALL };
    if let Some(line) = line {
        line.status("STOPPING");
    }
    let answer = context.cloud.instances().stop_instance(within(time, request)).await;
    let seen = match (answer, line) {
        (Ok(answer), _) => answer.into_inner(),
        (Err(status), Some(_)) if took_too_long(&status) => {
            Instance::fetch(&context.cloud, &(), name).await.map_err(Error::refused(subject))?
        }
        (Err(status), _) => return Err(Error::refused(subject)(status)),
    };
    match line {
        Some(line) => wait::until(&context.cloud, &(), seen, name, stopped(), limit, line).await,
        None => Ok(seen),
    }
}

/// Whether the gateway has written down what was asked and will do it. Our own deadline ends a call as CANCELLED.
fn took_too_long(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}
