//! The storage-agent over real thin volumes.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::Context as _;
use cloud_lab::Host;
use futures::future::try_join_all;

use crate::lab;

const TESTS: &str = "CLOUD_LAB_VG=vg0 CLOUD_STORAGE_AGENT=/usr/bin/cloud-storage-agent /root/lvm-tests";

#[tokio::test(flavor = "multi_thread")]
async fn the_storage_agents_own_tests_pass_in_a_volume_group() -> anyhow::Result<()> {
    let program = std::env::var_os("CLOUD_LVM_TESTS")
        .map(PathBuf::from)
        .context("CLOUD_LVM_TESTS names the program of the tests `lvm_volumes`: deploy/lab.sh test sets it")?;
    let lab = lab().await?;
    try_join_all(lab.hosts().iter().map(|host| async {
        host.put(&program, "/root/lvm-tests").await?;
        host.sh("chmod 700 /root/lvm-tests").await
    }))
    .await?;
    let list = lab.host("h1")?.sh("/root/lvm-tests --list --format terse").await?;
    let names: Vec<String> = list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    anyhow::ensure!(names.len() > 10, "these are the tests: {list}");
    // A command on a host has ten minutes, so one by one; each host takes the next that none has taken.
    let waiting = Mutex::new(names);
    let failed = try_join_all(lab.hosts().iter().map(|host| some_of(host, &waiting))).await?.concat();
    anyhow::ensure!(failed.is_empty(), "{failed:?} failed");
    Ok(())
}

/// Runs tests on a host until none is waiting; those that failed.
async fn some_of(host: &Host, waiting: &Mutex<Vec<String>>) -> anyhow::Result<Vec<String>> {
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut failed = Vec::new();
    while let Some(name) = next() {
        let begun = Instant::now();
        let output = host.exec(&format!("{TESTS} --exact {name} 2>&1")).await?;
        let passed = output.status == 0 && output.stdout.contains("1 passed");
        let how = if passed { "ok" } else { "FAILED" };
        println!("{} {name}: {how} in {} s", host.name(), begun.elapsed().as_secs());
        if !passed {
            println!("{}", output.stdout);
            failed.push(name);
        }
    }
    Ok(failed)
}
