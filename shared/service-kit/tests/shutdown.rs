//! Signals, in a process of their own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use cloud_service_kit::shutdown;
use rustix::process::{Signal, getpid, kill_process};

/// One test only: signals are delivered to the whole process.
#[tokio::test]
async fn the_first_signal_asks_and_the_second_ends() {
    if std::env::var_os("SHUTDOWN_TEST_CHILD").is_some() {
        return child().await;
    }
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .env("SHUTDOWN_TEST_CHILD", "1")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("ends in time").unwrap();
    assert_eq!(status.code(), Some(130), "{status}");
}

async fn child() {
    let token = shutdown::signals().unwrap();
    assert!(!token.is_cancelled());
    kill_process(getpid(), Signal::TERM).unwrap();
    tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.expect("cancelled");
    kill_process(getpid(), Signal::INT).unwrap();
    std::future::pending::<()>().await;
}
