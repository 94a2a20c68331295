//! A private PostgreSQL server on a Unix socket: made, stopped, crashed, paused and removed by a test.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// Where Debian and its kin have the servers' programs, a directory for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Whom the server runs as where the test is root: it refuses to be root itself.
const USER: &str = "postgres";

/// A PostgreSQL server in a directory of its own. Dropping it removes it.
#[derive(Debug)]
pub struct PostgresServer {
    dir: tempfile::TempDir,
    bin: PathBuf,
    durable: bool,
}

impl PostgresServer {
    /// Makes and starts one.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start() -> anyhow::Result<Self> {
        Self::make(false)
    }

    /// Makes and starts one that flushes what it commits to the disk, for benchmarks.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn durable() -> anyhow::Result<Self> {
        Self::make(true)
    }

    fn make(durable: bool) -> anyhow::Result<Self> {
        let versions = fs::read_dir(VERSIONS).context("PostgreSQL is not installed")?;
        let newest = versions.flatten().map(|e| e.path()).max().context("PostgreSQL is not installed")?;
        let dir = tempfile::Builder::new().prefix("cloud-pg-").tempdir()?;
        if geteuid().is_root() {
            chown(dir.path(), Some(user_id()?), None)?;
        }
        let server = Self { dir, bin: newest.join("bin"), durable };
        server.run("initdb", &["--auth=trust", "--username=cloud", "--no-sync", "-D", &server.path("data")])?;
        server.restart()?;
        Ok(server)
    }

    /// Starts it, stopped or crashed before; returns when it takes connections.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        // Crashes are of the process, not of the machine: what the kernel has been given is safe without fsync.
        let fsync = if self.durable { "on" } else { "off" };
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories={} -c fsync={fsync}", self.dir.path().display());
        self.run("pg_ctl", &["-w", "-D", &self.path("data"), "-l", &self.path("log"), "-o", &options, "start"])
    }

    /// Ends it in order: transactions under way are rolled back, connections closed.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.run("pg_ctl", &["-w", "-D", &self.path("data"), "-m", "fast", "stop"])
    }

    /// Ends it as a crash does: its next start recovers from the log.
    ///
    /// # Errors
    /// It does not end.
    pub fn crash(&self) -> anyhow::Result<()> {
        self.run("pg_ctl", &["-w", "-D", &self.path("data"), "-m", "immediate", "stop"])
    }

    /// SIGSTOP to all of its processes: connections stay open, and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Counts what is in its tables and gives back what was overwritten, as it does by itself in the minutes after much was written.
    ///
    /// # Errors
    /// It does not run.
    pub fn settle(&self) -> anyhow::Result<()> {
        let socket = self.dir.path().display().to_string();
        self.run("vacuumdb", &["--all", "--full", "--analyze", "--quiet", "--username=cloud", "--host", &socket])
    }

    /// Its processes' ids.
    ///
    /// # Errors
    /// It does not run.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        // The first line of postmaster.pid (storage-file-layout in PostgreSQL's manual).
        let file = fs::read_to_string(self.path("data/postmaster.pid")).context("the server does not run")?;
        let main: u32 = file.lines().next().unwrap_or_default().trim().parse()?;
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children"))?;
        let children = children.split_whitespace().map(|child| Ok(child.parse()?));
        std::iter::once(Ok(main)).chain(children).collect()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The first one before its children, so that there are no new ones.
        send(*self.pids()?.first().context("the server does not run")?, signal)?;
        for child in self.pids()?.into_iter().skip(1) {
            // One that has ended since needs no signal.
            let _ended = send(child, signal);
        }
        Ok(())
    }

    /// What a gateway is given as `--database`.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.dir.path())
    }

    /// The socket it listens on.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(".s.PGSQL.5432")
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<()> {
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", USER, "--"]).arg(self.bin.join(program));
            command
        } else {
            Command::new(self.bin.join(program))
        };
        command.args(args).current_dir(self.dir.path());
        // pg_ctl hands its standard output down to the server: a pipe would never end.
        let path = self.dir.path().join(format!("{program}.out"));
        let log = fs::File::options().create(true).append(true).open(&path)?;
        let status = command.stdout(log.try_clone()?).stderr(log).status()?;
        anyhow::ensure!(status.success(), "{program}: {}", fs::read_to_string(path)?);
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Stopped already, or never started: nothing to do.
        let _thawed = self.thaw();
        let _stopped = self.crash();
    }
}

/// A connection URL for the server whose socket is in this directory.
#[must_use]
pub fn url(dir: &Path) -> String {
    format!("postgres://cloud@{}/postgres", dir.display().to_string().replace('/', "%2F"))
}

fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    kill_process(Pid::from_raw(pid.cast_signed()).context("0 is no process")?, signal)?;
    Ok(())
}

fn user_id() -> anyhow::Result<u32> {
    let output = Command::new("id").args(["-u", USER]).output()?;
    String::from_utf8(output.stdout)?.trim().parse().with_context(|| format!("there is no user {USER}"))
}
