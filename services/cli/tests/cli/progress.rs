//! What people at a terminal see.

use std::{io::Read, process::Stdio, time::Duration};

use cloud_contracts::v1::instance::Status as State;
use tokio::time::timeout;

use crate::support::{Fake, Run, instance, terminal};

const PATIENCE: Duration = Duration::from_secs(30);

/// All that is written to the terminal while it runs.
async fn seen(mut run: Run) -> String {
    let (mut ours, theirs) = terminal();
    let theirs = [theirs.try_clone().unwrap(), theirs];
    let [stdout, stderr] = theirs;
    let mut child = run.command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
    // Ours are the last ends of the terminal but for the child's: reading it ends when the child does.
    run.command.stdout(Stdio::null()).stderr(Stdio::null());
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        // A terminal that nobody holds any more reads as EIO.
        let _ = ours.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    assert!(timeout(PATIENCE, child.wait()).await.expect("it does not end").unwrap().success());
    timeout(PATIENCE, reading).await.expect("the terminal stays open").unwrap()
}

async fn launching() -> Fake {
    let gateway = Fake::start().await;
    let starting = || instance("db-01", State::Starting);
    gateway.script([starting(), starting(), starting(), instance("db-01", State::Running)]);
    gateway
}

#[tokio::test]
async fn a_line_moves_and_goes() {
    let gateway = launching().await;
    let run = Run::on(&gateway, "instance launch db-01 --image tiny --wait").env("TERM", "xterm");
    let seen = seen(run).await;
    assert!(seen.contains("instance db-01  STARTING"), "{seen:?}");
    let table = seen.find("NAME").expect("the table");
    assert!(seen[..table].contains("\u{1b}[2K"), "the line is not cleared: {seen:?}");
    assert!(!seen[table..].contains("instance db-01"), "the line stays: {seen:?}");
    assert!(seen[table..].contains("\u{1b}[38;5;10m"), "RUNNING is not green: {seen:?}");
}

#[tokio::test]
async fn no_color_is_heeded() {
    let gateway = launching().await;
    let run = Run::on(&gateway, "instance launch db-01 --image tiny").env("TERM", "xterm").env("NO_COLOR", "1");
    let seen = seen(run).await;
    assert!(seen.contains("STARTING") && !seen.contains('\u{1b}'), "{seen:?}");
}

#[tokio::test]
async fn a_dumb_terminal_gets_plain_lines() {
    let gateway = launching().await;
    let run = Run::on(&gateway, "instance launch db-01 --image tiny --wait").env("TERM", "dumb");
    let seen = seen(run).await;
    assert!(seen.starts_with("instance db-01: STARTING\r\ninstance db-01: RUNNING\r\n"), "{seen:?}");
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
}
