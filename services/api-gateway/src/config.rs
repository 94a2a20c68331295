//! The gateway's configuration: flags, environment, file.

mod images;

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use cloud_core::{
    model::{Limited, NO_LIMIT, default_limits},
    services::{JoinSettings, Settings, Strategy},
};
use cloud_service_kit::{Address, config::DaemonArgs, server::TlsArgs};

use crate::{
    adapters::{fence::FenceCommand, images::ImageOptions},
    http::CallRate,
};

pub use images::{BucketArgs, ImageArgs};

/// The public address where none is given.
const LISTEN: &str = "127.0.0.1:8080";

/// The API gateway of The Cloud: gRPC and REST for clients, and every decision.
#[derive(Debug, Clone, Parser)]
#[command(name = "cloud-api-gateway", version)]
pub struct Config {
    /// What every daemon has. --listen is 127.0.0.1:8080 by default.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// TLS of the public port.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// TLS of the public port: `built-in` by this cloud's own certificate authority, whose fingerprint `cloud login` pins; by default `files`
    /// where --tls-cert is given, else `off`.
    #[arg(long = "tls", env = "CLOUD_TLS", value_enum, value_name = "MODE")]
    pub tls_mode: Option<TlsMode>,
    /// Names and addresses that clients know the public port by, for --tls=built-in. Those of --listen and --public-url, `localhost` and this
    /// machine's name are in the certificate anyway.
    #[arg(long, env = "CLOUD_TLS_NAMES", value_name = "NAME,…", value_delimiter = ',')]
    pub tls_names: Vec<String>,
    /// Serve the public port without TLS even where other machines reach it. Keys then travel in the clear: only behind a proxy that
    /// speaks TLS.
    #[arg(long, env = "CLOUD_ALLOW_PLAIN_BEYOND_LOOPBACK")]
    pub allow_plain_beyond_loopback: bool,
    /// The directory of this daemon's database, key, images and sockets.
    #[arg(long, env = "CLOUD_STATE_DIR", value_name = "DIRECTORY", default_value = "/var/lib/thecloud/gateway")]
    pub state_dir: PathBuf,
    /// `sqlite:/path/to/file` or `postgres://user@host/name`; by default a SQLite file in the state directory.
    #[arg(long, env = "CLOUD_DATABASE", value_name = "URL")]
    pub database: Option<String>,
    /// Where agents register: a unix socket, by default `host.sock` in the state directory.
    #[arg(long, env = "CLOUD_HOST_LISTEN", value_name = "ADDRESS")]
    pub host_listen: Option<Address>,
    /// The file with the first operator's API key, made at the first start; by default `admin.key` in the state directory.
    #[arg(long, env = "CLOUD_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// What console URLs begin with, as browsers reach this gateway; by default where it listens.
    #[arg(long, env = "CLOUD_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Joining, and the certificates of hosts.
    #[command(flatten)]
    pub join: JoinArgs,
    /// Images.
    #[command(flatten)]
    pub images: ImageArgs,
    /// Instances and hosts.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Projects and keys.
    #[command(flatten)]
    pub tenants: TenantArgs,
    /// How long things are kept.
    #[command(flatten)]
    pub retention: RetentionArgs,
    /// Hosts that come and go.
    #[command(flatten)]
    pub places: PlaceArgs,
}

/// The flags of placement and of hosts that are silent.
#[derive(Debug, Clone, clap::Args)]
pub struct PlaceArgs {
    /// Which of the hosts that can take an instance gets it: the emptiest or the fullest.
    #[arg(long, env = "CLOUD_PLACEMENT", value_name = "STRATEGY", default_value = "spread", value_parser = strategy)]
    pub placement: Strategy,
    /// Takes the power of a silent host away: a program and its arguments, which gets the host's id and name as further ones. Exit code 0 confirms
    /// that the power is off: the host is then declared dead. Never run by a shell. By default only people declare hosts dead.
    #[arg(long, env = "CLOUD_FENCE_COMMAND", value_name = "PROGRAM,ARGUMENT,…", value_delimiter = ',')]
    pub fence_command: Vec<String>,
    /// How long a host must be silent before the fence command is run, in seconds.
    #[arg(long, env = "CLOUD_FENCE_AFTER", value_name = "SECONDS", default_value_t = 60)]
    pub fence_after: u64,
    /// How long the fence command may take, in seconds.
    #[arg(long, env = "CLOUD_FENCE_TIMEOUT", value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub fence_timeout: u64,
}

fn strategy(text: &str) -> Result<Strategy, String> {
    let all = [Strategy::Spread, Strategy::Pack];
    all.into_iter().find(|s| s.as_str() == text).ok_or_else(|| "must be spread or pack".to_owned())
}

/// TLS of the public port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsMode {
    /// By the files of --tls-cert and --tls-key.
    Files,
    /// By the cloud's own certificate authority.
    BuiltIn,
    /// None: beyond loopback only with --allow-plain-beyond-loopback.
    Off,
}

/// The flags of joining and of certificates.
#[derive(Debug, Clone, clap::Args)]
pub struct JoinArgs {
    /// Where the agents of other hosts join and register, with mutual TLS, such as `0.0.0.0:8443`. Without it, only this machine's agents can,
    /// over the unix socket of --host-listen.
    #[arg(long, env = "CLOUD_AGENTS_ADDRESS", value_name = "ADDRESS")]
    pub agents_address: Option<Address>,
    /// Where hosts reach that address, of this gateway and of the others; join tokens carry it. By default what --agents-address says, if that
    /// is the address of one machine.
    #[arg(long, env = "CLOUD_AGENTS_ADVERTISE", value_name = "ADDRESS,…", value_delimiter = ',')]
    pub agents_advertise: Vec<Address>,
    /// The file with the operator's master key, which seals the keys in the database; by default `master.key` in the state directory, made at
    /// the cloud's first start. All gateways of a cloud need the same one. A backup of the database does not contain it.
    #[arg(long, env = "CLOUD_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
    /// The certificate (PEM) of a certificate authority of your own, in place of the built-in one; further authorities to trust after it. The
    /// files are read again when they change.
    #[arg(long, env = "CLOUD_CA_CERT", value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, env = "CLOUD_CA_KEY", value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
    /// How long the certificates of hosts count, in seconds; agents renew them when two thirds have passed.
    #[arg(long, env = "CLOUD_HOST_CERTIFICATE_LIFETIME", value_name = "SECONDS", default_value_t = 30 * 24 * 3600,
          value_parser = clap::value_parser!(u64).range(3..=365 * 24 * 3600))]
    pub host_certificate_lifetime: u64,
    /// How long the gateways' own certificates count, in seconds.
    #[arg(long, env = "CLOUD_GATEWAY_CERTIFICATE_LIFETIME", value_name = "SECONDS", default_value_t = 30 * 24 * 3600,
          value_parser = clap::value_parser!(u64).range(3..=365 * 24 * 3600))]
    pub gateway_certificate_lifetime: u64,
    /// How long the built-in certificate authority counts, in seconds; it is replaced before its end.
    #[arg(long, env = "CLOUD_CA_LIFETIME", value_name = "SECONDS", default_value_t = 10 * 365 * 24 * 3600,
          value_parser = clap::value_parser!(u64).range(60..=30 * 365 * 24 * 3600))]
    pub ca_lifetime: u64,
}

impl JoinArgs {
    /// Where hosts reach the gateways.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        if !self.agents_advertise.is_empty() {
            return self.agents_advertise.iter().map(host_and_port).collect();
        }
        let one = |address: &&Address| match address {
            Address::Unix(_) => false,
            Address::Tcp { host, port } => !matches!(host.as_str(), "0.0.0.0" | "::") && *port != 0,
        };
        self.agents_address.iter().filter(one).map(host_and_port).collect()
    }
}

fn host_and_port(address: &Address) -> String {
    address.to_string().trim_start_matches("tcp:").to_owned()
}

/// The flags of retention.
#[derive(Debug, Clone, clap::Args)]
pub struct RetentionArgs {
    /// How long what is deleted can still be looked at, in seconds.
    #[arg(long, env = "CLOUD_KEEP_DELETED", value_name = "SECONDS", default_value_t = 30 * 24 * 3600)]
    pub keep_deleted: u64,
    /// How long events are kept, in seconds.
    #[arg(long, env = "CLOUD_KEEP_EVENTS", value_name = "SECONDS", default_value_t = 90 * 24 * 3600)]
    pub keep_events: u64,
    /// How long request ids are remembered, in seconds.
    #[arg(long, env = "CLOUD_KEEP_REQUESTS", value_name = "SECONDS", default_value_t = 24 * 3600)]
    pub keep_requests: u64,
    /// How often what was kept long enough is purged, in milliseconds.
    #[arg(long, env = "CLOUD_PURGE_INTERVAL_MS", value_name = "MILLISECONDS", default_value_t = 600_000,
          value_parser = clap::value_parser!(u64).range(50..))]
    pub purge_interval_ms: u64,
}

/// The flags of projects and keys.
#[derive(Debug, Clone, clap::Args)]
pub struct TenantArgs {
    /// Limits of projects that have none of their own, such as `instances=20,vcpus=80`, over the built-in ones; `none` is no limit. Known are
    /// instances, vcpus, memory_mib, volume_gib, snapshots, vpcs, floating_ips.
    #[arg(long, env = "CLOUD_QUOTA", value_name = "RESOURCE=LIMIT,…", value_delimiter = ',', value_parser = quota)]
    pub quota: Vec<(Limited, u64)>,
    /// How often each API key may call this gateway, in calls a second; 0: as often as it likes.
    #[arg(long, env = "CLOUD_RATE_LIMIT", value_name = "CALLS", default_value_t = CallRate::default().per_second)]
    pub rate_limit: u32,
    /// How many calls an API key may make at once after a rest.
    #[arg(long, env = "CLOUD_RATE_LIMIT_BURST", value_name = "CALLS", default_value_t = CallRate::default().burst)]
    pub rate_limit_burst: u32,
}

fn quota(text: &str) -> Result<(Limited, u64), String> {
    let names = || Limited::ALL.map(Limited::as_str).join(", ");
    let (name, limit) = text.split_once('=').ok_or_else(|| "must be RESOURCE=LIMIT".to_owned())?;
    let of = Limited::parse(name).ok_or_else(|| format!("`{name}` is not limited: use {}", names()))?;
    let limit = match limit {
        "none" => NO_LIMIT,
        number => number.parse().map_err(|_| format!("`{number}` must be a whole number, or none"))?,
    };
    if limit > NO_LIMIT { Err(format!("`{limit}` is too large: none is no limit")) } else { Ok((of, limit)) }
}

/// The flags of instances and hosts.
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// How long an instance may be STARTING, in seconds.
    #[arg(long, env = "CLOUD_START_TIMEOUT", value_name = "SECONDS", default_value_t = 600)]
    pub start_timeout: u64,
    /// How long a guest may take to shut down before it is powered off, in seconds.
    #[arg(long, env = "CLOUD_STOP_GRACE", value_name = "SECONDS", default_value_t = 30)]
    pub stop_grace: u64,
    /// How long a stop call waits, in seconds.
    #[arg(long, env = "CLOUD_STOP_WAIT", value_name = "SECONDS", default_value_t = 60)]
    pub stop_wait: u64,
    /// Virtual processors promised per thread of a host.
    #[arg(long, env = "CLOUD_CPU_OVERCOMMIT", value_name = "RATIO", default_value_t = 8.0, value_parser = ratio)]
    pub cpu_overcommit: f64,
    /// Memory of each host that is not promised to instances, in MiB.
    #[arg(long, env = "CLOUD_MEMORY_RESERVE_MIB", value_name = "MIB", default_value_t = 512)]
    pub memory_reserve_mib: u64,
    /// How often agents give a sign of life, in milliseconds; of more than 600 hosts less often, up to a third of the time without one after which a host is
    /// taken for silent.
    #[arg(long, env = "CLOUD_HEARTBEAT_INTERVAL_MS", value_name = "MILLISECONDS", default_value_t = 2000,
          value_parser = clap::value_parser!(u64).range(20..=60_000))]
    pub heartbeat_interval_ms: u64,
    /// How long without a sign of life until a host is UNREACHABLE, in milliseconds.
    #[arg(long, env = "CLOUD_HEARTBEAT_TIMEOUT_MS", value_name = "MILLISECONDS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(100..))]
    pub heartbeat_timeout_ms: u64,
    /// How often what each host has is compared with what it shall have, in milliseconds.
    #[arg(long, env = "CLOUD_SWEEP_INTERVAL_MS", value_name = "MILLISECONDS", default_value_t = 30_000,
          value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub sweep_interval_ms: u64,
    /// How often the database is compared with itself, in seconds.
    #[arg(long, env = "CLOUD_AUDIT_INTERVAL", value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub audit_interval: u64,
    /// How long the cloud remembers what it deleted, in days: what turns up on a host again is removed by itself only as long as that.
    #[arg(long, env = "CLOUD_TOMBSTONE_RETENTION_DAYS", value_name = "DAYS", default_value_t = 365,
          value_parser = clap::value_parser!(u64).range(30..=36_500))]
    pub tombstone_retention_days: u64,
    /// How long the work of a gateway that was killed waits until another one takes it over, in seconds. (SQLite has one gateway, which takes
    /// its work up again at its start.)
    #[arg(long, env = "CLOUD_WORK_LEASE", value_name = "SECONDS", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(3..=3600))]
    pub work_lease: u64,
    /// How long a console URL works, in seconds.
    #[arg(long, env = "CLOUD_CONSOLE_TTL", value_name = "SECONDS", default_value_t = 600)]
    pub console_ttl: u64,
    /// How many watches one API key may have open at a gateway.
    #[arg(long, env = "CLOUD_WATCHES_PER_KEY", value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub watches_per_key: u32,
    /// How many batches of changes may wait for a watcher; one that falls further behind is disconnected and resumes.
    #[arg(long, env = "CLOUD_WATCH_BUFFER", value_name = "BATCHES", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub watch_buffer: u32,
    /// The largest packet of guests, in bytes: the hosts' own, less 50 for tunnels.
    #[arg(long, env = "CLOUD_GUEST_MTU", value_name = "BYTES", default_value_t = 1450,
          value_parser = clap::value_parser!(u32).range(1280..=65_000))]
    pub guest_mtu: u32,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.1..=100.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0.1 to 100".to_owned()),
    }
}

impl Config {
    /// Where clients connect.
    #[must_use]
    pub fn listen(&self) -> Address {
        let default = Address::Tcp { host: "127.0.0.1".to_owned(), port: 8080 };
        debug_assert_eq!(LISTEN.parse(), Ok(default.clone()));
        self.daemon.listen.clone().unwrap_or(default)
    }

    /// How the public port speaks TLS.
    ///
    /// # Errors
    /// What is said about it does not fit together.
    pub fn tls_mode(&self) -> Result<TlsMode, &'static str> {
        let files = self.tls.tls_cert.is_some() || self.tls.tls_key.is_some();
        match (self.tls_mode, files) {
            (None | Some(TlsMode::Files), true) => Ok(TlsMode::Files),
            (Some(TlsMode::Files), false) => Err("--tls=files needs --tls-cert and --tls-key"),
            (Some(_), true) => Err("--tls-cert and --tls-key are for --tls=files"),
            (Some(mode), false) => Ok(mode),
            (None, false) => Ok(TlsMode::Off),
        }
    }

    /// The names in the public port's certificate, where the cloud's own authority issues it.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.push(rustix::system::uname().nodename().to_string_lossy().into_owned());
        if let Address::Tcp { host, .. } = self.listen() {
            names.push(host);
        }
        let url = self.public_url.as_ref().and_then(|url| url.parse::<http::Uri>().ok());
        names.extend(url.and_then(|url| url.host().map(|h| h.trim_matches(['[', ']']).to_owned())));
        names.extend(self.tls_names.iter().cloned());
        names.retain(|name| !matches!(name.as_str(), "" | "0.0.0.0" | "::"));
        names.sort();
        names.dedup();
        names
    }

    /// Where agents register.
    #[must_use]
    pub fn host_listen(&self) -> Address {
        self.host_listen.clone().unwrap_or_else(|| Address::Unix(self.state_dir.join("host.sock")))
    }

    /// The database's URL.
    #[must_use]
    pub fn database(&self) -> String {
        let default = || format!("sqlite:{}", self.state_dir.join("gateway.db").display());
        self.database.clone().unwrap_or_else(default)
    }

    /// The first operator's key.
    #[must_use]
    pub fn api_key_file(&self) -> PathBuf {
        self.api_key_file.clone().unwrap_or_else(|| self.state_dir.join("admin.key"))
    }

    /// The operator's master key.
    #[must_use]
    pub fn master_key_file(&self) -> PathBuf {
        self.join.master_key_file.clone().unwrap_or_else(|| self.state_dir.join("master.key"))
    }

    /// What the core is told of joining.
    #[must_use]
    pub fn join_settings(&self) -> JoinSettings {
        let certificate_lifetime = Duration::from_secs(self.join.host_certificate_lifetime);
        JoinSettings { addresses: self.join.addresses(), certificate_lifetime }
    }

    /// What the core is told.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let limits = &self.limits;
        Settings {
            start_timeout: Duration::from_secs(limits.start_timeout),
            stop_grace: Duration::from_secs(limits.stop_grace),
            stop_wait: Duration::from_secs(limits.stop_wait),
            cpu_overcommit: limits.cpu_overcommit,
            memory_reserve_mib: limits.memory_reserve_mib,
            heartbeat_interval: Duration::from_millis(limits.heartbeat_interval_ms),
            heartbeat_timeout: Duration::from_millis(limits.heartbeat_timeout_ms),
            console_ttl: Duration::from_secs(limits.console_ttl),
            mtu: limits.guest_mtu,
            watches_per_key: limits.watches_per_key as usize,
            watch_buffer: limits.watch_buffer as usize,
            import_timeout: Duration::from_secs(self.images.import_timeout),
            quota: default_limits().into_iter().chain(self.tenants.quota.iter().copied()).collect(),
            keep_deleted: Duration::from_secs(self.retention.keep_deleted),
            keep_events: Duration::from_secs(self.retention.keep_events),
            keep_requests: Duration::from_secs(self.retention.keep_requests),
            purge_interval: Duration::from_millis(self.retention.purge_interval_ms),
            sweep_interval: Duration::from_millis(limits.sweep_interval_ms),
            audit_interval: Duration::from_secs(limits.audit_interval),
            tombstone_retention: Duration::from_secs(limits.tombstone_retention_days.saturating_mul(24 * 3600)),
            work_lease: Duration::from_secs(limits.work_lease),
            placement: self.places.placement,
            fence_after: Duration::from_secs(self.places.fence_after),
        }
    }

    /// What takes the power of a silent host away, where there is something.
    #[must_use]
    pub fn fencer(&self) -> Option<FenceCommand> {
        FenceCommand::new(&self.places.fence_command, Duration::from_secs(self.places.fence_timeout))
    }

    /// How often each key may call.
    #[must_use]
    pub fn calls(&self) -> CallRate {
        CallRate { per_second: self.tenants.rate_limit, burst: self.tenants.rate_limit_burst }
    }

    /// What the image store is told.
    #[must_use]
    pub fn image_options(&self) -> ImageOptions {
        self.images.options(self.state_dir.join("images"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from(["cloud-api-gateway"].iter().chain(args))
    }

    #[test]
    fn quotas_are_set_over_the_built_in_ones() {
        let quota = parse(&["--quota", "instances=5,vcpus=none", "--quota", "vpcs=0"]).unwrap().settings().quota;
        assert_eq!((quota[&Limited::Instances], quota[&Limited::Vcpus], quota[&Limited::Vpcs]), (5, NO_LIMIT, 0));
        assert_eq!(quota[&Limited::VolumeGib], default_limits()[&Limited::VolumeGib]);
        for bad in ["instances", "bananas=1", "instances=many", "instances=9223372036854775808"] {
            assert!(parse(&["--quota", bad]).is_err(), "{bad}");
        }
    }
}
