//! Listening sockets.
//!
//! A unix socket appears at its path only when it has its final mode: it is bound under another name, given mode 0600, set to
//! listen and then renamed, so no umask and no moment leaves it open to others. A stale socket, one that nobody answers on, is
//! replaced; two daemons that start at once are kept apart by a lock on the directory for as long as that takes.

use std::{
    fs, io,
    os::fd::AsFd,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{RecvFlags, recv};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task,
    time::{self, Instant},
};

use crate::Address;

/// How long to wait for another process that binds in the same directory.
const DIRECTORY_LOCK_WAIT: Duration = Duration::from_secs(5);

/// What a listener may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct BindPolicy {
    /// The server on this listener speaks TLS, so any address is fine.
    pub tls: bool,
    /// Plain TCP beyond loopback is allowed, by an explicit flag of the operator.
    pub allow_plain_beyond_loopback: bool,
}

/// Why a daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("another process listens on {address}: stop it, or listen elsewhere (--listen)")]
    InUse {
        /// The address asked for.
        address: Address,
    },
    /// Plain TCP that other machines can reach.
    #[error(
        "{address} can be reached from other machines and TLS is not configured: listen on a unix socket or on 127.0.0.1, or configure TLS"
    )]
    PlainBeyondLoopback {
        /// The address asked for.
        address: Address,
    },
    /// Something that is not a socket is in the way.
    #[error("{} exists and is not a socket: remove it, or listen elsewhere (--listen)", path.display())]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on {address}")]
    Io {
        /// The address asked for.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A bound socket. A unix socket's file is removed when the listener is dropped, if it is still the same file.
#[derive(Debug)]
pub struct Listener {
    socket: BoundSocket,
    address: Address,
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum BoundSocket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Listener {
    /// Binds and listens. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// Another process listens there, the policy forbids it, or the system refuses.
    pub async fn bind(address: &Address, policy: BindPolicy) -> Result<Self, ListenError> {
        let io_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address: address.clone() },
            _ => ListenError::Io { address: address.clone(), source },
        };
        match address {
            Address::Unix(path) => {
                let deadline = Instant::now() + DIRECTORY_LOCK_WAIT;
                let (socket, file) = loop {
                    let path = path.clone();
                    let bound = task::spawn_blocking(move || bind_unix(&path)).await;
                    match bound.map_err(|e| io_error(io::Error::other(e)))?? {
                        Some(bound) => break bound,
                        None if Instant::now() < deadline => time::sleep(Duration::from_millis(5)).await,
                        None => return Err(io_error(io::Error::other("another process keeps the directory locked"))),
                    }
                };
                let socket = UnixListener::from_std(socket).map_err(io_error)?;
                Ok(Self { socket: BoundSocket::Unix(socket), address: address.clone(), file: Some(file) })
            }
            Address::Tcp { host, port } => {
                let plain = !policy.tls && !policy.allow_plain_beyond_loopback;
                if plain && !address.is_loopback() {
                    return Err(ListenError::PlainBeyondLoopback { address: address.clone() });
                }
                let socket = TcpListener::bind((host.as_str(), *port)).await.map_err(io_error)?;
                let local = socket.local_addr().map_err(io_error)?;
                // `localhost` is whatever the resolver says.
                if plain && !local.ip().is_loopback() {
                    return Err(ListenError::PlainBeyondLoopback { address: address.clone() });
                }
                let address = Address::Tcp { host: local.ip().to_string(), port: local.port() };
                Ok(Self { socket: BoundSocket::Tcp(socket), address, file: None })
            }
        }
    }

    /// Where it listens, with the port that the kernel chose if port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> &Address {
        &self.address
    }

    /// The next connection.
    ///
    /// # Errors
    /// What accept(2) reports; the listener stays usable.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            BoundSocket::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            BoundSocket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

impl Stream {
    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            // Readiness may be reported without cause; only a look at the data tells.
            let looked = match self {
                Self::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || peek(stream))
                }
                Self::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_io(Interest::READABLE, || peek(stream))
                }
            };
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

fn peek(stream: impl AsFd) -> io::Result<()> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(stream, &mut [0_u8; 1], flags)?;
    Ok(())
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

/// The file of a unix socket, known by its inode: a successor may have put its own at the same path.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| m.dev() == self.device && m.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// A listening socket and its file.
type Bound = (std::os::unix::net::UnixListener, SocketFile);

/// Binds at `path`; `None` while another process binds in the same directory.
fn bind_unix(path: &Path) -> Result<Option<Bound>, ListenError> {
    let address = || Address::Unix(path.to_owned());
    let io_error = |source| ListenError::Io { address: address(), source };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io_error(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file")));
    };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(io_error)?;
    let lock = fs::File::open(directory).map_err(io_error)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(io_error(error)),
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) if answers(path).map_err(io_error)? => return Err(ListenError::InUse { address: address() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    let temporary = directory.join(format!(".{}~", name.to_string_lossy()));
    bind_and_rename(&temporary, path).map(Some).map_err(io_error)
}

fn bind_and_rename(temporary: &Path, path: &Path) -> io::Result<Bound> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(temporary)?)?;
    fs::set_permissions(temporary, fs::Permissions::from_mode(0o600))?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    let made = fs::symlink_metadata(temporary)?;
    fs::rename(temporary, path)?;
    let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    Ok((socket.into(), file))
}

/// Whether a process accepts connections on the socket at `path`.
fn answers(path: &Path) -> io::Result<bool> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            // Its backlog is full: somebody is there, and busy.
            io::ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
