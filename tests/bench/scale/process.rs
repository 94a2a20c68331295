//! What processes take: processor time and memory.

use std::{fs, time::Instant};

use anyhow::Context as _;
use cloud_testkit::{DaemonProcess, GatewayProcess, PostgresServer};

/// Processor time since a moment, in hundredths of one core.
#[derive(Debug)]
pub struct Shares {
    /// The gateway's.
    pub gateway: f64,
    /// The database server's; 0 where the gateway itself is one.
    pub database: f64,
    /// Of the simulated hosts and the clients, which are this process.
    pub simulation: f64,
}

/// Measures [`Shares`] from its start on.
#[derive(Debug)]
pub struct Meters {
    gateway: Meter,
    database: Meter,
    simulation: Meter,
}

impl Meters {
    /// Begins.
    pub fn start(gateway: &mut GatewayProcess, database: Option<&PostgresServer>) -> anyhow::Result<Self> {
        let gateway = gateway.process().context("the gateway runs")?.pid();
        let database = database.map(PostgresServer::pids).transpose()?.unwrap_or_default();
        Ok(Self {
            gateway: Meter::start([gateway])?,
            database: Meter::start(database)?,
            simulation: Meter::start([std::process::id()])?,
        })
    }

    /// What they took since.
    pub fn read(&self) -> Shares {
        Shares { gateway: self.gateway.read(), database: self.database.read(), simulation: self.simulation.read() }
    }
}

/// Measures the processor time of processes from its start on. One that ends meanwhile is not counted.
#[derive(Debug)]
struct Meter {
    begun: Instant,
    /// What each had taken before.
    ticks: Vec<(u32, u64)>,
}

impl Meter {
    fn start(pids: impl IntoIterator<Item = u32>) -> anyhow::Result<Self> {
        let ticks = pids.into_iter().map(|pid| Ok((pid, ticks(pid)?))).collect::<anyhow::Result<_>>()?;
        Ok(Self { begun: Instant::now(), ticks })
    }

    #[allow(clippy::cast_precision_loss, reason = "hundredths of a second")]
    fn read(&self) -> f64 {
        let used: u64 = self.ticks.iter().filter_map(|(pid, before)| Some(ticks(*pid).ok()? - before)).sum();
        let seconds = used as f64 / rustix::param::clock_ticks_per_second() as f64;
        100.0 * seconds / self.begun.elapsed().as_secs_f64()
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
