//! Whether hosts run on this machine's processor or on an emulated one.
//!
//! The presence of a KVM device says little: on some machines it opens and kernels hang. So the lab's kernel is started under it, which says what
//! processor it sees: one on which guests can run guests, or the lab emulates one.

use std::{fs, path::Path, time::Duration};

use tokio::time::timeout;

use crate::{command::program, site::cache};

/// How long the kernel may take to say it; a second where KVM works.
const PROBE: Duration = Duration::from_secs(15);

/// How hosts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By this machine's processor.
    Kvm,
    /// By emulation of one with AMD's virtualization.
    Tcg,
}

impl Accelerator {
    pub(crate) const fn arguments(self) -> &'static str {
        match self {
            Self::Kvm => "-accel kvm -cpu host",
            Self::Tcg => "-accel tcg,thread=multi,tb-size=256 -cpu max",
        }
    }

    /// What this machine can do. The answer is kept for as long as its boot lasts.
    ///
    /// # Errors
    /// The answer cannot be written down.
    pub async fn detect(image: &Path) -> anyhow::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let memory = cache().join("accelerator");
        let known = fs::read_to_string(&memory).unwrap_or_default();
        let found = match known.strip_prefix(&boot) {
            Some("kvm") => Self::Kvm,
            Some("tcg") => Self::Tcg,
            _ => {
                let found = if kvm_works(image).await { Self::Kvm } else { Self::Tcg };
                fs::write(&memory, format!("{boot}{}", if found == Self::Kvm { "kvm" } else { "tcg" }))?;
                found
            }
        };
        Ok(found)
    }
}

async fn kvm_works(image: &Path) -> bool {
    if !Path::new("/dev/kvm").exists() {
        return false;
    }
    let mut command = program("qemu-system-x86_64");
    command
        .args("-nodefaults -no-user-config -display none -no-reboot -machine q35 -m 256 -serial stdio".split(' '))
        .args(Accelerator::Kvm.arguments().split(' '))
        .arg("-kernel")
        .arg(image.join("vmlinuz"))
        .arg("-initrd")
        .arg(image.join("initrd.gz"))
        .args(["-append", "console=ttyS0 quiet panic=-1 lab.probe"])
        .kill_on_drop(true);
    match timeout(PROBE, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).contains("LAB-PROBE nested"),
        _ => false,
    }
}
