//! `cloud volume attach` and `cloud volume detach`.

use clap::Args;
use cloud_contracts::v1::{
    AttachVolumeRequest, DetachVolumeRequest, Instance, Volume, instance_volume::State, volume::Status as VolumeState,
};
use tokio::time::Instant;

use crate::{
    args::{Connection, OutputArgs, WaitArgs},
    connect::ask,
    context::Context,
    error::Error,
    resources::Fetch,
    wait::{self, Goal, Verdict},
};

/// `cloud volume attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// The volume, by name or id
    volume: String,
    /// The instance, by name or id
    instance: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `cloud volume detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// The volume, by name or id
    volume: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Attaches one; waits until a guest that runs has it.
pub async fn attach(connection: Connection, args: Attach) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let cloud = &context.cloud;
    let subject = format!("volume {}", args.volume);
    let limit = (args.wait.timeout, Instant::now() + args.wait.timeout);
    let request = AttachVolumeRequest { id: args.instance.clone(), volume: args.volume.clone(), ..Default::default() };
    let instance = cloud.instances().attach_volume(ask(request)).await.map_err(Error::refused(subject.clone()))?;
    let volume = Volume::fetch(cloud, &(), &args.volume).await.map_err(Error::refused(subject.clone()))?;
    if args.wait.wait {
        let id = volume.id.clone();
        let goal = wait::goal("attached", move |seen: &Instance| {
            match seen.volumes.iter().find(|disk| disk.id == id).map(cloud_contracts::v1::InstanceVolume::state) {
                Some(State::Attached) => Verdict::Done,
                Some(State::Attaching | State::Unspecified) => Verdict::Pending,
                Some(State::Detaching) | None => Verdict::Never,
            }
        });
        let line = context.progress.line(&format!("instance {}", args.instance));
        let waited = wait::until(cloud, &(), instance.into_inner(), &args.instance, goal, limit, &line).await;
        if let Err(error) = waited {
            return Err(told_by_volume(&context, &volume.id, error).await);
        }
    }
    // As it is now.
    let volume = Volume::fetch(cloud, &(), &volume.id).await.map_err(Error::refused(subject))?;
    context.out.changed(&[volume])
}

/// It is the volume that says why it is not attached yet.
async fn told_by_volume(context: &Context, id: &str, error: Error) -> Error {
    let Error::Late { subject, status, reason, waited } = error else { return error };
    let volume = Volume::fetch(&context.cloud, &(), id).await;
    let reason = volume.map_or(reason, |volume| volume.status_reason);
    Error::Late { subject, status, reason, waited }
}

/// Detaches one from whatever instance has it; waits until its guest has released it.
pub async fn detach(connection: Connection, args: Detach) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let cloud = &context.cloud;
    let subject = format!("volume {}", args.volume);
    let limit = (args.wait.timeout, Instant::now() + args.wait.timeout);
    let volume = Volume::fetch(cloud, &(), &args.volume).await.map_err(Error::refused(subject.clone()))?;
    if volume.instance.is_empty() {
        let status = tonic::Status::failed_precondition(format!("{subject} is attached to no instance"));
        return Err(Error::refused(subject)(status));
    }
    let from = volume.instance.clone();
    let request = DetachVolumeRequest { id: from.clone(), volume: volume.id.clone(), ..Default::default() };
    cloud.instances().detach_volume(ask(request)).await.map_err(Error::refused(subject.clone()))?;
    let mut seen = Volume::fetch(cloud, &(), &volume.id).await.map_err(Error::refused(subject.clone()))?;
    if args.wait.wait {
        let goal = Goal { wanted: "detached", or_gone: true, judge: move |seen: &Volume| released(seen, &from) };
        let line = context.progress.line(&subject);
        seen = wait::until(cloud, &(), seen, &args.volume, goal, limit, &line).await?;
    }
    context.out.changed(&[seen])
}

/// Whether an instance has let a volume go. One in ERROR may be let go too.
fn released(volume: &Volume, from: &str) -> Verdict {
    match volume.status() {
        VolumeState::Deleting | VolumeState::Deleted => Verdict::Done,
        _ if volume.instance != from => Verdict::Done,
        _ => Verdict::Pending,
    }
}
