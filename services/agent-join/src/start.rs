//! Starting the agents.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use cloud_domain::Daemon;

use crate::{
    args::{Args, Start},
    error::Error,
    files::{Files, write},
};

/// How long an agent is looked at after its start: a wrong setting ends it at once.
const SETTLE: Duration = Duration::from_secs(2);

/// Starts them as asked.
pub async fn start(args: &Args, files: &Files) -> Result<(), Error> {
    let systemd = Path::new("/run/systemd/system").is_dir() && Daemon::ALL.into_iter().all(has_unit);
    match args.start() {
        Start::No => {
            println!("the agents were not started");
            Ok(())
        }
        Start::Auto if systemd => units(),
        Start::Systemd => units(),
        Start::Auto | Start::Processes => processes(args, files).await,
    }
}

fn unit(daemon: Daemon) -> String {
    format!("cloud-{}.service", daemon.as_str())
}

fn has_unit(daemon: Daemon) -> bool {
    let found =
        Command::new("systemctl").args(["cat", &unit(daemon)]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Units wait for the configuration (`ConditionPathExists`), so enabling them before would have done no harm.
fn units() -> Result<(), Error> {
    let units = Daemon::ALL.map(unit);
    for verb in [["enable"].as_slice(), ["restart"].as_slice()] {
        let what = || format!("systemctl {}", verb.join(" "));
        let status = Command::new("systemctl").args(verb).args(&units).status();
        let status = status.map_err(|source| Error::Start { what: what(), source })?;
        if !status.success() {
            let source = io::Error::other(format!("it ended with {status}"));
            return Err(Error::Start { what: what(), source });
        }
    }
    println!("started by systemd: {}", units.join(", "));
    Ok(())
}

async fn processes(args: &Args, files: &Files) -> Result<(), Error> {
    let run = files.run();
    fs::create_dir_all(&run).map_err(|source| Error::File { what: "make", path: run.clone(), source })?;
    let mut started = Vec::new();
    for daemon in Daemon::ALL {
        let name = format!("cloud-{}", daemon.as_str());
        let pid_file = run.join(format!("{}.pid", daemon.as_str()));
        if let Some(pid) = running(&pid_file, &name) {
            // It takes over the new certificate by itself.
            println!("{name} runs already (process {pid})");
            continue;
        }
        let log = run.join(format!("{}.log", daemon.as_str()));
        let failed = |source| Error::Start { what: name.clone(), source };
        let output = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let child = Command::new(program(args, &name))
            .arg("--config")
            .arg(files.config(daemon))
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            // Not ended with this command's terminal.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        write(&pid_file, &format!("{}\n", child.id()), 0o644)?;
        println!("started {name} (process {}, log {})", child.id(), log.display());
        started.push((name, child, log));
    }
    let until = Instant::now() + SETTLE;
    while Instant::now() < until {
        for (name, child, log) in &mut started {
            let ended = child.try_wait().map_err(|source| Error::Start { what: name.clone(), source })?;
            if let Some(status) = ended {
                let (what, status, log) = (name.clone(), status.to_string(), log.display().to_string());
                return Err(Error::Ended { what, status, log });
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if !started.is_empty() {
        println!(
            "nothing starts them again after a crash or a reboot: on a machine without systemd, that is for your own supervisor"
        );
    }
    Ok(())
}

/// The process of an earlier start, if it runs and is the agent.
fn running(pid_file: &Path, name: &str) -> Option<u32> {
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = command.split(|byte| *byte == 0).next()?;
    String::from_utf8_lossy(program).ends_with(name).then_some(pid)
}

fn program(args: &Args, name: &str) -> PathBuf {
    if let Some(dir) = &args.bin_dir {
        return dir.join(name);
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}
