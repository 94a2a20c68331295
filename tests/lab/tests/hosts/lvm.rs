//! The storage-agent over real thin volumes.

use std::path::PathBuf;

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
    let command = "chmod 700 /root/lvm-tests && CLOUD_LAB_VG=vg0 CLOUD_STORAGE_AGENT=/usr/bin/cloud-storage-agent /root/lvm-tests --test-threads 1 2>&1";
    let output = host.exec(command).await?;
    anyhow::ensure!(output.status == 0, "{}", output.stdout);
    // It ran them, and not none of them.
    let passed = output.stdout.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ... ok")).count();
    anyhow::ensure!(passed > 10, "{}", output.stdout);
    Ok(())
}
