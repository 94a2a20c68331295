//! A way between a gateway and its database that can be cut: bytes stay where they are until it is mended.

use std::{fs, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// Listens at one socket for another. Dropping it breaks every connection.
#[derive(Debug)]
pub struct Proxy {
    cut: watch::Sender<bool>,
    _listening: AbortOnDropHandle<()>,
}

impl Proxy {
    pub fn start(socket: &Path, to: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(socket.parent().unwrap_or(Path::new("/")))?;
        let (listener, to) = (UnixListener::bind(socket)?, to.to_path_buf());
        let cut = watch::Sender::new(false);
        let cuts = cut.subscribe();
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(client, to.clone(), cuts.clone()));
            }
        });
        Ok(Self { cut, _listening: AbortOnDropHandle::new(listening) })
    }

    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

/// Ends, and so closes both sides, when one of them is closed.
async fn carry(client: UnixStream, to: std::path::PathBuf, cuts: watch::Receiver<bool>) {
    let Ok(server) = UnixStream::connect(to).await else { return };
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = one_way(client_in, server_out, cuts.clone()) => {}
        () = one_way(server_in, client_out, cuts) => {}
    }
}

async fn one_way(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut cuts: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // What was on its way when the cut came arrives after it, or never.
        if cuts.wait_for(|cut| !cut).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
