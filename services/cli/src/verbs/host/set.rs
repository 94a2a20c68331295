//! `cloud host set`.

use clap::{ArgGroup, Args};
use cloud_contracts::v1::{Host, UpdateHostRequest};
use prost_types::FieldMask;

use crate::{
    args::{Connection, Labels, OutputArgs},
    connect::ask,
    context::Context,
    error::Error,
};

/// Its arguments.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true)
    .args(["labels", "no_labels", "vcpu_overcommit", "memory_overcommit", "vcpus_reserved", "memory_reserved"]))]
pub struct Set {
    /// The host, by name or id
    host: String,
    #[command(flatten)]
    labels: Labels,
    /// Takes all labels away
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Virtual processors promised for 100 threads, 10 to 10000; 0 for what the gateway is told for all hosts
    #[arg(long, value_name = "PERCENT")]
    vcpu_overcommit: Option<u32>,
    /// Memory promised for 100 MiB, 10 to 10000; 0 for 100
    #[arg(long, value_name = "PERCENT")]
    memory_overcommit: Option<u32>,
    /// Threads that are not promised
    #[arg(long, value_name = "THREADS")]
    vcpus_reserved: Option<u32>,
    /// Memory that is not promised, in MiB
    #[arg(long, value_name = "MIB")]
    memory_reserved: Option<u64>,
    /// Only if the host still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    output: OutputArgs,
}

impl Set {
    fn request(self) -> UpdateHostRequest {
        let labels = self.labels.into_map();
        let given = [
            ("labels", self.no_labels || !labels.is_empty()),
            ("vcpu_overcommit_percent", self.vcpu_overcommit.is_some()),
            ("memory_overcommit_percent", self.memory_overcommit.is_some()),
            ("vcpus_reserved", self.vcpus_reserved.is_some()),
            ("memory_reserved_mib", self.memory_reserved.is_some()),
        ];
        let paths = given.into_iter().filter(|(_, is)| *is).map(|(path, _)| path.to_owned()).collect();
        let host = Host {
            labels,
            vcpu_overcommit_percent: self.vcpu_overcommit.unwrap_or_default(),
            memory_overcommit_percent: self.memory_overcommit.unwrap_or_default(),
            vcpus_reserved: self.vcpus_reserved.unwrap_or_default(),
            memory_reserved_mib: self.memory_reserved.unwrap_or_default(),
            ..Host::default()
        };
        UpdateHostRequest {
            id: self.host,
            etag: self.etag,
            request_id: String::new(),
            host: Some(host),
            update_mask: Some(FieldMask { paths }),
        }
    }
}

/// Changes it.
pub async fn run(connection: Connection, args: Set) -> Result<(), Error> {
    let context = Context::new(connection, args.output).await?;
    let subject = format!("host {}", args.host);
    let changed = context.cloud.hosts().update_host(ask(args.request())).await.map_err(Error::refused(subject))?;
    context.out.changed(&[changed.into_inner()])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        set: Set,
    }

    fn mask(line: &str) -> Vec<String> {
        let set = Line::try_parse_from(line.split(' ')).unwrap().set;
        set.request().update_mask.unwrap().paths
    }

    #[test]
    fn what_is_given_is_changed_and_nothing_else() {
        assert_eq!(mask("set h1 --label zone=a"), ["labels"]);
        assert_eq!(mask("set h1 --no-labels --vcpus-reserved 0"), ["labels", "vcpus_reserved"]);
        assert_eq!(
            mask("set h1 --memory-reserved 1 --vcpu-overcommit 200"),
            ["vcpu_overcommit_percent", "memory_reserved_mib"]
        );
        assert!(Line::try_parse_from(["set", "h1"]).is_err(), "nothing to change");
        assert!(Line::try_parse_from(["set", "h1", "--no-labels", "--label", "a=b"]).is_err());
    }
}
