//! Child processes, for adapters: an argument vector, a deadline, bounded output. Never a shell.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command as TokioCommand,
};

/// What to run, and within which limits.
#[derive(Debug, Clone)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    deadline: Duration,
    max_output: usize,
}

impl Command {
    /// A program, found by `PATH` unless it is a path, with ten seconds to run and 16 MiB of output. It runs in the C locale, so
    /// that its output can be parsed.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: vec![("LC_ALL".into(), "C".into())],
            stdin: Vec::new(),
            deadline: Duration::from_secs(10),
            max_output: 16 << 20,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What it reads; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may run; then it is killed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many bytes it may write to each of its outputs; then it is killed.
    #[must_use]
    pub fn max_output(mut self, bytes: usize) -> Self {
        self.max_output = bytes;
        self
    }
}

/// The command line, for messages and golden files; not meant to be run by a shell.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| {
            let arg = arg.to_string_lossy();
            if arg.is_empty() || arg.contains(char::is_whitespace) {
                write!(f, " '{arg}'")
            } else {
                write!(f, " {arg}")
            }
        })
    }
}

/// What a successful child process wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its standard output as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }
}

/// Why a child process did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It did not start.
    #[error("cannot run `{program}`: is it installed?")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended with another status than 0.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// Its status.
        status: ExitStatus,
        /// The end of its standard error, 2 KiB at most.
        stderr: String,
        /// Its standard output.
        stdout: Vec<u8>,
    },
    /// It was killed at its deadline. What it did by then is unknown.
    #[error("`{command}` did not end within {deadline:?} and was killed")]
    Deadline {
        /// The command line.
        command: String,
        /// The time it had.
        deadline: Duration,
    },
    /// It wrote too much and was killed.
    #[error("`{command}` wrote more than {limit} bytes and was killed")]
    TooMuchOutput {
        /// The command line.
        command: String,
        /// The limit.
        limit: usize,
    },
    /// Its pipes failed.
    #[error("cannot talk to `{command}`")]
    Io {
        /// The command line.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Runs a command to its end. Dropping the future kills the child.
///
/// # Errors
/// It did not start, failed, ran too long or wrote too much.
pub async fn run(command: &Command) -> Result<Output, ExecError> {
    let mut child = TokioCommand::new(&command.program)
        .args(&command.args)
        .envs(command.env.iter().map(|(k, v)| (k, v)))
        .stdin(if command.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0)
        .spawn()
        .map_err(|source| ExecError::Spawn { program: command.program.display().to_string(), source })?;
    let mut group = Group(child.id());
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let limit = command.max_output;
    let talk = async {
        let feed = async {
            if let Some(mut pipe) = stdin.take() {
                match pipe.write_all(&command.stdin).await {
                    // It may end without reading; its status says whether that is a failure.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        };
        let (stdout, stderr, ()) = tokio::try_join!(read(stdout, limit), read(stderr, limit), feed)?;
        let status = child.wait().await?;
        Ok::<_, io::Error>((stdout, stderr, status))
    };
    let finished = tokio::time::timeout(command.deadline, talk).await;
    if matches!(finished, Ok(Ok(_))) {
        group.0 = None;
    }
    Err(match finished {
        Ok(Ok((stdout, stderr, status))) if status.success() => return Ok(Output { stdout, stderr }),
        Ok(Ok((stdout, stderr, status))) => {
            let from = stderr.len().saturating_sub(2048);
            let stderr = String::from_utf8_lossy(&stderr[from..]).trim().to_owned();
            ExecError::Failed { command: command.to_string(), status, stderr, stdout }
        }
        Ok(Err(source)) if source.kind() == io::ErrorKind::FileTooLarge => {
            ExecError::TooMuchOutput { command: command.to_string(), limit }
        }
        Ok(Err(source)) => ExecError::Io { command: command.to_string(), source },
        Err(_) => ExecError::Deadline { command: command.to_string(), deadline: command.deadline },
    })
}

/// The process group of a child, killed when dropped: the child's own children must not outlive the deadline either. Emptied
/// once the child was waited for, as its id may then belong to somebody else.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id
            && let Err(error) = rustix::process::kill_process_group(id, rustix::process::Signal::KILL)
        {
            tracing::warn!(group = ?id, %error, "cannot kill the child process");
        }
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_and_input_go_through() {
        let output = run(&Command::new("cat").stdin("hello")).await.unwrap();
        assert_eq!(output.text(), "hello");
        let output = run(&Command::new("printf").args(["%s|", "a b", "; rm"])).await.unwrap();
        assert_eq!(output.text(), "a b|; rm|");
    }

    #[tokio::test]
    async fn failure_carries_status_and_stderr() {
        let error = run(&Command::new("ls").arg("/no/such/file")).await.unwrap_err();
        let ExecError::Failed { status, ref stderr, .. } = error else { panic!("{error:?}") };
        assert_eq!(status.code(), Some(2));
        assert!(stderr.contains("No such file"), "{stderr}");
        assert!(error.to_string().starts_with("`ls /no/such/file` failed"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = run(&Command::new("no-such-program")).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot run `no-such-program`: is it installed?");
    }

    #[tokio::test]
    async fn the_deadline_kills_even_when_a_grandchild_keeps_the_pipe() {
        let started = std::time::Instant::now();
        let command = Command::new("sh").args(["-c", "sleep 30 & sleep 30"]).deadline(Duration::from_millis(100));
        assert!(matches!(run(&command).await, Err(ExecError::Deadline { .. })));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn too_much_output_kills() {
        let command = Command::new("yes").max_output(1000);
        assert!(matches!(run(&command).await, Err(ExecError::TooMuchOutput { limit: 1000, .. })));
    }

    #[test]
    fn display_shows_where_arguments_end() {
        assert_eq!(Command::new("lvs").args(["-o", "lv name", ""]).to_string(), "lvs -o 'lv name' ''");
    }
}
