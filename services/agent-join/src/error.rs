//! What can go wrong.

use std::{io, path::PathBuf};

use cloud_domain::{NameError, join::JoinTokenError};
use cloud_service_kit::{AddressError, tls::CredentialError};

/// Why this host did not join, or its agents did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// tokio.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    /// The token was to come from stdin.
    #[error("cannot read the token from stdin")]
    Stdin(#[source] io::Error),
    /// The token.
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    /// An address in the token.
    #[error("the token has an address that is none")]
    Address(#[from] AddressError),
    /// The host's name.
    #[error("`{name}` cannot be this host's name in the cloud, it {problem}: choose one with --host-name")]
    HostName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: NameError,
    },
    /// Which address this host has.
    #[error("cannot find out which address this host reaches the gateway from: say it with --address")]
    OwnAddress(#[source] io::Error),
    /// It is part of a cloud.
    #[error(
        "this host has joined already{}, and its certificates count for {days} more days: nothing was changed. To have it join again, make a token that is bound to it \
         (`cloud host token create --host NAME`) and give --again", if host.is_empty() { String::new() } else { format!(" (its id is {host})") }
    )]
    Joined {
        /// Its id.
        host: String,
        /// How long its certificates count.
        days: u64,
    },
    /// A configuration that somebody else wrote.
    #[error("{} exists already and this host has not joined: move it away, or give --rewrite-config", .0.display())]
    Configured(PathBuf),
    /// The file with the host's id.
    #[error("{} does not hold a host id: restore it or, if this host never was in a cloud, remove it", .0.display())]
    HostId(PathBuf),
    /// A file.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Keys and certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// No gateway let it in.
    #[error("{gateway} does not let this host join: {why}")]
    Refused {
        /// Which.
        gateway: String,
        /// Why.
        why: String,
    },
    /// What the gateway answered.
    #[error("the gateway's answer has {0}: is it of another release?")]
    Odd(&'static str),
    /// A setting that cannot be written.
    #[error("`{0}` is set by cloud-agent-join itself: leave it out")]
    Setting(String),
    /// Starting an agent.
    #[error("this host has joined, and {what} could not be started")]
    Start {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended at once.
    #[error("this host has joined, and {what} ended at once ({status}): see {log}")]
    Ended {
        /// What.
        what: String,
        /// How.
        status: String,
        /// Where it says why.
        log: String,
    },
}
