//! The storage-agent over real thin volumes.

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;

use crate::lab;

#[tokio::test(flavor = "multi_thread")]
async fn the_storage_agents_own_tests_pass_in_a_volume_group() -> anyhow::Result<()> {
    let tests = std::env::var_os("CLOUD_LVM_TESTS")
        .map(PathBuf::from)
        .context("CLOUD_LVM_TESTS names the program of the tests `lvm_volumes`: deploy/lab.sh test sets it")?;
    let lab = lab().await?;
    let host = lab.host("h1")?;
    host.put(&tests, "/root/lvm-tests").await?;
    let tests = "CLOUD_LAB_VG=vg0 CLOUD_STORAGE_AGENT=/usr/bin/cloud-storage-agent /root/lvm-tests";
    let list = host.sh("chmod 700 /root/lvm-tests && /root/lvm-tests --list --format terse").await?;
    let names: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    anyhow::ensure!(names.len() > 10, "these are the tests: {list}");
    // One by one: a command on a host has ten minutes.
    let mut failed = Vec::new();
    for name in names {
        let begun = Instant::now();
        let output = host.exec(&format!("{tests} --exact {name} 2>&1")).await?;
        let passed = output.status == 0 && output.stdout.contains("1 passed");
        println!("{name}: {} in {} s", if passed { "ok" } else { "FAILED" }, begun.elapsed().as_secs());
        if !passed {
            println!("{}", output.stdout);
            failed.push(name);
        }
    }
    anyhow::ensure!(failed.is_empty(), "{failed:?} failed");
    Ok(())
}
