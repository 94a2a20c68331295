//! `cloud-sim`: the real gateway with simulated hosts, for programs that test it from outside. Runs until SIGTERM or SIGINT, and then
//! says whether the gateway stayed sound: it fails if the gateway ended, panicked or did on a host what a correct one never does.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use cloud_tests::{Setup, TestCloud, chaos, cloud::IMAGE};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// Runs the real gateway with simulated hosts.
#[derive(Debug, Parser)]
struct Args {
    /// How many hosts.
    #[arg(long, default_value_t = 2)]
    hosts: usize,
    /// Where to write `CLOUD_ENDPOINT=…` and `CLOUD_API_KEY_FILE=…` once the cloud is ready; as a file, for a script that waits for it.
    #[arg(long)]
    ready: Option<PathBuf>,
    /// Where to keep the gateway's log; by default it goes with the cloud.
    #[arg(long)]
    log: Option<PathBuf>,
    /// More flags for the gateway, after `--`.
    #[arg(last = true)]
    gateway: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut cloud = TestCloud::with(Setup { hosts: args.hosts, args: args.gateway, ..Setup::default() }).await?;
    // Something of each kind, so that reads find something.
    cloud.running("web-01").await?;
    cloud.rest.post("/volumes", &json!({"name": "data-01", "size_gib": 1})).await?.expect(201)?;
    let env =
        format!("CLOUD_ENDPOINT={}\nCLOUD_API_KEY_FILE={}\n", cloud.gateway.url(), cloud.gateway.key_file().display());
    print!("{env}");
    if let Some(ready) = &args.ready {
        // Whole or not at all, for whoever waits.
        let new = ready.with_extension("new");
        std::fs::write(&new, &env).with_context(|| format!("cannot write {}", new.display()))?;
        std::fs::rename(&new, ready)?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        kept = keep_image(&cloud) => kept?,
    }
    let sound = is_sound(&mut cloud).await;
    if let Some(log) = &args.log {
        std::fs::copy(cloud.gateway.dir().join("gateway.log"), log)?;
    }
    sound
}

/// Keeps something to launch from, whatever callers delete.
async fn keep_image(cloud: &TestCloud) -> anyhow::Result<()> {
    loop {
        if cloud.rest.get(&format!("/images/{IMAGE}")).await?.status == 404 {
            // A caller may have been faster.
            let _taken = cloud.upload(IMAGE, vec![0x5a; 1 << 20]).await?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn is_sound(cloud: &mut TestCloud) -> anyhow::Result<()> {
    chaos::daemon_is_sound(&mut cloud.gateway).await?;
    cloud.check()?;
    cloud.launches_something_new().await.context("no launch works any more")?;
    chaos::daemon_is_sound(&mut cloud.gateway).await?;
    println!("the gateway is sound");
    Ok(())
}
