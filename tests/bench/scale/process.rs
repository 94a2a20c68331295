//! What a process takes: processor time and memory.

use std::{fs, future::Future, time::Instant};

use anyhow::Context as _;
use cloud_testkit::DaemonProcess;

/// What a process took while something went on.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Hundredths of one core.
    pub cpu_percent: f64,
}

impl Usage {
    /// Measures from now until `work` has ended.
    pub async fn over(process: &DaemonProcess, work: impl Future<Output = ()>) -> anyhow::Result<Self> {
        let meter = Meter::start(process.pid())?;
        work.await;
        meter.read()
    }
}

/// Measures the processor time of a process from its start on.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    begun: Instant,
    ticks: u64,
}

impl Meter {
    /// Begins.
    pub fn start(pid: u32) -> anyhow::Result<Self> {
        Ok(Self { pid, begun: Instant::now(), ticks: ticks(pid)? })
    }

    /// What it took since.
    #[allow(clippy::cast_precision_loss, reason = "hundredths of a second")]
    pub fn read(&self) -> anyhow::Result<Usage> {
        let used = (ticks(self.pid)? - self.ticks) as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Usage { cpu_percent: 100.0 * used / self.begun.elapsed().as_secs_f64() })
    }
}

/// User and system time, in clock ticks: fields 14 and 15 of proc_pid_stat(5).
fn ticks(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("a name in parentheses")?;
    let field = |i: usize| -> anyhow::Result<u64> { Ok(rest.split_whitespace().nth(i).context("a field")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

/// Resident memory.
pub fn megabytes(process: &DaemonProcess) -> anyhow::Result<f64> {
    #[allow(clippy::cast_precision_loss, reason = "bytes of one process")]
    let bytes = process.resident_bytes()? as f64;
    Ok(bytes / 1e6)
}
