//! What a verb works with.

use crate::{
    args::{Connection, OutputArgs},
    connect::Cloud,
    error::Error,
    output::Output,
    progress::Progress,
};

/// The gateway, the output and the progress line.
#[derive(Debug)]
pub struct Context {
    /// Where it is done.
    pub cloud: Cloud,
    /// Where the result goes.
    pub out: Output,
    /// Where it is told how far it is.
    pub progress: Progress,
}

impl Context {
    /// Connects.
    pub async fn new(connection: Connection, output: OutputArgs) -> Result<Self, Error> {
        let cloud = Cloud::connect(connection).await?;
        Ok(Self { cloud, out: Output::new(output.format), progress: Progress::new() })
    }
}
