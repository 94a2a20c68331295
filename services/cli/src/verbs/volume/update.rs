//! `cloud volume update`.

use clap::{ArgGroup, Args};
use cloud_contracts::v1::{UpdateVolumeRequest, Volume, volume::Status as State};
use prost_types::FieldMask;
use tokio::time::Instant;

use crate::{
    args::{Connection, Labels, OutputArgs, WaitArgs},
    connect::ask,
    context::Context,
    error::Error,
    wait::{self, Verdict},
};

/// Its arguments.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["labels", "no_labels", "iops", "mb_per_second"]))]
pub struct Update {
    /// The volume, by name or id
    name: String,
    /// Reads and writes a second, together, 10 to 1000000; 0 for no limit
    #[arg(long, value_name = "NUMBER")]
    iops: Option<u32>,
    /// Megabytes read and written a second, together, at most 100000; 0 for no limit
    #[arg(long, value_name = "MB")]
    mb_per_second: Option<u32>,
    #[command(flatten)]
    labels: Labels,
    /// Takes all labels away
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Only if the volume still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Update {
    fn request(self) -> UpdateVolumeRequest {
        let labels = self.labels.into_map();
        let given = [
            ("labels", self.no_labels || !labels.is_empty()),
            ("iops", self.iops.is_some()),
            ("mb_per_second", self.mb_per_second.is_some()),
        ];
        let paths = given.into_iter().filter(|(_, is)| *is).map(|(path, _)| path.to_owned()).collect();
        let volume = Volume {
            labels,
            iops: self.iops.unwrap_or_default(),
            mb_per_second: self.mb_per_second.unwrap_or_default(),
            ..Volume::default()
        };
        UpdateVolumeRequest {
            id: self.name,
            etag: self.etag,
            request_id: String::new(),
            volume: Some(volume),
            update_mask: Some(FieldMask { paths }),
        }
    }
}

/// Changes it; waits until a guest that runs has its limits.
pub async fn run(connection: Connection, args: Update) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let (name, wait) = (args.name.clone(), args.wait);
    let subject = format!("volume {name}");
    let limit = (wait.timeout, Instant::now() + wait.timeout);
    let asked = context.cloud.volumes().update_volume(ask(args.request())).await;
    let mut changed = asked.map_err(Error::refused(subject.clone()))?.into_inner();
    if wait.wait {
        let goal = wait::goal("limited", |volume: &Volume| match volume.status() {
            _ if !volume.limits_pending => Verdict::Done,
            State::Deleting | State::Deleted => Verdict::Never,
            _ => Verdict::Pending,
        });
        let line = context.progress.line(&subject);
        changed = wait::until(&context.cloud, &(), changed, &name, goal, limit, &line).await?;
    }
    context.out.changed(&[changed])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn request(line: &str) -> UpdateVolumeRequest {
        Line::try_parse_from(line.split(' ')).unwrap().update.request()
    }

    #[test]
    fn what_is_given_is_changed_and_nothing_else() {
        let mask = |line| request(line).update_mask.unwrap().paths;
        assert_eq!(mask("update data --iops 100"), ["iops"]);
        assert_eq!(mask("update data --mb-per-second 0 --no-labels"), ["labels", "mb_per_second"]);
        assert_eq!(mask("update data --label a=b --iops 0 --mb-per-second 1"), ["labels", "iops", "mb_per_second"]);
        let volume = request("update data --iops 100 --mb-per-second 20").volume.unwrap();
        assert_eq!((volume.iops, volume.mb_per_second), (100, 20));
        assert!(Line::try_parse_from(["update", "data"]).is_err(), "nothing to change");
        assert!(Line::try_parse_from(["update", "data", "--no-labels", "--label", "a=b"]).is_err());
    }
}
