//! What the tests stand on: hosts and guests are network namespaces, an Open vSwitch and an agent run in each host's.

pub mod agent;
pub mod cloud;
pub mod frame;
pub mod guest;
pub mod switch;

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

/// Runs a program to its end.
pub fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("cannot run {program}: {e}"))
}

/// Runs a program that must succeed; its output.
pub fn ok(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?} failed: {out}{err}");
    out.into_owned()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Some digits that no other test has.
pub fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..6].to_owned()
}

/// A network namespace, gone with this value.
pub struct Netns(pub String);

impl Netns {
    pub fn new(prefix: &str) -> Self {
        let netns = Self(format!("{prefix}-{}", unique()));
        ok("ip", &["netns", "add", &netns.0]);
        netns.ip(&["link", "set", "dev", "lo", "up"]);
        netns
    }

    pub fn run(&self, args: &[&str]) -> Output {
        let mut all = vec!["netns", "exec", &self.0];
        all.extend(args);
        run("ip", &all)
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.0];
        all.extend(args);
        ok("ip", &all)
    }

    pub fn ip(&self, args: &[&str]) -> String {
        let mut all = vec!["-n", &self.0];
        all.extend(args);
        ok("ip", &all)
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.0]);
    }
}
