//! An Open vSwitch of the test's own in a host's namespace: database, daemon, and sockets in a directory of its own.
//!
//! In the namespace, because the userspace datapath makes devices with fixed names: two daemons in one namespace exclude each other.

use std::{
    path::PathBuf,
    process::{Child, Stdio},
};

use super::{Netns, eventually, ok, run};

pub struct Ovs {
    pub directory: tempfile::TempDir,
    database: Child,
    daemon: Child,
}

/// The bridge of every test; namespaces keep them apart.
pub const BRIDGE: &str = "br-test";

impl Ovs {
    pub async fn start(netns: &Netns) -> Self {
        let directory = tempfile::Builder::new().prefix("ovs").tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        ok("ovsdb-tool", &["create", &path("conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"]);
        let (remote, control) =
            (format!("--remote=punix:{}", path("db.sock")), format!("--unixctl={}", path("db.ctl")));
        let database = spawn(netns, &directory, "ovsdb-server", &[&path("conf.db"), &remote, &control]);
        let db = format!("--db=unix:{}", path("db.sock"));
        eventually("ovsdb-server answers", async || {
            run("ovs-vsctl", &[&db, "--timeout=1", "--no-wait", "init"]).status.success()
        })
        .await;
        let daemon = start_daemon(netns, &directory);
        Self { directory, database, daemon }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// `ovs-vsctl` on this switch.
    pub fn vsctl(&self, args: &[&str]) -> String {
        let remote = format!("--db=unix:{}", self.directory.path().join("db.sock").display());
        let mut all = vec![remote.as_str(), "--timeout=10"];
        all.extend(args);
        ok("ovs-vsctl", &all)
    }

    /// `ovs-ofctl` on the bridge.
    pub fn ofctl(&self, verb: &str, args: &[&str]) -> String {
        let socket = format!("unix:{}/{BRIDGE}.mgmt", self.directory.path().display());
        let mut all = vec!["-O", "OpenFlow14", verb, &socket];
        all.extend(args);
        ok("ovs-ofctl", &all)
    }

    /// The flows, without counters, sorted.
    pub fn flows(&self) -> Vec<String> {
        let text = self.ofctl("dump-flows", &["--no-stats"]);
        let mut flows: Vec<String> =
            text.lines().filter(|l| l.contains("actions=")).map(|l| l.trim().to_owned()).collect();
        flows.sort();
        flows
    }

    /// Packets that the flows of a table whose text contains all of `parts` have matched.
    pub fn packets(&self, table: u8, parts: &[&str]) -> u64 {
        let text = self.ofctl("dump-flows", &[&format!("table={table}")]);
        let lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        let count = |line: &str| line.split("n_packets=").nth(1)?.split(',').next()?.parse::<u64>().ok();
        lines.filter_map(count).sum()
    }

    /// The seconds since the youngest flow was made.
    pub fn youngest_flow(&self) -> f64 {
        let text = self.ofctl("dump-flows", &[]);
        let age = |line: &str| line.split("duration=").nth(1)?.split('s').next()?.parse::<f64>().ok();
        text.lines().filter_map(age).fold(f64::INFINITY, f64::min)
    }

    /// kill -9, then a new one, as init systems do.
    pub fn kill_and_restart_daemon(&mut self, netns: &Netns) {
        self.kill_daemon();
        self.daemon = start_daemon(netns, &self.directory);
    }

    pub fn kill_daemon(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

fn start_daemon(netns: &Netns, directory: &tempfile::TempDir) -> Child {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let _ = std::fs::remove_file(path("vswitchd.ctl"));
    let (db, control) = (format!("unix:{}", path("db.sock")), format!("--unixctl={}", path("vswitchd.ctl")));
    spawn(netns, directory, "ovs-vswitchd", &[&db, &control])
}

fn spawn(netns: &Netns, directory: &tempfile::TempDir, program: &str, args: &[&str]) -> Child {
    let path = directory.path().join(format!("{program}.log"));
    let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
    // `ip netns exec` becomes the program, so that it is the child that signals reach.
    let mut command = netns.command(program);
    command.args(args).env("OVS_RUNDIR", directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap_or_else(|e| panic!("cannot run {program}: {e}"))
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.database] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
