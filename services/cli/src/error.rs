//! What can go wrong, as an exit code and as words that say what to do. The one place for both.

mod explain;

use std::{io, path::PathBuf, time::Duration};

use tonic::{Code, Status};

use crate::output::clean;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line, or a file that it names, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No key was found anywhere.
    #[error("no API key found")]
    NoKey {
        /// Where, and why not there.
        searched: Vec<String>,
    },
    /// What stands where the key should be is none.
    #[error("the API key from {source_name} {problem}")]
    BadKey { source_name: String, problem: &'static str },
    /// The file that should hold the key cannot be read.
    #[error("cannot read the API key from {}", path.display())]
    KeyFile { path: PathBuf, source: io::Error },
    /// A local file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A local file cannot be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Nobody answers at the endpoint.
    #[error("cannot reach the gateway at {endpoint}")]
    Unreachable { endpoint: String, local: bool, source: Box<dyn std::error::Error + Send + Sync> },
    /// The gateway refused or failed.
    #[error("{}", status.message())]
    Refused {
        /// What the call was about, such as `instance db-01`.
        subject: String,
        status: Box<Status>,
    },
    /// What was waited for will not come.
    #[error("{subject} is {status}, not {wanted}")]
    Failed { subject: String, status: String, wanted: &'static str, reason: String },
    /// What was waited for did not come in time.
    #[error("{subject} is still {status} after {}", crate::output::human::span(*waited))]
    Late { subject: String, status: String, reason: String, waited: Duration },
    /// Bytes came out other than they went in.
    #[error("{0}")]
    Corrupt(String),
    /// The process could not start its machinery.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    /// The terminal, stdin or stdout failed.
    #[error("{doing} failed")]
    Terminal { doing: &'static str, source: io::Error },
    /// Ended by a signal.
    #[error("ended by a signal")]
    Signal,
    /// Some of several failed; each was reported when it did.
    #[error("{failed} of {all} failed")]
    Several { failed: usize, all: usize, code: i32 },
    /// Whoever read the output has gone; that is theirs to decide.
    #[error("the output was closed")]
    OutputClosed,
}

impl Error {
    /// A mistake on the command line, in words.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// A refusal of a call about `subject`.
    pub fn refused(subject: impl Into<String>) -> impl FnOnce(Status) -> Self {
        let subject = subject.into();
        |status| Self::Refused { subject, status: Box::new(status) }
    }

    /// A failure to write to stdout.
    pub fn output(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Terminal { doing: "writing the output", source },
        }
    }

    /// What the process ends with; `cloud --help` and docs/cli.md list them.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::OutputClosed => 0,
            Self::Usage(_) | Self::Read { .. } | Self::Write { .. } => 2,
            Self::NoKey { .. } | Self::BadKey { .. } | Self::KeyFile { .. } => 5,
            Self::Unreachable { .. } => 6,
            Self::Late { .. } => 7,
            Self::Several { code, .. } => *code,
            Self::Refused { status, .. } => of_status(status),
            Self::Failed { .. } | Self::Corrupt(_) | Self::Runtime(_) | Self::Terminal { .. } | Self::Signal => 1,
        }
    }

    /// Tells the user, on stderr.
    pub fn report(&self) {
        if !matches!(self, Self::OutputClosed | Self::Several { .. }) {
            eprint!("{}", self.text());
        }
    }

    /// The message and what to do, one line each.
    pub fn text(&self) -> String {
        let mut lines = vec![format!("error: {}", clean(&self.headline()))];
        lines.extend(self.more().iter().map(|line| format!("  {}", clean(line))));
        lines.push(String::new());
        lines.join("\n")
    }

    fn headline(&self) -> String {
        match self {
            Self::Refused { subject, status } => explain::headline(subject, status),
            Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::KeyFile { source, .. }
            | Self::Terminal { source, .. }
            | Self::Runtime(source) => format!("{self}: {source}"),
            Self::Unreachable { source, .. } => format!("{self}: {}", root_cause(source.as_ref())),
            Self::Failed { reason, .. } | Self::Late { reason, .. } if !reason.is_empty() => {
                format!("{self}: {reason}")
            }
            _ => self.to_string(),
        }
    }

    fn more(&self) -> Vec<String> {
        match self {
            Self::Refused { subject, status } => explain::details(subject, status),
            Self::NoKey { searched } => {
                let mut lines = searched.clone();
                lines.push("`make up` in a checkout makes one; --api-key-file names another".to_owned());
                lines
            }
            Self::Unreachable { local: true, .. } => vec![
                "is it running? `make up` starts one".to_owned(),
                "--endpoint or CLOUD_ENDPOINT names another".to_owned(),
            ],
            Self::Unreachable { local: false, .. } => {
                vec!["check --endpoint (CLOUD_ENDPOINT) and --ca-file".to_owned()]
            }
            Self::Late { .. } => vec!["the work goes on; `--timeout` waits longer".to_owned()],
            Self::KeyFile { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                vec!["the gateway writes its first key when it first starts; `make up` starts one".to_owned()]
            }
            Self::Read { source, .. } | Self::KeyFile { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                vec!["only its owner may read it: run this as that user, or name another file".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

/// The innermost error: `tcp connect error: Connection refused (os error 111)` says more than `transport error`.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn of_status(status: &Status) -> i32 {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => 2,
        Code::NotFound => 3,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => 4,
        Code::Unauthenticated | Code::PermissionDenied => 5,
        Code::Unavailable => 6,
        Code::DeadlineExceeded => 7,
        Code::Cancelled if explain::is_own_deadline(status) => 7,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
