//! What is written on the host.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use cloud_domain::{Daemon, HostId};
use cloud_service_kit::tls::CredentialFiles;
use toml::{Table, Value};

use crate::{
    args::{Args, Plan},
    error::Error,
    join::{Joined, Keys},
};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Where everything is.
#[derive(Debug)]
pub struct Files {
    config: PathBuf,
    state: PathBuf,
}

/// What was on the host before.
#[derive(Debug)]
pub struct Present {
    /// The host's id.
    pub host: Option<HostId>,
    /// It has joined, and its certificates count for so many days.
    pub joined: Option<u64>,
    /// It joined at some time.
    pub had_certificates: bool,
}

impl Files {
    /// As the command line says.
    pub fn new(args: &Args) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { config: absolute(&args.config_dir), state: absolute(&args.state_dir) }
    }

    /// The directory of keys and certificates.
    pub fn tls(&self) -> PathBuf {
        self.state.join("tls")
    }

    /// The directory of logs and process ids.
    pub fn run(&self) -> PathBuf {
        self.state.join("run")
    }

    /// An agent's configuration.
    pub fn config(&self, daemon: Daemon) -> PathBuf {
        self.config.join(format!("{}.toml", daemon.as_str()))
    }

    fn host_id(&self) -> PathBuf {
        self.state.join("host-id")
    }

    fn credentials(&self, daemon: Daemon) -> CredentialFiles {
        let tls = self.tls();
        CredentialFiles {
            certificate: tls.join(format!("{}.pem", daemon.role())),
            key: tls.join(format!("{}.key", daemon.role())),
            // One for each: an agent that renews its certificate writes its own files only.
            authorities: tls.join(format!("{}.ca.pem", daemon.role())),
        }
    }

    /// What is there already.
    pub fn present(&self) -> Result<Present, Error> {
        let path = self.host_id();
        let host = match fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().parse().map_err(|_| Error::HostId(path))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::File { what: "read", path, source }),
        };
        let all: Vec<_> = Daemon::ALL.into_iter().map(|daemon| self.credentials(daemon)).collect();
        // Whole and of now: what a join that was cut off left is no reason not to join.
        let ends = all.iter().map(|files| files.load().ok().map(|material| material.validity.until));
        let end: Option<SystemTime> = ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().min());
        let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok());
        let had_certificates = all.iter().any(|files| files.certificate.exists());
        Ok(Present { host, joined: left.map(|left| left.as_secs() / DAY), had_certificates })
    }

    /// Sees that all can be written, before the token is used.
    pub fn prepare(&self, known: &Present, args: &Args) -> Result<(), Error> {
        for (dir, mode) in [(&self.config, 0o755), (&self.state, 0o755), (&self.tls(), 0o700)] {
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(dir);
            made.map_err(|source| Error::File { what: "make", path: dir.clone(), source })?;
            let probe = dir.join(".cloud-agent-join~");
            write(&probe, "", 0o600)?;
            fs::remove_file(&probe).map_err(|source| Error::File { what: "remove", path: probe, source })?;
        }
        for daemon in Daemon::ALL {
            let config = self.config(daemon);
            if !known.had_certificates && !args.rewrite_config && config.exists() {
                return Err(Error::Configured(config));
            }
        }
        Ok(())
    }

    /// Writes keys, certificates, the host's id and the agents' configuration; the latter not where it shall be kept. Whether it was.
    pub fn write(&self, keys: &Keys, joined: &Joined, plan: &Plan, keep: bool) -> Result<bool, Error> {
        write(&self.host_id(), &format!("{}\n", joined.host), 0o644)?;
        for ((daemon, key), (_, certificate)) in keys.iter().zip(&joined.certificates) {
            let files = self.credentials(*daemon);
            write(&files.authorities, &joined.authorities, 0o644)?;
            write(&files.key, key, 0o600)?;
            write(&files.certificate, certificate, 0o644)?;
        }
        let keep = keep && Daemon::ALL.into_iter().all(|daemon| self.config(daemon).exists());
        if !keep {
            for ((daemon, listen), (_, settings)) in plan.listen.iter().zip(&plan.settings) {
                let text = self.configuration(*daemon, listen, settings, joined, plan)?;
                write(&self.config(*daemon), &text, 0o644)?;
            }
        }
        Ok(keep)
    }

    fn configuration(
        &self,
        daemon: Daemon,
        listen: &str,
        settings: &[(String, String)],
        joined: &Joined,
        plan: &Plan,
    ) -> Result<String, Error> {
        let path = |path: &Path| Value::String(path.display().to_string());
        let files = self.credentials(daemon);
        let mut table = Table::new();
        let mut set = |key: &str, value: Value| table.insert(key.to_owned(), value);
        set("listen", Value::String(listen.to_owned()));
        set("gateway", Value::Array(plan.gateways.iter().cloned().map(Value::String).collect()));
        set("host-name", Value::String(joined.name.clone()));
        set("host-id-file", path(&self.host_id()));
        set("state-dir", path(&self.state));
        set("tls-cert", path(&files.certificate));
        set("tls-key", path(&files.key));
        set("tls-ca", path(&files.authorities));
        for (key, value) in settings {
            if set(key, Value::String(value.clone())).is_some() {
                return Err(Error::Setting(key.clone()));
            }
        }
        match daemon {
            Daemon::Compute => {}
            Daemon::Storage => {
                table.entry("pool-dir").or_insert(path(&self.state.join("pools/default")));
            }
            Daemon::Network => {
                if let Some(address) = plan.tunnel_address {
                    table.entry("tunnel-address").or_insert(Value::String(address.to_string()));
                }
            }
        }
        Ok(format!(
            "# Written by cloud-agent-join; `cloud-{} --help` says what else can be set.\n{table}",
            daemon.as_str()
        ))
    }
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push("~");
    let temporary = PathBuf::from(temporary);
    let failed = |source| Error::File { what: "write", path: path.to_owned(), source };
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let written = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    written().map_err(failed)
}
