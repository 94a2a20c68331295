//! Serial consoles with any number of viewers.
//!
//! QEMU serves one client of a serial socket at a time, and a client that does not read makes the guest's serial line stand still. So there is one
//! connection per guest, which lasts while somebody views it and is always read; a viewer who is too slow loses output, never the guest. QEMU
//! writes the console's log by itself whether or not anybody is connected.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cloud_domain::InstanceId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::UnixStream,
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

/// Pieces of output that a viewer may be behind.
const OUTPUT: usize = 256;
/// Pieces of input that wait for the guest to take them.
const INPUT: usize = 64;
const PIECE: usize = 4096;
/// QEMU writes each byte that the guest's serial port sends. They are sent on together, because HTTP/2 peers take a flood of tiny messages for an
/// attack and close the connection, with all other calls on it.
const GATHER: Duration = Duration::from_millis(10);
const LOST: &[u8] = b"\r\n[output was lost: this viewer is too slow]\r\n";

/// The consoles that are viewed now.
#[derive(Debug, Default)]
pub struct SerialHub {
    lines: Mutex<HashMap<InstanceId, Line>>,
    tasks: TaskTracker,
}

/// A connection as the hub knows it; viewers keep it alive.
#[derive(Debug)]
struct Line {
    input: mpsc::WeakSender<Bytes>,
    output: broadcast::WeakSender<Bytes>,
}

impl SerialHub {
    /// A new viewer of the console behind `socket`. Ends when the guest does.
    ///
    /// # Errors
    /// The socket does not answer.
    pub async fn view(&self, id: InstanceId, socket: &Path) -> io::Result<DuplexStream> {
        if let Some(viewer) = self.join(id) {
            return Ok(viewer);
        }
        let stream = UnixStream::connect(socket).await?;
        // Somebody else may have been faster; then this connection, which QEMU has not served yet, is closed again.
        if let Some(viewer) = self.join(id) {
            return Ok(viewer);
        }
        let (input, from_viewers) = mpsc::channel(INPUT);
        let (output, pieces) = broadcast::channel(OUTPUT);
        let line = Line { input: input.downgrade(), output: output.downgrade() };
        {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.retain(|_, line| line.is_open());
            lines.insert(id, line);
        }
        self.tasks.spawn(serve(stream, from_viewers, output));
        Ok(self.viewer(input, pieces))
    }

    fn join(&self, id: InstanceId) -> Option<DuplexStream> {
        let (input, pieces) = {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let line = lines.get(&id).filter(|line| line.is_open())?;
            (line.input.upgrade()?, line.output.upgrade()?.subscribe())
        };
        Some(self.viewer(input, pieces))
    }

    fn viewer(&self, input: mpsc::Sender<Bytes>, pieces: broadcast::Receiver<Bytes>) -> DuplexStream {
        let (near, far) = tokio::io::duplex(16 * PIECE);
        self.tasks.spawn(view(far, input, pieces));
        near
    }
}

impl Line {
    fn is_open(&self) -> bool {
        self.input.upgrade().is_some_and(|input| !input.is_closed())
    }
}

/// The connection's task: ends with the guest, or with the last viewer.
async fn serve(stream: UnixStream, mut input: mpsc::Receiver<Bytes>, output: broadcast::Sender<Bytes>) {
    let (mut reader, mut writer) = stream.into_split();
    let mut said = BytesMut::with_capacity(PIECE);
    let mut typed = Bytes::new();
    let mut flush_at = Instant::now();
    loop {
        said.reserve(PIECE);
        tokio::select! {
            // Reading goes on while the guest does not take its input.
            read = reader.read_buf(&mut said) => {
                let ended = !matches!(read, Ok(1..));
                if said.len() >= PIECE || ended {
                    // Without viewers there is nobody to tell.
                    let _ = output.send(said.split().freeze());
                } else if read.is_ok_and(|length| length == said.len()) {
                    flush_at = Instant::now() + GATHER;
                }
                if ended {
                    return;
                }
            }
            () = sleep_until(flush_at), if !said.is_empty() => drop(output.send(said.split().freeze())),
            piece = input.recv(), if typed.is_empty() => match piece {
                Some(piece) => typed = piece,
                None => return,
            },
            written = writer.write(&typed), if !typed.is_empty() => match written {
                Ok(length) => drop(typed.split_to(length)),
                Err(_) => return,
            },
        }
    }
}

/// A viewer's task: ends when either side does.
async fn view(stream: DuplexStream, input: mpsc::Sender<Bytes>, mut output: broadcast::Receiver<Bytes>) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let show = async move {
        loop {
            let written = match output.recv().await {
                Ok(piece) => writer.write_all(&piece).await,
                Err(RecvError::Lagged(_)) => writer.write_all(LOST).await,
                Err(RecvError::Closed) => return,
            };
            if written.is_err() {
                return;
            }
        }
    };
    let typed = async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if input.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = show => {}
        () = typed => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::UnixListener, time::timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    async fn read(viewer: &mut DuplexStream, length: usize) -> String {
        let mut buffer = vec![0; length];
        timeout(SOON, viewer.read_exact(&mut buffer)).await.unwrap().unwrap();
        String::from_utf8(buffer).unwrap()
    }

    #[tokio::test]
    async fn viewers_share_one_connection_that_ends_with_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (hub, id) = (SerialHub::default(), InstanceId::random());
        let mut one = hub.view(id, &path).await.unwrap();
        let mut two = hub.view(id, &path).await.unwrap();
        let (mut guest, _) = listener.accept().await.unwrap();
        guest.write_all(b"login:").await.unwrap();
        assert_eq!((read(&mut one, 6).await, read(&mut two, 6).await), ("login:".into(), "login:".into()));
        two.write_all(b"root").await.unwrap();
        let mut typed = [0; 4];
        timeout(SOON, guest.read_exact(&mut typed)).await.unwrap().unwrap();
        assert_eq!(&typed, b"root");
        drop(one);
        guest.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut two, 1).await, "x");
        drop(two);
        // The connection is closed, so that another client could have it.
        assert_eq!(timeout(SOON, guest.read(&mut typed)).await.unwrap().unwrap(), 0);
        let mut again = hub.view(id, &path).await.unwrap();
        let (mut guest, _) = listener.accept().await.unwrap();
        guest.write_all(b"y").await.unwrap();
        assert_eq!(read(&mut again, 1).await, "y");
    }

    #[tokio::test]
    async fn bytes_are_sent_on_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (hub, id) = (SerialHub::default(), InstanceId::random());
        let mut viewer = hub.view(id, &path).await.unwrap();
        let (mut guest, _) = listener.accept().await.unwrap();
        let writing = tokio::spawn(async move {
            for _ in 0..10_000 {
                guest.write_all(b".").await.unwrap();
            }
        });
        let (mut shown, mut pieces, mut buffer) = (0, 0, vec![0; 16 * PIECE]);
        while let Ok(length @ 1..) = timeout(SOON, viewer.read(&mut buffer)).await.unwrap() {
            shown += length;
            pieces += 1;
        }
        writing.await.unwrap();
        assert_eq!(shown, 10_000, "what was said right before the end too");
        assert!(pieces < 500, "{pieces} pieces");
    }

    #[tokio::test]
    async fn a_viewer_who_does_not_read_does_not_stop_the_guest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (hub, id) = (SerialHub::default(), InstanceId::random());
        let mut slow = hub.view(id, &path).await.unwrap();
        let (mut guest, _) = listener.accept().await.unwrap();
        // Far more than all buffers between hold.
        for _ in 0..2_000 {
            timeout(SOON, guest.write_all(&[b'.'; PIECE])).await.unwrap().unwrap();
        }
        drop(guest);
        let mut shown = Vec::new();
        timeout(SOON, slow.read_to_end(&mut shown)).await.unwrap().unwrap();
        assert!(shown.windows(LOST.len()).any(|part| part == LOST), "the viewer is told what it missed");
    }
}
