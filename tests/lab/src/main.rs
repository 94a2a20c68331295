//! `cloud-lab`: a lab that stays, and what can be done to its hosts.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use cloud_lab::{Config, Host, Lab, Site, Wire};

/// A cloud of several hosts, each a virtual machine, on this machine.
#[derive(Debug, Parser)]
#[command(name = "cloud-lab", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Brings it up: it stays.
    Up {
        /// How many hosts.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
        hosts: u8,
        /// MiB of memory of each host.
        #[arg(long, default_value_t = 2560)]
        memory_mib: u32,
        /// Where the daemons' programs are; by default beside this one.
        #[arg(long)]
        bin_dir: Option<PathBuf>,
    },
    /// Ends it and removes its disks.
    Down,
    /// The hosts.
    Ls,
    /// A shell on a host.
    Shell { host: String },
    /// Runs a shell command on a host, whatever its cables are doing.
    Exec {
        host: String,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Copies a file into a host.
    Put { host: String, from: PathBuf, to: String },
    /// Cuts a host's power.
    PowerCut { host: String },
    /// Gives it power again.
    PowerOn { host: String },
    /// Cuts a cable of a host: packets vanish.
    Cut { host: String, wire: Cable },
    /// Mends it.
    Mend { host: String, wire: Cable },
    /// Pulls a cable out: the carrier is lost.
    Unplug { host: String, wire: Cable },
    /// Puts it in again.
    Plug { host: String, wire: Cable },
    /// Fills a host's root disk but for so many MiB.
    Fill {
        host: String,
        #[arg(default_value_t = 0)]
        mib: u32,
    },
    /// Gives that space back.
    Empty { host: String },
    /// Makes a host's clock wrong by so many seconds; 0: right.
    Skew {
        host: String,
        #[arg(allow_negative_numbers = true)]
        seconds: i64,
    },
    /// Every access to the disk of a host's volume group fails.
    BreakDisk { host: String },
    /// It works again.
    MendDisk { host: String },
    /// A host stands still.
    Pause { host: String },
    /// It goes on.
    Resume { host: String },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cable {
    Management,
    Underlay,
}

impl From<Cable> for Wire {
    fn from(cable: Cable) -> Self {
        match cable {
            Cable::Management => Self::Management,
            Cable::Underlay => Self::Underlay,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args.verb)));
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cloud-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    let site = Site::of_users();
    match verb {
        Verb::Up { hosts, memory_mib, bin_dir } => up(site, hosts, memory_mib, bin_dir).await?,
        Verb::Down => Lab::down(&site)?,
        Verb::Ls => {
            for host in Lab::open(&site)? {
                let state = if host.runs() { "on" } else { "off" };
                println!("{:<4} {:<16} {state}", host.name(), host.address());
            }
        }
        Verb::Shell { host } => return Err(shell(&site, &find(&site, &host)?)),
        Verb::Exec { host, command } => {
            let output = find(&site, &host)?.exec(&command.join(" ")).await?;
            print!("{}", output.stdout);
            eprint!("{}", output.stderr);
            return Ok(ExitCode::from(u8::try_from(output.status).unwrap_or(1)));
        }
        Verb::Put { host, from, to } => find(&site, &host)?.put(&from, &to).await?,
        Verb::PowerCut { host } => find(&site, &host)?.power_cut().await?,
        Verb::PowerOn { host } => find(&site, &host)?.power_on().await?,
        Verb::Cut { host, wire } => find(&site, &host)?.cut(wire.into()).await?,
        Verb::Mend { host, wire } => find(&site, &host)?.mend(wire.into()).await?,
        Verb::Unplug { host, wire } => find(&site, &host)?.plug(wire.into(), false).await?,
        Verb::Plug { host, wire } => find(&site, &host)?.plug(wire.into(), true).await?,
        Verb::Fill { host, mib } => find(&site, &host)?.fill_disk(mib).await?,
        Verb::Empty { host } => find(&site, &host)?.empty_disk().await?,
        Verb::Skew { host, seconds } => find(&site, &host)?.skew_clock(seconds).await?,
        Verb::BreakDisk { host } => find(&site, &host)?.break_disk().await?,
        Verb::MendDisk { host } => find(&site, &host)?.mend_disk().await?,
        Verb::Pause { host } => find(&site, &host)?.pause().await?,
        Verb::Resume { host } => find(&site, &host)?.resume().await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn find(site: &Site, name: &str) -> anyhow::Result<Host> {
    Lab::open(site)?
        .into_iter()
        .find(|host| host.name() == name)
        .with_context(|| format!("the lab has no host `{name}`"))
}

/// Never returns, unless it fails.
fn shell(site: &Site, host: &Host) -> anyhow::Error {
    let key = site.dir().join("id_lab");
    let known = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
    let options = known.into_iter().flat_map(|option| ["-o", option]);
    let failed = Command::new("ssh").arg("-i").arg(key).args(options).arg(format!("root@{}", host.address())).exec();
    anyhow::Error::from(failed).context("cannot run ssh")
}

async fn up(site: Site, hosts: u8, memory_mib: u32, bin_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let begun = Instant::now();
    anyhow::ensure!(Lab::open(&site).is_err(), "the lab is up already; `make lab-down` ends it");
    let own = env::current_exe()?;
    let binaries = bin_dir.unwrap_or_else(|| own.parent().unwrap_or(Path::new(".")).to_path_buf());
    let config = Config { hosts, memory_mib, stays: true, ..Config::new(site.clone(), &binaries) };
    let lab = Lab::up(config).await?;
    let environment = site.dir().join("env");
    let (url, key) = (lab.gateway.url(), lab.gateway.key_file());
    let text = format!(
        "CLOUD_ENDPOINT={url}\nCLOUD_API_KEY_FILE={}\nexport CLOUD_ENDPOINT CLOUD_API_KEY_FILE\n",
        key.display()
    );
    std::fs::write(&environment, text)?;
    let (environment, binaries) = (environment.display(), binaries.display());
    println!(
        "
A cloud of {hosts} hosts is up, after {} s. Each is a virtual machine with systemd, LVM, libvirt, KVM and Open vSwitch.
  REST, gRPC, gRPC-Web   {url}
  API key                {}

Things to try:
  . {environment}; PATH={binaries}:$PATH
  cloud host ls
  cloud instance launch --image tiny --name web-01 --wait && cloud instance console web-01
  cloud-lab shell h1                 a shell on a host: systemctl status 'cloud-*', virsh list, lvs
  cloud-lab power-cut h2; cloud host ls; cloud-lab power-on h2
  cloud-lab --help                   what else can happen to a host

`make lab-down` ends it.",
        begun.elapsed().as_secs(),
        key.display()
    );
    Ok(())
}
