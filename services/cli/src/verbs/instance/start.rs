//! `cloud instance start`.

use cloud_contracts::v1::{Instance, StartInstanceRequest, instance::Status as State};
use tokio::time::Instant;

use crate::{
    args::{Names, WaitArgs},
    connect::ask,
    context::Context,
    error::Error,
    verbs::batch,
    wait::{self, Goal, Verdict},
};

/// RUNNING. One that someone else stops or deletes meanwhile does not get there.
pub fn running() -> Goal<impl Fn(&Instance) -> Verdict> {
    wait::goal("RUNNING", |seen: &Instance| match seen.status() {
        State::Running => Verdict::Done,
        State::Deleting | State::Deleted => Verdict::Never,
        State::Stopped if seen.desired_status() == State::Stopped => Verdict::Never,
        _ => Verdict::Pending,
    })
}

/// Starts them.
pub async fn run(context: &Context, names: Names, args: WaitArgs) -> Result<(), Error> {
    let limit = (args.timeout, Instant::now() + args.timeout);
    let batch = batch::each(names.unique(), |name| async move {
        let subject = format!("instance {name}");
        let line = args.wait.then(|| context.progress.line(&subject));
        let request = StartInstanceRequest { id: name.clone(), ..Default::default() };
        let answer = context.cloud.instances().start_instance(ask(request)).await;
        let seen = answer.map_err(Error::refused(subject))?.into_inner();
        match &line {
            Some(line) => wait::until(&context.cloud, &(), seen, &name, running(), limit, line).await,
            None => Ok(seen),
        }
    })
    .await;
    context.out.changed(&batch.done)?;
    batch.finish()
}
