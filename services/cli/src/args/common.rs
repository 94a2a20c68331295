//! Arguments that several verbs have.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, ValueEnum};

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// The JSON of the REST API.
    Json,
    /// The same as YAML.
    Yaml,
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OutputArgs {
    /// How to print: `table` for people; `json` and `yaml` are those of the REST API
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// One or several names.
#[derive(Debug, Clone, Args)]
pub struct Names {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Names {
    /// The names in the order given, each once.
    pub fn unique(self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        self.names.into_iter().filter(|name| seen.insert(name.clone())).collect()
    }
}

/// The name of what is to be made: `NAME` or `--name NAME`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct NameArg {
    /// Its name: 1 to 63 lower-case letters, digits and `-`
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The same as an option
    #[arg(long = "name", value_name = "NAME")]
    name_option: Option<String>,
}

impl NameArg {
    /// The name; clap saw to it that there is one.
    pub fn into_name(self) -> String {
        self.name.or(self.name_option).unwrap_or_default()
    }
}

/// `--label`, many times.
#[derive(Debug, Clone, Default, Args)]
pub struct Labels {
    /// A word of your own, as KEY=VALUE; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl Labels {
    /// The labels as the contract has them; of one key given twice, the last.
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.labels.into_iter().collect()
    }
}

/// What `ls` takes.
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    /// At most so many; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub limit: u32,
    /// Only those that it means, such as 'status=RUNNING labels.tier=web name~"web-*"'; docs/api.md says which fields there are
    #[arg(long, default_value = "", hide_default_value = true, value_name = "FILTER")]
    pub filter: String,
    /// In this order: `created_at` or `name`, and `desc` behind it
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ORDER")]
    pub order_by: String,
    /// Continue a list that --limit cut: its next_page_token, with the same filter and order
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TOKEN")]
    pub page_token: String,
}

/// What `watch` takes.
#[derive(Debug, Clone, Default, Args)]
pub struct WatchArgs {
    /// Go on after this: a `resume_token` of `-o json`
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TOKEN")]
    pub resume_token: String,
}

/// `--show-deleted`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ShowDeleted {
    /// Also what was deleted and is still kept
    #[arg(long)]
    pub show_deleted: bool,
}

/// `--wait` and `--timeout`.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Wait until it is done, and fail if it ends in ERROR
    #[arg(short, long)]
    pub wait: bool,
    /// How long to wait at most, such as 90s or 5m
    #[arg(long, requires = "wait", default_value = "5m", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE, such as tier=web".to_owned()),
    }
}

/// Parses `90`, `90s`, `1500ms`, `5m` or `2h`; seconds where no unit stands.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a whole number and a unit (ms, s, m, h), such as 90s or 5m".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    // A year is longer than anyone waits; it keeps sums of times in range.
    let total = number.checked_mul(millis).filter(|ms| *ms <= 366 * 24 * 3_600_000).ok_or("is too long")?;
    Ok(Duration::from_millis(total))
}
