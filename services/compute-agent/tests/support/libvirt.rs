//! A libvirt that shares nothing with the machine's: its directories are bind mounts in a namespace that virtlogd holds open.
//!
//! KVM is hidden from it, so that tests do the same everywhere. (libvirt also asks QEMU anew what it can do, for seconds and at every call, where
//! root may open the device and the hypervisor's user may not.) What it learned of QEMU is kept between tests.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{SHORT, run, until};

/// What libvirt writes to, and the name of ours below the test's directory.
const DIRECTORIES: [(&str, &str); 4] =
    [("/run/libvirt", "run"), ("/var/lib/libvirt", "lib"), ("/etc/libvirt/qemu", "etc"), ("/var/log/libvirt", "log")];

pub struct Libvirt {
    dir: PathBuf,
    virtlogd: Child,
    libvirtd: Option<Child>,
}

impl Libvirt {
    pub async fn start(dir: &Path) -> Self {
        let mut mounts = String::new();
        for (theirs, ours) in DIRECTORIES {
            std::fs::create_dir_all(dir.join(ours)).unwrap();
            std::fs::create_dir_all(theirs).unwrap();
            mounts.push_str(&format!("mount --bind {} {theirs}\n", dir.join(ours).display()));
        }
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libvirt-cache");
        std::fs::create_dir_all(&cache).unwrap();
        let no_kvm = dir.join("no-kvm");
        std::fs::write(&no_kvm, "").unwrap();
        std::fs::set_permissions(&no_kvm, std::fs::Permissions::from_mode(0o000)).unwrap();
        mounts.push_str(&format!("mount --bind {} /var/cache/libvirt\n", cache.display()));
        mounts.push_str(&format!("[ ! -e /dev/kvm ] || mount --bind {} /dev/kvm\n", no_kvm.display()));
        // A /dev of each guest's own would move that mount and fail.
        let config = dir.join("qemu.conf");
        std::fs::write(&config, "namespaces = []\n").unwrap();
        mounts.push_str(&format!("mount --bind {} /etc/libvirt/qemu.conf\n", config.display()));
        for part in [".", "run", "lib", "etc", "log"] {
            std::fs::set_permissions(dir.join(part), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let script = dir.join("start");
        std::fs::write(&script, format!("set -e\n{mounts}exec virtlogd --pid-file {}/virtlogd.pid\n", dir.display()))
            .unwrap();
        let virtlogd = spawn(Command::new("unshare").args(["-m", "--propagation", "private", "sh"]).arg(script), dir);
        let mut libvirt = Self { dir: dir.to_owned(), virtlogd, libvirtd: None };
        until("virtlogd listens", SHORT, async || dir.join("run/virtlogd-sock").exists().then_some(())).await;
        libvirt.start_daemon().await;
        libvirt
    }

    /// Starts libvirtd, again after [`Self::kill_daemon`].
    pub async fn start_daemon(&mut self) {
        let namespace = self.virtlogd.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &namespace, "libvirtd", "--pid-file"]).arg(self.dir.join("libvirtd.pid"));
        self.libvirtd = Some(spawn(&mut command, &self.dir));
        let uri = self.uri();
        until("libvirtd answers", SHORT, async || {
            Command::new("virsh").args(["-q", "-c", &uri, "version"]).output().unwrap().status.success().then_some(())
        })
        .await;
    }

    /// kill -9.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.libvirtd.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Stops libvirtd from answering, without ending it.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.libvirtd.as_ref().unwrap().id().to_string();
        run("kill", &[if frozen { "-STOP" } else { "-CONT" }, &pid]);
    }

    pub fn uri(&self) -> String {
        format!("qemu:///system?socket={}", self.dir.join("run/libvirt-sock").display())
    }

    pub fn virsh(&self, args: &[&str]) -> String {
        run("virsh", &[&["-q", "-c", &self.uri()], args].concat())
    }

    /// The process of a domain.
    pub fn qemu_pid(&self, domain: &str) -> u32 {
        let path = self.dir.join(format!("run/qemu/{domain}.pid"));
        std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }
}

fn spawn(command: &mut Command, dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("daemons.log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- libvirt's log\n{}",
                std::fs::read_to_string(self.dir.join("daemons.log")).unwrap_or_default()
            );
        }
        for daemon in [self.libvirtd.as_mut(), Some(&mut self.virtlogd)].into_iter().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // Guests that a failed test left; nothing else has its pid file there.
        for entry in std::fs::read_dir(self.dir.join("run/qemu")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|kind| kind == "pid")
                && let Ok(pid) = std::fs::read_to_string(entry.path())
            {
                let _ = Command::new("kill").args(["-KILL", pid.trim()]).stderr(Stdio::null()).status();
            }
        }
    }
}
