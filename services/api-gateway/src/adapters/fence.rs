//! The fence command: a program of the operator's that takes a host's power away.

use std::time::Duration;

use async_trait::async_trait;
use cloud_core::ports::Fencer;
use cloud_domain::HostId;
use cloud_service_kit::{
    error::chain,
    exec::{Command, run},
};

/// What of its output is kept.
const KEPT: usize = 500;
/// What of its output is read.
const READ: usize = 64 << 10;

/// A program and its arguments.
#[derive(Debug, Clone)]
pub struct FenceCommand {
    program: String,
    args: Vec<String>,
    deadline: Duration,
}

impl FenceCommand {
    /// The command; none where nothing is given.
    #[must_use]
    pub fn new(command: &[String], deadline: Duration) -> Option<Self> {
        let (program, args) = command.split_first()?;
        Some(Self { program: program.clone(), args: args.to_vec(), deadline })
    }
}

#[async_trait]
impl Fencer for FenceCommand {
    async fn power_off(&self, host: HostId, name: &str) -> Result<String, String> {
        let id = host.to_string();
        let command = Command::new(&self.program).args(&self.args).args([id.as_str(), name]);
        match run(&command.deadline(self.deadline).max_output(READ)).await {
            Ok(output) => Ok(output.text().trim().chars().take(KEPT).collect()),
            Err(error) => Err(chain(&error).chars().take(KEPT).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn says(script: &str, deadline: Duration) -> Result<String, String> {
        let command = ["/bin/sh", "-c", script, "fence"].map(str::to_owned);
        FenceCommand::new(&command, deadline).unwrap().power_off(HostId::random(), "h1").await
    }

    #[tokio::test]
    async fn only_success_in_time_confirms() {
        let patience = Duration::from_secs(10);
        let said = says("echo \"$2 is off\"; test -n \"$1\"", patience).await;
        assert_eq!(said.as_deref(), Ok("h1 is off"), "it gets the host's id and name");
        let refused = says("echo no such outlet >&2; exit 3", patience).await.unwrap_err();
        assert!(refused.contains("no such outlet"), "{refused}");
        assert!(says("sleep 60", Duration::from_millis(100)).await.is_err());
        assert!(FenceCommand::new(&[], patience).is_none());
        let missing = FenceCommand::new(&["/nowhere/fence".to_owned()], patience).unwrap();
        assert!(missing.power_off(HostId::random(), "h1").await.is_err());
    }
}
