//! Notices at once when ovs-vswitchd goes away and when it is back, by an OpenFlow connection that is kept open.
//!
//! A restarted switch has its ports, from its database, and no flows. The connection breaks with the process that served it, so there is
//! nothing to poll. It carries a greeting and answers to the switch's probes (OpenFlow 1.4, sections 6.3.1 and 7.5), nothing else.

use std::{io, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

const VERSION: u8 = 5;
const HELLO: u8 = 0;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const HEADER: u16 = 8;
/// How often to try to connect.
const RETRY: Duration = Duration::from_millis(200);

/// Publishes whether the switch serves the bridge, until `shutdown`.
pub async fn watch_switch(socket: PathBuf, up: watch::Sender<bool>, shutdown: CancellationToken) {
    let watching = async {
        loop {
            // How it ended does not matter: the switch is away, or the bridge is not made yet.
            let _ = stay_connected(&socket, &up).await;
            up.send_if_modified(|up| std::mem::replace(up, false));
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watching => {}
    }
}

async fn stay_connected(socket: &PathBuf, up: &watch::Sender<bool>) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&message(HELLO, [0, 0, 0, 1], &[])).await?;
    loop {
        let mut header = [0; HEADER as usize];
        stream.read_exact(&mut header).await?;
        let [_, kind, high, low, transaction @ ..] = header;
        let length = u16::from_be_bytes([high, low]).checked_sub(HEADER).ok_or(io::ErrorKind::InvalidData)?;
        let mut body = vec![0; length.into()];
        stream.read_exact(&mut body).await?;
        match kind {
            HELLO => {
                up.send_if_modified(|up| !std::mem::replace(up, true));
            }
            ECHO_REQUEST => stream.write_all(&message(ECHO_REPLY, transaction, &body)).await?,
            _ => {}
        }
    }
}

fn message(kind: u8, transaction: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = HEADER.saturating_add(u16::try_from(body.len()).unwrap_or(u16::MAX));
    let mut bytes = vec![VERSION, kind];
    bytes.extend(length.to_be_bytes());
    bytes.extend(transaction);
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn probes_are_answered_and_an_end_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("br.mgmt");
        let (publish, mut up) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let watching = tokio::spawn(watch_switch(path.clone(), publish, shutdown.clone()));
        let listener = UnixListener::bind(&path).unwrap();
        for _ in 0..2 {
            let (mut switch, _) = listener.accept().await.unwrap();
            let mut hello = [0; 8];
            switch.read_exact(&mut hello).await.unwrap();
            assert_eq!(hello, [5, 0, 0, 8, 0, 0, 0, 1]);
            assert!(!*up.borrow_and_update());
            switch.write_all(&message(HELLO, [0; 4], &[1, 2, 3, 4, 5, 6, 7, 8])).await.unwrap();
            switch.write_all(&message(ECHO_REQUEST, [0, 0, 0, 9], b"abc")).await.unwrap();
            let mut reply = [0; 11];
            switch.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply, [5, 3, 0, 11, 0, 0, 0, 9, b'a', b'b', b'c']);
            assert!(*up.borrow_and_update());
            drop(switch);
            up.wait_for(|up| !*up).await.unwrap();
        }
        shutdown.cancel();
        watching.await.unwrap();
    }
}
