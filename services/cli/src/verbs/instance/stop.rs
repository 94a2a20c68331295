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
        let subject = format!("instance {name}");
        if args.wait {
            return stop_and_wait(context, &name, &context.progress.line(&subject), limit).await;
        }
        let line = context.progress.quiet_line(&subject);
        if let Some(line) = &line {
            line.status("STOPPING");
        }
        stop(context, &name, CALL).await.map_err(Error::refused(subject))
    })
    .await;
    context.out.changed(&batch.done)?;
    batch.finish()
}

async fn stop(context: &Context, name: &str, time: Duration) -> Result<Instance, Status> {
    let request = StopInstanceRequest { id: name.to_owned(), ..Default::default() };
    Ok(context.cloud.instances().stop_instance(within(time, request)).await?.into_inner())
}

async fn stop_and_wait(
    context: &Context,
    name: &str,
    line: &Line,
    limit: (Duration, Instant),
) -> Result<Instance, Error> {
    line.status("STOPPING");
    let seen = match stop(context, name, CALL.min(limit.0)).await {
        Err(status) if took_too_long(&status) => Instance::fetch(&context.cloud, &(), name).await,
        other => other,
    };
    let seen = seen.map_err(Error::refused(format!("instance {name}")))?;
    wait::until(&context.cloud, &(), seen, name, stopped(), limit, line).await
}

/// Whether the gateway has written down what was asked and will do it. Our own deadline ends a call as CANCELLED.
fn took_too_long(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}
