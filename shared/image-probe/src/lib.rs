//! Says what a disk image from outside is, without trusting it.
//!
//! # Theory of operation
//! A disk image is a program for the block layer that opens it: a qcow2 file can name another file on the host as its
//! backing or data file (and a guest would then read `/etc/shadow` as its disk), a VMDK descriptor can name any path,
//! and tables of absurd size exhaust whoever reads them. So:
//!
//! 1. The first bytes are read here, in safe Rust, and never more than [`HEAD_BYTES`] of them. They decide the format;
//!    the file's name and what the uploader says about it do not. Formats other than `raw` and `qcow2` are refused by
//!    name.
//! 2. A qcow2 header is checked field by field ([`qcow2::Header::check`]): no backing file, no data file, no
//!    encryption, no internal snapshots, no unknown feature, tables inside the file and of a size that its disk needs.
//! 3. Only then `qemu-img info` opens it, with the format given (never guessed), in a child process with limits
//!    (address space, processor time, no file it could grow, few descriptors; prlimit(1)) and a deadline, and must
//!    agree with what the header said.
//!
//! What passes is opened with an explicit format ever after: a guest that writes a qcow2 header into its raw disk
//! gains nothing.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod confirm;
mod magic;
pub mod qcow2;

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use confirm::ConfirmError;
pub use qcow2::HeaderError;

/// How much of a file's beginning is looked at: enough for an ISO 9660 descriptor and a qcow2 header cluster.
pub const HEAD_BYTES: usize = 64 << 10;

/// The formats that a disk image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A QEMU copy-on-write file, version 2 or 3.
    Qcow2,
    /// The disk's bytes as they are.
    Raw,
}

impl Format {
    /// The format's name, as QEMU writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be `qcow2` or `raw`, is `{0}`")]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "qcow2" => Ok(Self::Qcow2),
            "raw" => Ok(Self::Raw),
            other => Err(FormatError(other.chars().take(40).collect())),
        }
    }
}

/// What a probed image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its format.
    pub format: Format,
    /// Bytes a guest sees, a multiple of 512.
    pub virtual_size: u64,
    /// Bytes of the file.
    pub file_size: u64,
}

/// What a probe may cost, and what an image may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest disk, in bytes, that an image may describe.
    pub max_virtual_size: u64,
    /// Address space of the child process, in bytes.
    pub address_space: u64,
    /// Processor time of the child process, in seconds.
    pub cpu_seconds: u64,
    /// When the child process is killed.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_virtual_size: 2 << 40, address_space: 1 << 30, cpu_seconds: 10, deadline: Duration::from_secs(30) }
    }
}

/// Why a file is no image that may be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has no bytes.
    #[error("the image is empty")]
    Empty,
    /// It has a format that is not taken.
    #[error("the image is {0}; import it as qcow2 or raw (`qemu-img convert -O qcow2`)")]
    Unsupported(&'static str),
    /// It is packed.
    #[error("the image is compressed with {0}; decompress it first")]
    Compressed(&'static str),
    /// No disk has such a size.
    #[error("a raw disk image has a multiple of 512 bytes, this one has {0}; it is no disk image, or not all of it")]
    RawSize(u64),
    /// It describes a disk larger than allowed.
    #[error("the image's disk has {size} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes of the disk.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// Its qcow2 header is refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// `qemu-img` does not confirm it.
    #[error(transparent)]
    Confirm(#[from] ConfirmError),
}

impl ProbeError {
    /// Whether the image is at fault (and another try is of no use), rather than the machine that probes.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Read { .. } => false,
            Self::Confirm(error) => error.is_refusal(),
            _ => true,
        }
    }
}

/// Says what the file at `path` is. The file is only read.
///
/// # Errors
/// Where it is no image that may be used, see [`ProbeError`], or the probe could not be made
/// ([`ProbeError::is_refusal`] tells which).
pub async fn probe(path: &Path, limits: &Limits) -> Result<ImageInfo, ProbeError> {
    let owned = path.to_owned();
    let max = limits.max_virtual_size;
    let inspected = tokio::task::spawn_blocking(move || inspect(&owned, max)).await;
    let info = match inspected {
        Ok(info) => info?,
        Err(source) => return Err(ProbeError::Read { path: path.to_owned(), source: io::Error::other(source) }),
    };
    confirm::confirm(path, &info, limits).await?;
    Ok(info)
}

/// The part of a probe that needs no child process: format and header, within `max_virtual_size` bytes of disk. It
/// blocks on the file.
///
/// # Errors
/// As [`probe`].
pub fn inspect(path: &Path, max_virtual_size: u64) -> Result<ImageInfo, ProbeError> {
    let read = |source| ProbeError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    let file_size = file.metadata().map_err(read)?.len();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(read)?;
    let mut tail = Vec::with_capacity(magic::TAIL_BYTES);
    file.seek(SeekFrom::Start(file_size.saturating_sub(magic::TAIL_BYTES as u64))).map_err(read)?;
    file.take(magic::TAIL_BYTES as u64).read_to_end(&mut tail).map_err(read)?;
    judge(&head, &tail, file_size, max_virtual_size)
}

fn judge(head: &[u8], tail: &[u8], file_size: u64, max: u64) -> Result<ImageInfo, ProbeError> {
    let (format, virtual_size) = match magic::detect(head, tail)? {
        Format::Qcow2 => {
            let header = qcow2::Header::parse(head)?;
            header.check(file_size)?;
            (Format::Qcow2, header.virtual_size)
        }
        Format::Raw if !file_size.is_multiple_of(512) => return Err(ProbeError::RawSize(file_size)),
        Format::Raw => (Format::Raw, file_size),
    };
    if virtual_size > max {
        return Err(ProbeError::TooLarge { size: virtual_size, max });
    }
    Ok(ImageInfo { format, virtual_size, file_size })
}

#[cfg(test)]
mod tests;
