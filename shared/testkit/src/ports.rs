//! Ports that tests listen on.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::TcpListener,
    path::Path,
    sync::Mutex,
};

use rustix::process::geteuid;

/// Below the ports that the kernel gives to whoever asks for any, which a connection might take before a daemon listens, or between two starts
/// of one.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// Where the tests of a user, of other checkouts too, mark the ports that are theirs.
const MARKS: &str = "/tmp/cloud-test-ports";

/// The ports of this process. A lock ends with its file, and all end with the process.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of this machine that is this process's until it ends: nobody listens there, and no other test is given it.
///
/// # Errors
/// The marks cannot be written, or no port is left.
pub fn free_port() -> io::Result<u16> {
    let marks = format!("{MARKS}-{}", geteuid().as_raw());
    fs::create_dir_all(&marks)?;
    let begin = rand::random_range(PORTS);
    for port in (begin..PORTS.end).chain(PORTS.start..begin) {
        let mark = File::options().create(true).append(true).open(Path::new(&marks).join(port.to_string()))?;
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(mark);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "every port for tests is taken"))
}
