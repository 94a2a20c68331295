//! Programs of this machine, and processes by their ids.

use std::{ffi::OsStr, fmt::Display, fs, future::Future, path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Command, time::Instant};

/// Administrators' tools are not on every user's path.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with the path that it needs.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", PATH).stdin(Stdio::null());
    command
}

/// Runs a program to its end, and returns what it printed.
pub async fn run(name: impl AsRef<OsStr>, args: &[&str]) -> anyhow::Result<String> {
    let shown = format!("{} {}", name.as_ref().to_string_lossy(), args.join(" "));
    let output = program(name).args(args).output().await.with_context(|| format!("cannot run {shown}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    anyhow::ensure!(
        output.status.success(),
        "{shown}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// The process in a pid file, if it runs and has `word` among its arguments.
pub fn running(pid_file: &Path, word: &str) -> Option<i32> {
    let pid = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    runs(pid, word).then_some(pid)
}

fn runs(pid: i32, word: &str) -> bool {
    // That of a process that has ended and was not waited for is empty.
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&arguments).contains(word)
}

/// Ends a process by a signal, and waits until it has ended.
pub async fn end(pid: i32, word: &str, signal: Signal) -> anyhow::Result<()> {
    let process = Pid::from_raw(pid).context("a process id is not 0")?;
    match kill_process(process, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot end process {pid}")),
    }
    eventually(&format!("process {pid} ({word}) to end"), Duration::from_secs(20), || async {
        Ok(if runs(pid, word) { Err("it runs") } else { Ok(()) })
    })
    .await
}

/// Asks `probe` ten times a second until it answers `Ok(Ok(value))`; `Ok(Err(why))` is "not yet".
pub async fn eventually<T, W, F>(what: &str, patience: Duration, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    W: Display,
    F: Future<Output = anyhow::Result<Result<T, W>>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match probe().await? {
            Ok(value) => return Ok(value),
            Err(not_yet) if Instant::now() >= deadline => {
                anyhow::bail!("waited {} s for {what}: {not_yet}", patience.as_secs());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The end of a text file.
pub fn tail(path: &Path, bytes: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(bytes)..]).into_owned()
}
