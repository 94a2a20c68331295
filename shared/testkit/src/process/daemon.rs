//! Any daemon of the cloud as a child process.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// How many bytes of a log an error shows.
const LOG_TAIL: usize = 4_000;

/// Where a binary of this workspace is: `$CLOUD_BIN_DIR`, or beside the test that runs (`target/<profile>`).
///
/// # Errors
/// It is not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let dir = match env::var_os("CLOUD_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let own = env::current_exe()?;
            let dir = own.parent().context("a test has a directory")?;
            // Tests lie in target/<profile>/deps.
            let dir = if dir.file_name() == Some(OsStr::new("deps")) { dir.parent().unwrap_or(dir) } else { dir };
            dir.to_path_buf()
        }
    };
    let path = dir.join(name);
    anyhow::ensure!(path.is_file(), "{} is not built: run `cargo build --bins` first", path.display());
    Ok(path)
}

/// A daemon that runs as a child of this process, with its output in a file. Killed when dropped.
#[derive(Debug)]
pub struct DaemonProcess {
    name: String,
    child: Child,
    log: PathBuf,
}

impl DaemonProcess {
    /// Starts `program` with its output appended to `log`, with no variable `CLOUD_*` of this process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(program: &Path, args: &[String], envs: &[(String, String)], log: &Path) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLOUD_")) {
            command.env_remove(name);
        }
        let child = command
            .args(args)
            .envs(envs.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, child, log: log.to_path_buf() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    ///
    /// # Errors
    /// It is gone.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and waits for the end for up to `patience`.
    ///
    /// # Errors
    /// It goes on running.
    pub async fn terminate(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let name = self.name.clone();
        until(&format!("{name} to end after SIGTERM"), patience, || {
            let status = self.child.try_wait();
            async move { Ok(status?.ok_or("it runs")) }
        })
        .await
    }

    /// How it ended; `None`: it runs.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Its resident memory in bytes (`VmRSS` of proc_pid_status(5)).
    ///
    /// # Errors
    /// It is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        resident_bytes(self.pid())
    }

    /// What it wrote last.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL)..]).into_owned()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        kill_process(pid, signal).map_err(Into::into)
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        // Already ended: nothing to do.
        let _ended = self.kill();
    }
}

/// The resident memory of a process in bytes.
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("the process has ended")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
