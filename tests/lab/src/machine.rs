//! The virtual machine that a host is: its QEMU process, its disks, its monitor.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    accelerator::Accelerator,
    channel::Channel,
    command::{end, eventually, program, run, running, tail},
    faults::Wire,
    site::Site,
    wires,
};

/// How long a host may take to boot: half a minute on a quiet machine, under emulation.
const BOOT: Duration = Duration::from_secs(600);
/// GiB of the disk for volumes, sparse.
const DATA_GIB: u32 = 20;

/// What all hosts of a lab are made with.
#[derive(Debug, Clone)]
pub struct Make {
    /// The image's directory.
    pub image: PathBuf,
    /// How it runs.
    pub accelerator: Accelerator,
    /// MiB of memory.
    pub memory_mib: u32,
}

/// A virtual machine.
#[derive(Debug)]
pub struct Machine {
    /// 1 for h1.
    pub number: u8,
    site: Site,
    make: Make,
}

impl Machine {
    /// The machine of a host, whether it runs or not.
    pub fn new(number: u8, site: Site, make: Make) -> Self {
        Self { number, site, make }
    }

    /// `h1`.
    pub fn name(&self) -> String {
        format!("h{}", self.number)
    }

    /// Where its disks and logs are.
    pub fn dir(&self) -> PathBuf {
        self.site.dir().join(self.name())
    }

    fn socket(&self, kind: &str) -> PathBuf {
        self.site.sockets().join(format!("{}.{kind}", self.name()))
    }

    /// The guest agent's socket.
    pub fn agent_socket(&self) -> PathBuf {
        self.socket("agent")
    }

    /// What it wrote to its serial port since it was started.
    pub fn console(&self) -> PathBuf {
        self.dir().join("console.log")
    }

    /// New disks: the image's, and an empty one.
    pub async fn make_disks(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.dir())?;
        let image = self.make.image.join("root.qcow2").display().to_string();
        self.overlay("root", &image).await?;
        let data = self.disk("data").display().to_string();
        run("qemu-img", &["create", "-q", "-f", "qcow2", &data, &format!("{DATA_GIB}G")]).await?;
        Ok(())
    }

    /// A disk over another one, which is only read.
    pub async fn overlay(&self, disk: &str, base: &str) -> anyhow::Result<()> {
        let own = self.disk(disk).display().to_string();
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", &own]).await?;
        Ok(())
    }

    /// A disk's file: `root` or `data`.
    pub fn disk(&self, disk: &str) -> PathBuf {
        self.dir().join(format!("{disk}.qcow2"))
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<i32> {
        running(&self.dir().join("pid"), "qemu-system")
    }

    /// Switches it on; `incoming`: it waits for the memory of a snapshot.
    pub async fn start(&self, incoming: bool) -> anyhow::Result<()> {
        anyhow::ensure!(self.pid().is_none(), "{} runs already", self.name());
        wires::plug(&self.site, self.number).await?;
        fs::create_dir_all(self.site.sockets())?;
        for kind in ["monitor", "agent"] {
            let _none = fs::remove_file(self.socket(kind));
        }
        File::create(self.console())?;
        let log = File::create(self.dir().join("qemu.log"))?;
        let child = program("ip")
            .args(["netns", "exec", &self.site.namespace(), "qemu-system-x86_64"])
            .args(self.arguments())
            .args(incoming.then_some(["-incoming", "defer"]).into_iter().flatten())
            .stdout(log.try_clone()?)
            .stderr(log)
            // It stays when this program or its terminal goes.
            .process_group(0)
            .spawn()
            .context("cannot run ip")?;
        let pid = child.id().context("QEMU has ended")?;
        fs::write(self.dir().join("pid"), pid.to_string())?;
        let socket = self.socket("monitor");
        let started = eventually("QEMU to listen", Duration::from_secs(20), || async {
            Ok(if socket.exists() { Ok(()) } else { Err("it does not") })
        });
        started.await.with_context(|| format!("{}: {}", self.name(), tail(&self.dir().join("qemu.log"), 2000)))
    }

    fn arguments(&self) -> Vec<String> {
        let (number, image) = (self.number, self.make.image.display());
        let file = |name: &str| self.dir().join(name).display().to_string();
        let kernel = format!(
            "{} lab.id={number} lab.mgmt={} lab.under={} systemd.hostname={} systemd.machine_id={number:032x}",
            include_str!("../image/cmdline").trim(),
            self.site.mgmt,
            self.site.underlay,
            self.name()
        );
        let mut args = vec![
            "-name".to_owned(),
            self.name(),
            "-append".to_owned(),
            kernel,
            "-m".to_owned(),
            self.make.memory_mib.to_string(),
        ];
        let mut add = |text: String| args.extend(text.split(' ').map(str::to_owned));
        add("-nodefaults -no-user-config -display none -no-reboot -machine q35 -smp 1".to_owned());
        add(self.make.accelerator.arguments().to_owned());
        add(format!("-kernel {image}/vmlinuz -initrd {image}/initrd.gz"));
        add(format!("-uuid 00000000-0000-4000-8000-{number:012x}"));
        add("-device virtio-rng-pci -device virtio-serial-pci".to_owned());
        add(format!("-chardev socket,path={},server=on,wait=off,id=agent", self.agent_socket().display()));
        add("-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0".to_owned());
        add(format!("-serial file:{}", file("console.log")));
        add(format!("-qmp unix:{},server=on,wait=off", self.socket("monitor").display()));
        for disk in ["root", "data"] {
            let path = self.disk(disk);
            add(format!(
                "-drive file={},if=none,id={disk},format=qcow2,cache=writeback,discard=unmap,detect-zeroes=unmap",
                path.display()
            ));
            add(format!("-device virtio-blk-pci,drive={disk},serial={disk}"));
        }
        for (place, wire) in [Wire::Management, Wire::Underlay].into_iter().enumerate() {
            let (tap, nic) = (wire.tap(number), wire.nic());
            add(format!("-netdev tap,id={tap},ifname={tap},script=no,downscript=no"));
            add(format!(
                "-device virtio-net-pci,netdev={tap},id={nic},mac=52:54:00:1a:{place:02x}:{number:02x},romfile="
            ));
        }
        args
    }

    /// Waits until all that a host needs runs.
    pub async fn ready(&self) -> anyhow::Result<()> {
        eventually(&format!("{} to boot", self.name()), BOOT, || async {
            let console = fs::read_to_string(self.console()).unwrap_or_default();
            if console.contains("LAB-READY") {
                return Ok(Ok(()));
            }
            let failed = console.contains("LAB-FAILED") || self.pid().is_none();
            anyhow::ensure!(!failed, "{} did not boot: {}", self.name(), tail(&self.console(), 2000));
            Ok(Err("it does"))
        })
        .await
    }

    /// SIGKILL.
    pub async fn kill(&self) -> anyhow::Result<()> {
        match self.pid() {
            Some(pid) => end(pid, "qemu-system", Signal::KILL).await,
            None => Ok(()),
        }
    }

    /// Commands of QEMU's monitor, one after the other; what the last one returned.
    pub async fn monitor(&self, commands: &[(&str, Value)]) -> anyhow::Result<Value> {
        let mut channel = Channel::monitor(&self.socket("monitor")).await.with_context(|| self.name())?;
        let mut last = json!(null);
        for (name, arguments) in commands {
            last = channel.call(name, arguments.clone()).await.with_context(|| self.name())?;
        }
        Ok(last)
    }
}
