//! Runs the binary, with nothing of this process's surroundings.

use std::{process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::Fake;

/// No command takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A run that is about to be.
pub struct Run {
    pub command: Command,
    input: Vec<u8>,
    /// The home directory.
    pub home: TempDir,
}

/// What came of it.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// `cloud` with these arguments, separated by white space, and no configuration at all.
    pub fn bare(arguments: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloud"));
        command.args(arguments.split_whitespace()).env_clear().env("HOME", home.path()).current_dir(home.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Self { command, input: Vec::new(), home }
    }

    /// The same, told of a gateway.
    pub fn on(gateway: &Fake, arguments: &str) -> Self {
        let mut run = Self::bare(arguments);
        run.command.env("CLOUD_ENDPOINT", &gateway.endpoint).env("CLOUD_API_KEY", "the-key");
        run
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// Runs it to its end.
    pub async fn end(mut self) -> Ended {
        let mut child = self.command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Beside the reading of what it prints: neither pipe may hold up the other.
        let input = tokio::spawn(async move { stdin.write_all(&self.input).await });
        let output = timeout(DEADLINE, child.wait_with_output()).await.expect("cloud does not end").unwrap();
        input.await.unwrap().expect("cloud does not read its input");
        Ended {
            code: output.status.code().expect("an exit code"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Asserts the exit code, showing what was said.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// stdout as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}
