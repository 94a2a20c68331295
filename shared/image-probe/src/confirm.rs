//! Lets `qemu-img` open the image in a confined child process, and compares what it says with the header.

use std::{path::Path, process::ExitStatus};

use cloud_service_kit::exec::{Command, ExecError, run};
use serde::Deserialize;

use crate::{ImageInfo, Limits};

/// `qemu-img info` writes a few KiB; what is more is not its answer.
const MAX_OUTPUT: usize = 256 << 10;

/// Why `qemu-img` does not confirm an image.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// The child process cannot be run to its end.
    #[error("the image could not be examined (are util-linux and qemu-utils installed?)")]
    Run(#[source] ExecError),
    /// `qemu-img` cannot open the image, within its limits.
    #[error("qemu-img does not open the image: {message}")]
    Refused {
        /// What it wrote, without paths.
        message: String,
    },
    /// `qemu-img` sees something else than the header says.
    #[error("qemu-img sees another {field} than the image's header says")]
    Differs {
        /// What differs.
        field: &'static str,
    },
    /// The answer is not JSON of the known form.
    #[error("the answer of qemu-img is not understood")]
    Answer(#[source] serde_json::Error),
}

impl ConfirmError {
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Differs { .. })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    format: String,
    virtual_size: u64,
    backing_filename: Option<String>,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    snapshots: Vec<serde::de::IgnoredAny>,
    format_specific: Option<FormatSpecific>,
}

#[derive(Deserialize)]
struct FormatSpecific {
    #[serde(default)]
    data: Specific,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Specific {
    data_file: Option<String>,
    corrupt: bool,
}

pub(crate) async fn confirm(path: &Path, info: &ImageInfo, limits: &Limits) -> Result<(), ConfirmError> {
    let command = Command::new("prlimit")
        .arg(format!("--as={}", limits.address_space))
        .arg(format!("--cpu={}", limits.cpu_seconds))
        .args(["--fsize=0", "--core=0", "--nofile=64", "--"])
        .args(["qemu-img", "info", "--output=json", "-f", info.format.as_str()])
        .arg(path)
        .deadline(limits.deadline)
        .max_output(MAX_OUTPUT);
    let output = match run(&command).await {
        Ok(output) => output,
        Err(ExecError::Failed { status, stderr, .. }) => {
            return Err(ConfirmError::Refused { message: why(path, status, &stderr) });
        }
        Err(error) => return Err(ConfirmError::Run(error)),
    };
    compare(&serde_json::from_slice(&output.stdout).map_err(ConfirmError::Answer)?, info)
}

fn why(path: &Path, status: ExitStatus, stderr: &str) -> String {
    let text = stderr.trim_start_matches("qemu-img: ").replace(&path.display().to_string(), "the image");
    if text.is_empty() { format!("it ended with {status}") } else { text.chars().take(400).collect() }
}

fn compare(answer: &Answer, info: &ImageInfo) -> Result<(), ConfirmError> {
    let specific = answer.format_specific.as_ref().map(|s| &s.data);
    let agree = [
        ("format", answer.format == info.format.as_str()),
        ("disk size", answer.virtual_size == info.virtual_size),
        ("backing file", answer.backing_filename.is_none()),
        ("encryption", !answer.encrypted),
        ("list of snapshots", answer.snapshots.is_empty()),
        ("data file", specific.is_none_or(|s| s.data_file.is_none())),
        ("state of health", specific.is_none_or(|s| !s.corrupt)),
    ];
    match agree.iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(ConfirmError::Differs { field }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn an_answer_that_differs_from_the_header_is_refused_by_what_differs() {
        let info = ImageInfo { format: Format::Qcow2, virtual_size: 1024, file_size: 1024 };
        let check = |json: &str| compare(&serde_json::from_str(json).unwrap(), &info);
        let good =
            r#"{"format":"qcow2","virtual-size":1024,"format-specific":{"type":"qcow2","data":{"corrupt":false}}}"#;
        check(good).unwrap();
        for (json, field) in [
            (r#"{"format":"raw","virtual-size":1024}"#, "format"),
            (r#"{"format":"qcow2","virtual-size":2048}"#, "disk size"),
            (r#"{"format":"qcow2","virtual-size":1024,"backing-filename":"/etc/passwd"}"#, "backing file"),
            (r#"{"format":"qcow2","virtual-size":1024,"encrypted":true}"#, "encryption"),
            (r#"{"format":"qcow2","virtual-size":1024,"snapshots":[{"id":"1"}]}"#, "list of snapshots"),
            (
                r#"{"format":"qcow2","virtual-size":1024,"format-specific":{"type":"qcow2","data":{"data-file":"x"}}}"#,
                "data file",
            ),
            (
                r#"{"format":"qcow2","virtual-size":1024,"format-specific":{"type":"qcow2","data":{"corrupt":true}}}"#,
                "state of health",
            ),
        ] {
            assert!(matches!(check(json), Err(ConfirmError::Differs { field: f }) if f == field), "{json}");
        }
    }
}
