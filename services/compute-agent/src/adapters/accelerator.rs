//! Whether guests really run under KVM here.
//!
//! The device's presence says little: on some machines it opens and guests abort or hang. So a guest of 512 bytes is started, with the machine
//! type and processor that real guests get. It waits for two timer interrupts, which needs what a kernel's first second needs, and then writes
//! to a port at which QEMU exits with a code that nothing else gives. It runs under emulation first: KVM has to be done in twice that time
//! (0.6 s at least), because there are also machines where it works and is many times slower than emulation. The answer is kept for as long as
//! the machine's boot lasts.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::kvm_access;
use cloud_service_kit::exec::{self, Command, ExecError};
use serde::{Deserialize, Serialize};

/// How guests' instructions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By emulation.
    Tcg,
}

impl Accelerator {
    /// `kvm` or `tcg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorSetting {
    /// KVM if a guest starts under it, else emulation.
    #[default]
    Auto,
    /// KVM, unchecked.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Why the accelerator could not be chosen.
#[derive(Debug, thiserror::Error)]
pub enum AcceleratorError {
    /// KVM is demanded and there is none.
    #[error("accelerator=kvm is set, and {device} cannot be opened: load the kvm module, or set accelerator=auto")]
    NoKvm {
        /// The device.
        device: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not even emulation works.
    #[error("`{emulator}` does not run a guest under emulation: {problem}", emulator = .emulator.display())]
    Emulator {
        /// The program.
        emulator: PathBuf,
        /// What happened.
        problem: String,
    },
    /// The probe's file.
    #[error("cannot write `{path}`", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

const DEVICE: &str = "/dev/kvm";
/// What QEMU's isa-debug-exit makes of the 0x2a that the payload writes: `value << 1 | 1`.
const EXIT_CODE: i32 = 0x2a << 1 | 1;
const EMULATION_LIMIT: Duration = Duration::from_secs(30);
const KVM_LIMIT: Duration = Duration::from_millis(600);

/// Boot sector code, 16-bit x86.
const PAYLOAD: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0xfb, // sti
    0xb9, 0x02, 0x00, // mov cx, 2
    0xa1, 0x6c, 0x04, // tick: mov ax, [0x046c]      the BIOS counts timer interrupts here
    0xf4, // wait: hlt
    0x3b, 0x06, 0x6c, 0x04, // cmp ax, [0x046c]
    0x74, 0xf9, // je wait
    0xe2, 0xf4, // loop tick
    0xb0, 0x2a, // mov al, 0x2a
    0xe6, 0xf4, // out 0xf4, al
    0xfa, // cli
    0xf4, // stop: hlt
    0xeb, 0xfd, // jmp stop
];

#[derive(Serialize, Deserialize)]
struct Answer {
    boot_id: String,
    accelerator: Accelerator,
}

/// Chooses. `boot_id` names the machine's boot; the answer is kept in `state_dir`.
///
/// # Errors
/// See [`AcceleratorError`].
pub async fn choose(
    setting: AcceleratorSetting,
    emulator: &Path,
    state_dir: &Path,
    boot_id: &str,
) -> Result<Accelerator, AcceleratorError> {
    let opened = tokio::fs::OpenOptions::new().read(true).write(true).open(DEVICE).await;
    match (setting, opened) {
        (AcceleratorSetting::Tcg, _) => return Ok(Accelerator::Tcg),
        (AcceleratorSetting::Kvm, Ok(_)) => return Ok(Accelerator::Kvm),
        (AcceleratorSetting::Kvm, Err(source)) => return Err(AcceleratorError::NoKvm { device: DEVICE, source }),
        (AcceleratorSetting::Auto, Err(error)) => {
            tracing::info!(%error, "{DEVICE} cannot be opened: guests run under emulation");
            return Ok(Accelerator::Tcg);
        }
        (AcceleratorSetting::Auto, Ok(_)) => {}
    }
    if let Some(problem) = kvm_access::problem(DEVICE).await {
        // Not kept: it may be mended.
        tracing::warn!(problem, "guests run under emulation");
        return Ok(Accelerator::Tcg);
    }
    let file = state_dir.join("accelerator.json");
    if let Some(answer) = read(&file).await
        && answer.boot_id == boot_id
    {
        return Ok(answer.accelerator);
    }
    let accelerator = probe(emulator, state_dir).await?;
    let answer = Answer { boot_id: boot_id.to_owned(), accelerator };
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    if let Err(error) = tokio::fs::write(&file, text).await {
        tracing::warn!(path = %file.display(), %error, "the accelerator is probed again at the next start");
    }
    Ok(accelerator)
}

async fn read(file: &Path) -> Option<Answer> {
    serde_json::from_slice(&tokio::fs::read(file).await.ok()?).ok()
}

/// Runs the payload under emulation, then under KVM.
async fn probe(emulator: &Path, state_dir: &Path) -> Result<Accelerator, AcceleratorError> {
    let disk = state_dir.join("accelerator-probe.img");
    let mut sector = PAYLOAD.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    // Large enough for the BIOS to take it for a disk.
    sector.resize(1 << 20, 0);
    tokio::fs::write(&disk, sector).await.map_err(|source| AcceleratorError::File { path: disk.clone(), source })?;
    let result = compare(emulator, &disk).await;
    if let Err(error) = tokio::fs::remove_file(&disk).await {
        tracing::debug!(path = %disk.display(), %error, "the probe's disk is left behind");
    }
    result
}

async fn compare(emulator: &Path, disk: &Path) -> Result<Accelerator, AcceleratorError> {
    let emulated = run(emulator, disk, Accelerator::Tcg, EMULATION_LIMIT)
        .await
        .map_err(|problem| AcceleratorError::Emulator { emulator: emulator.to_owned(), problem })?;
    match run(emulator, disk, Accelerator::Kvm, KVM_LIMIT.max(emulated * 2)).await {
        Ok(took) => {
            tracing::info!(?took, ?emulated, "a guest ran under KVM");
            Ok(Accelerator::Kvm)
        }
        Err(problem) => {
            tracing::warn!(problem, "{DEVICE} opens, but a guest did not run under KVM: guests run under emulation");
            Ok(Accelerator::Tcg)
        }
    }
}

/// How long the payload took, or why it did not end as it should.
async fn run(emulator: &Path, disk: &Path, accelerator: Accelerator, limit: Duration) -> Result<Duration, String> {
    let cpu = match accelerator {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "max",
    };
    let command = Command::new(emulator)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "16"])
        .args(["-machine", "q35", "-accel", accelerator.as_str(), "-cpu", cpu])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .args(["-blockdev", &format!("driver=file,filename={},node-name=d", disk.display())])
        .args(["-device", "virtio-blk-pci,drive=d,bootindex=0"])
        .deadline(limit);
    let start = Instant::now();
    match exec::run(&command).await {
        Err(ExecError::Failed { status, .. }) if status.code() == Some(EXIT_CODE) => Ok(start.elapsed()),
        Err(error) => Err(cloud_service_kit::error::chain(&error)),
        Ok(_) => Err("QEMU ended before the guest did its work".to_owned()),
    }
}
