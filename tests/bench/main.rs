//! `cloud-bench`: measures the cloud's budgets and prints a table. Run by `make bench`, in release.
//!
//! Everything that is compared is measured in one run on one machine, in turns, so that what else the machine does meets both sides alike.
//! Reference servers ("bare") run as processes of their own, started from this very binary.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bare;
mod create;
mod launch;
mod load;
mod memory;
mod native;
mod place;
mod read;
mod scale;
mod table;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, Subcommand};

use table::Table;

/// Measures the budgets and prints a table.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// How long each measurement of throughput takes, in seconds.
    #[arg(long, default_value_t = 3, global = true)]
    seconds: u64,
    /// How many turns each side of a comparison gets.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
    /// The guest image to launch; by default `.cache/tiny.qcow2`.
    #[arg(long, env = "CLOUD_TINY_IMAGE", default_value = ".cache/tiny.qcow2", global = true)]
    image: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All of them (the default).
    All,
    /// (a) Launch to RUNNING against the same work by native commands. Needs root, libvirtd and Open vSwitch.
    Launch,
    /// (b) GetInstance against bare handlers.
    Read,
    /// (c) POST /instances while launches are under way.
    Create,
    /// (d) Resident memory. Needs root, libvirtd and Open vSwitch.
    Memory,
    /// (e) Many hosts and instances, on both databases, with simulated agents.
    Scale(scale::Args),
    /// Draws how the figures of (e) grow.
    Plot(scale::plot::Args),
    /// (f) Placement of an instance over 1,000 hosts, on both databases.
    Place(place::Args),
    /// A reference server; started by the benchmark itself.
    #[command(hide = true)]
    Bare(bare::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let what = args.what.unwrap_or(What::All);
    if let What::Bare(bare) = what {
        return bare::serve(bare).await;
    }
    if let What::Plot(plot) = what {
        return scale::plot::draw(&plot);
    }
    let mut table = Table::default();
    let done = measure(&mut table, what, &args.image, (args.rounds, Duration::from_secs(args.seconds))).await;
    // What was measured before something failed, too.
    println!("{table}");
    done?;
    anyhow::ensure!(table.all_met(), "a budget is not met");
    Ok(())
}

async fn measure(table: &mut Table, what: What, image: &Path, (rounds, time): (usize, Duration)) -> anyhow::Result<()> {
    let turns = load::Turns { rounds, time };
    let all = matches!(what, What::All);
    if all || matches!(what, What::Read) {
        read::measure(table, turns).await?;
    }
    if all || matches!(what, What::Create) {
        create::measure(table).await?;
    }
    if all || matches!(what, What::Launch) {
        launch::measure(table, image, rounds).await?;
    }
    if all || matches!(what, What::Memory) {
        memory::measure(table).await?;
    }
    match &what {
        What::All => place::measure(table, &place::Args::default()).await?,
        What::Place(size) => place::measure(table, size).await?,
        _ => {}
    }
    match what {
        What::All => scale::measure(table, &scale::Args::default()).await?,
        What::Scale(size) => scale::measure(table, &size).await?,
        _ => {}
    }
    Ok(())
}
