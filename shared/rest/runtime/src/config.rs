//! What the routers are told.
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tonic::Status;

/// Turns an error into the status and the body of a response.
pub type Render = fn(&Status) -> (StatusCode, Value);

/// How requests are read and answers written.
#[derive(Debug, Clone)]
pub struct Config {
    /// Errors as HTTP.
    pub render: Render,
    /// The most bytes of a JSON body. 1 MiB by default.
    pub body_limit: usize,
    /// How long a body may take to arrive. 30 s by default.
    pub body_timeout: Duration,
    /// How often a silent event stream sends a comment. 15 s by default.
    pub keep_alive: Duration,
}

impl Config {
    /// The default limits.
    #[must_use]
    pub fn new(render: Render) -> Self {
        Config {
            render,
            body_limit: 1 << 20,
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
        }
    }
}
