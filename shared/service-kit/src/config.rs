//! The configuration of a daemon: one clap struct, filled from flags, the environment and a TOML file, in this order of precedence.
//!
//! The file's keys are the flags' names (`log-level` or `log_level`); a table is a common prefix, so `[tls] cert = "…"` is
//! `--tls-cert`. The values become the flags' defaults before clap parses the command line, so that they are checked as if they
//! had been given there.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args, Parser};

use crate::{Address, telemetry::TelemetryConfig};

/// The flags that every daemon has; `#[command(flatten)]` it.
#[derive(Debug, Clone, Default, Args)]
pub struct DaemonArgs {
    /// A TOML file with values for flags that are given neither on the command line nor in the environment.
    #[arg(long, env = "CLOUD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen: `unix:/path`, `tcp:host:port` or `host:port`.
    #[arg(long, env = "CLOUD_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Address>,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file has a key that is no flag.
    #[error("{} has the unknown key `{key}`; known are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// All keys that there are.
        known: String,
    },
    /// The file has a value of a kind that no flag takes.
    #[error("{}: the value of `{key}` must be a text, a number, true, false, or a list of these", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// clap's own errors, `--help` and `--version` included.
    #[error(transparent)]
    Flags(#[from] clap::Error),
}

/// Reads this process's configuration. Ends the process for `--help`, `--version` and wrong flags, as clap does.
///
/// # Errors
/// The file cannot be read or has what it should not.
pub fn load<T: Parser>() -> Result<T, ConfigError> {
    load_from(env::args_os()).map_err(|error| match error {
        ConfigError::Flags(error) => error.exit(),
        other => other,
    })
}

/// Reads a configuration from the given command line, the program's name first.
///
/// # Errors
/// As [`load`], with clap's errors as [`ConfigError::Flags`].
pub fn load_from<T: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, ConfigError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = T::command();
    if let Some(path) = config_path(&args) {
        let values = read(&path)?;
        command = with_defaults(command, &path, values)?;
    }
    let matches = command.try_get_matches_from(args)?;
    Ok(T::from_arg_matches(&matches)?)
}

/// The file named by `--config` or, without that, by the environment.
fn config_path(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|a| *a != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    env::var_os("CLOUD_CONFIG").filter(|path| path != OsStr::new("")).map(PathBuf::from)
}

fn read(path: &Path) -> Result<Vec<(String, toml::Value)>, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let table: toml::Table =
        text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let mut values = Vec::new();
    flatten("", table, &mut values);
    Ok(values)
}

fn flatten(prefix: &str, table: toml::Table, values: &mut Vec<(String, toml::Value)>) {
    for (key, value) in table {
        let key = format!("{prefix}{}", key.replace('_', "-"));
        match value {
            toml::Value::Table(inner) => flatten(&format!("{key}-"), inner, values),
            other => values.push((key, other)),
        }
    }
}

fn with_defaults(
    mut command: clap::Command,
    path: &Path,
    values: Vec<(String, toml::Value)>,
) -> Result<clap::Command, ConfigError> {
    for (key, value) in values {
        let arg = command.get_arguments().find(|a| a.get_long() == Some(&key) && settable(a));
        let Some(id) = arg.map(|a| a.get_id().clone()) else {
            let known: Vec<_> =
                command.get_arguments().filter(|a| settable(a)).filter_map(clap::Arg::get_long).collect();
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key, known: known.join(", ") });
        };
        let values = texts(value).ok_or_else(|| ConfigError::Value { path: path.to_owned(), key })?;
        command = command.mut_arg(id, |arg| arg.default_values(values).required(false));
    }
    Ok(command)
}

/// Whether a file may set it: not the file's own path, nor `--help`.
fn settable(arg: &clap::Arg) -> bool {
    let action = arg.get_action();
    arg.get_long().is_some_and(|long| long != "config")
        && matches!(action, ArgAction::Set | ArgAction::Append | ArgAction::SetTrue | ArgAction::SetFalse)
}

/// A value as the command line would have it.
fn texts(value: toml::Value) -> Option<Vec<String>> {
    Some(match value {
        toml::Value::String(text) => vec![text],
        toml::Value::Integer(number) => vec![number.to_string()],
        toml::Value::Float(number) => vec![number.to_string()],
        toml::Value::Boolean(truth) => vec![truth.to_string()],
        toml::Value::Array(values) => values
            .into_iter()
            .map(|value| if value.is_array() { None } else { texts(value)?.pop() })
            .collect::<Option<_>>()?,
        toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
    })
}

#[cfg(test)]
mod tests;
