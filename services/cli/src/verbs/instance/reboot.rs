//! `cloud instance reboot`.

use cloud_contracts::v1::{Instance, RebootInstanceRequest, instance::Status as State};
use tokio::time::Instant;

use crate::{
    args::{Names, WaitArgs},
    connect::ask,
    context::Context,
    error::Error,
    verbs::batch,
    wait::{self, Verdict},
};

/// Reboots them.
pub async fn run(context: &Context, names: Names, args: WaitArgs) -> Result<(), Error> {
    let limit = (args.timeout, Instant::now() + args.timeout);
    let batch = batch::each(names.unique(), |name| async move {
        let subject = format!("instance {name}");
        let line = args.wait.then(|| context.progress.line(&subject));
        let request = RebootInstanceRequest { id: name.clone(), ..Default::default() };
        let answer = context.cloud.instances().reboot_instance(ask(request)).await;
        let asked: Instance = answer.map_err(Error::refused(subject))?.into_inner();
        let Some(line) = &line else { return Ok(asked) };
        line.status("rebooting");
        // It stays RUNNING all the time: what tells is that the gateway wrote the row again after it took the request.
        let version = asked.etag.clone();
        let goal = wait::goal("RUNNING again", move |seen: &Instance| match seen.status() {
            State::Running if seen.etag != version => Verdict::Done,
            State::Stopped | State::Deleting | State::Deleted => Verdict::Never,
            _ => Verdict::Pending,
        });
        wait::until(&context.cloud, &(), asked, &name, goal, limit, line).await
    })
    .await;
    context.out.changed(&batch.done)?;
    batch.finish()
}
