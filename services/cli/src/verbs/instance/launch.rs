//! `cloud instance launch`.

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};
use cloud_contracts::v1::{Instance, LaunchInstanceRequest, Placement, VolumeAttachment, instance::RestartPolicy};
use tokio::time::Instant;

use super::start::running;
use crate::{
    args::{Connection, Labels, NameArg, OutputArgs, WaitArgs},
    connect::ask,
    context::Context,
    error::Error,
    wait,
};

/// Its arguments.
#[derive(Debug, Args)]
pub struct Launch {
    #[command(flatten)]
    name: NameArg,
    /// The image to launch from, by name or id
    #[arg(long)]
    image: String,
    /// The instance type [default: the cloud's default type]
    #[arg(long = "type", default_value = "", hide_default_value = true, value_name = "TYPE")]
    instance_type: String,
    /// The VPC, by name or id [default: the project's default VPC]
    #[arg(long, default_value = "", hide_default_value = true)]
    vpc: String,
    /// The subnet, by name or id [default: the VPC's only one, or the one called `default`]
    #[arg(long, default_value = "", hide_default_value = true)]
    subnet: String,
    /// A volume to attach beside the root disk, by name or id; may be repeated
    #[arg(long = "volume", value_name = "VOLUME")]
    volumes: Vec<String>,
    /// A public key for the guest's first user: its text, or @FILE; may be repeated
    #[arg(long = "ssh-key", value_name = "KEY|@FILE", value_parser = text_or_file)]
    ssh_keys: Vec<Text>,
    /// user-data for cloud-init, a script that starts with #! or #cloud-config: its text, or @FILE
    #[arg(long, value_name = "TEXT|@FILE", value_parser = text_or_file)]
    user_data: Option<Text>,
    /// The root disk's size in GiB [default: the larger of the type's and the image's]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "GIB")]
    root_disk: u32,
    /// What happens when its guest ends by itself
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    restart: Restart,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where it may go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Placement")]
pub struct Place {
    /// A label that the host must have; may be repeated
    #[arg(long = "host-label", value_name = "KEY=VALUE", value_parser = host_label)]
    host_labels: Vec<(String, String)>,
    /// The group whose instances go to different hosts, where there is room
    #[arg(long, default_value = "", hide_default_value = true, value_name = "GROUP")]
    anti_affinity: String,
    /// They must go to different hosts
    #[arg(long, requires = "anti_affinity")]
    anti_affinity_required: bool,
    /// The host, by name or id (operators) [default: the best one]
    #[arg(long = "on", default_value = "", hide_default_value = true, value_name = "HOST")]
    host: String,
    /// What its guest must run under: kvm or tcg [default: either]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ACCELERATOR")]
    accelerator: String,
}

fn host_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "must be KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Place {
    fn placement(self) -> Option<Placement> {
        let placement = Placement {
            host_labels: self.host_labels.into_iter().collect(),
            anti_affinity_group: self.anti_affinity,
            anti_affinity_required: self.anti_affinity_required,
            host: self.host,
            accelerator: self.accelerator,
        };
        (placement != Placement::default()).then_some(placement)
    }
}

/// What happens when a guest ends by itself. One that its user stopped stays stopped under every policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// It stays off
    #[default]
    Never,
    /// It is started again where it crashed
    OnFailure,
    /// It is started again
    Always,
}

/// A text, or a file that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// As given.
    Here(String),
    /// In this file.
    File(PathBuf),
}

fn text_or_file(text: &str) -> Result<Text, String> {
    match text.strip_prefix('@') {
        Some("") => Err("a file's name must follow the @".to_owned()),
        Some(path) => Ok(Text::File(path.into())),
        None => Ok(Text::Here(text.to_owned())),
    }
}

impl Text {
    fn read(self) -> Result<String, Error> {
        match self {
            Self::Here(text) => Ok(text),
            Self::File(path) => fs::read_to_string(&path).map_err(|source| Error::Read { path, source }),
        }
    }
}

/// The keys of a file, one a line; empty lines and comments are passed over.
fn keys(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

impl Launch {
    fn request(self) -> Result<LaunchInstanceRequest, Error> {
        let mut ssh_keys = Vec::new();
        for key in self.ssh_keys {
            ssh_keys.extend(keys(&key.read()?));
        }
        Ok(LaunchInstanceRequest {
            name: self.name.into_name(),
            image: self.image,
            instance_type: self.instance_type,
            vpc: self.vpc,
            subnet: self.subnet,
            volumes: self.volumes.into_iter().map(|volume| VolumeAttachment { volume }).collect(),
            labels: self.labels.into_map(),
            placement: self.place.placement(),
            ssh_keys,
            user_data: self.user_data.map(Text::read).transpose()?.unwrap_or_default(),
            root_disk_gib: self.root_disk,
            restart_policy: match self.restart {
                Restart::Never => RestartPolicy::Never,
                Restart::OnFailure => RestartPolicy::OnFailure,
                Restart::Always => RestartPolicy::Always,
            }
            .into(),
            ..Default::default()
        })
    }
}

/// Launches.
pub async fn run(connection: Connection, args: Launch) -> Result<(), Error> {
    let (wait, output) = (args.wait, args.output);
    let request = args.request()?;
    let context = Context::new(connection, output).await?;
    let limit = (wait.timeout, Instant::now() + wait.timeout);
    let name = request.name.clone();
    let subject = format!("instance {name}");
    let line = wait.wait.then(|| context.progress.line(&subject));
    let answer = context.cloud.instances().launch_instance(ask(request)).await;
    let mut instance: Instance = answer.map_err(Error::refused(subject))?.into_inner();
    if let Some(line) = &line {
        instance = wait::until(&context.cloud, &(), instance, &name, running(), limit, line).await?;
    }
    drop(line);
    context.out.changed(&[instance])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_text_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id.pub");
        fs::write(&file, "# mine\nssh-ed25519 AAAA me\n\nssh-rsa BBBB me\n").unwrap();
        let text = text_or_file(&format!("@{}", file.display())).unwrap();
        assert_eq!(keys(&text.read().unwrap()), ["ssh-ed25519 AAAA me", "ssh-rsa BBBB me"]);
        assert_eq!(text_or_file("ssh-rsa A").unwrap(), Text::Here("ssh-rsa A".into()));
        assert!(text_or_file("@").is_err());
    }
}
