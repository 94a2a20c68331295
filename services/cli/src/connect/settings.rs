//! Which gateway, which key, which project: flags and environment first, then `.run/env`, then the user's own configuration, then
//! what a one-machine cloud has.
//!
//! A key that was found and not given is sent only where it belongs: the checkout's to the endpoint of its `.run/env`, the
//! machine's to a loopback address.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    key::{self, Key},
    places::Places,
    run_env::{self, RunEnv},
};
use crate::{args::Connection, error::Error};

/// The endpoint where nothing names another.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:8080";

/// All that is needed to connect.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http://…` or `https://…`.
    pub endpoint: String,
    /// The key and where it came from.
    pub key: Key,
    /// What `x-project` says.
    pub project: Option<String>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// `config.toml` in the user's configuration directory.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    endpoint: Option<String>,
    api_key_file: Option<PathBuf>,
    project: Option<String>,
    ca_file: Option<PathBuf>,
}

impl Settings {
    /// Finds them.
    pub fn find(given: Connection, places: &Places) -> Result<Self, Error> {
        let given = without_empty(given);
        let run = places.working.as_deref().and_then(run_env::find);
        let config = read_config(places)?;
        let endpoint = given
            .endpoint
            .clone()
            .or_else(|| run.as_ref().and_then(|run| run.endpoint.clone()))
            .or_else(|| config.endpoint.clone())
            .unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let in_checkout = run.filter(|run| same(run.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT), &endpoint));
        let key = find_key(&given, in_checkout.as_ref(), &config, places, &endpoint)?;
        let project = given.project.or_else(|| in_checkout.and_then(|run| run.project)).or(config.project);
        Ok(Self { endpoint, key, project, ca_file: given.ca_file.or(config.ca_file) })
    }
}

/// An empty variable is one that is not set.
fn without_empty(given: Connection) -> Connection {
    Connection {
        endpoint: given.endpoint.filter(|text| !text.is_empty()),
        api_key_file: given.api_key_file.filter(|path| !path.as_os_str().is_empty()),
        project: given.project.filter(|text| !text.is_empty()),
        request_id: given.request_id,
        ca_file: given.ca_file.filter(|path| !path.as_os_str().is_empty()),
    }
}

fn read_config(places: &Places) -> Result<Config, Error> {
    let Some(path) = places.config.as_ref().map(|dir| dir.join("config.toml")) else { return Ok(Config::default()) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(source) => return Err(Error::Read { path, source }),
    };
    let mut config: Config =
        toml::from_str(&text).map_err(|error| Error::usage(format!("{}: {}", path.display(), error.message())))?;
    let beside = |file: PathBuf| path.parent().unwrap_or(Path::new("/")).join(file);
    config.api_key_file = config.api_key_file.map(beside);
    config.ca_file = config.ca_file.map(beside);
    Ok(config)
}

fn find_key(
    given: &Connection,
    run: Option<&RunEnv>,
    config: &Config,
    places: &Places,
    endpoint: &str,
) -> Result<Key, Error> {
    if let Some(path) = &given.api_key_file {
        return key::read(path);
    }
    if let Some(text) = places.api_key.as_ref().filter(|text| !text.is_empty()) {
        return key::parse(text, "CLOUD_API_KEY");
    }
    if let Some(path) = run.and_then(|run| run.api_key_file.as_ref()) {
        return key::read(path);
    }
    if let Some(path) = &config.api_key_file {
        return key::read(path);
    }
    let mut searched = vec!["--api-key-file, CLOUD_API_KEY_FILE, CLOUD_API_KEY: not given".to_owned()];
    let mut candidates: Vec<PathBuf> = places.config.iter().map(|dir| dir.join("api.key")).collect();
    if is_loopback(endpoint) {
        candidates.push(places.machine_key.clone());
    }
    for path in candidates {
        match key::read(&path) {
            Ok(key) => return Ok(key),
            Err(Error::KeyFile { source, .. }) => searched.push(format!("{}: {source}", path.display())),
            Err(other) => return Err(other),
        }
    }
    Err(Error::NoKey { searched })
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Whether a URL leads to this machine and no other.
pub fn is_loopback(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
