//! A certificate that was revoked ends what is open with it.

use std::{sync::Arc, time::Duration};

use cloud_service_kit::tls::{Credentials, Expect, client_config};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{client::TlsStream, rustls::ClientConfig};

use crate::{
    ca::{call, connect},
    support::{Cloud, Machine},
};

/// What an agent of the machine shows.
fn shown(machine: &Machine) -> anyhow::Result<Arc<ClientConfig>> {
    Ok(client_config(&Credentials::new(machine.credentials("storage").load()?), Expect::Gateway)?)
}

/// A connection that is in use: with an HTTP/2 preface, which is answered.
async fn open(cloud: &Cloud, config: Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut stream = connect(&cloud.agents, config).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.read_u8().await?;
    Ok(stream)
}

/// It ends within this time, with or without a goodbye.
async fn ends(mut stream: TlsStream<TcpStream>, limit: Duration) -> bool {
    tokio::time::timeout(limit, stream.read_to_end(&mut Vec::new())).await.is_ok()
}

const HEARTBEAT: &str = "/cloud.agent.v1.HostService/Heartbeat";

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_of_a_host_that_joined_again_close_within_five_seconds() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let (h1, h2) = (Machine::new(&cloud, "h1")?, Machine::new(&cloud, "h2")?);
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    assert!(h2.join(&cloud.one().await?, &[]).await?.ok);
    let (old, other) = (shown(&h1)?, shown(&h2)?);
    let (of_h1, of_h2) = (open(&cloud, old.clone()).await?, open(&cloud, other).await?);
    let bound = cloud.token(&json!({"host": "h1"})).await?;
    let ended = h1.join(bound["token"].as_str().unwrap(), &["--again"]).await?;
    assert!(ended.ok, "{ended:?}");
    assert!(ends(of_h1, Duration::from_secs(5)).await, "it is open after 5 s");
    assert!(!ends(of_h2, Duration::from_millis(500)).await, "another host's connection was closed too");
    assert!(call(&cloud.agents, old, HEARTBEAT).await.is_err(), "the revoked certificate opens new connections");
    assert!(call(&cloud.agents, shown(&h1)?, HEARTBEAT).await?.starts_with("200"), "and the new one counts");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_of_a_host_that_is_removed_close_within_five_seconds() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let (h1, h2) = (Machine::new(&cloud, "h1")?, Machine::new(&cloud, "h2")?);
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    assert!(h2.join(&cloud.one().await?, &[]).await?.ok);
    let (of_h1, of_h2) = (open(&cloud, shown(&h1)?).await?, open(&cloud, shown(&h2)?).await?);
    cloud.rest.delete("/hosts/h1").await?.expect(200)?;
    assert!(ends(of_h1, Duration::from_secs(5)).await, "it is open after 5 s");
    assert!(!ends(of_h2, Duration::from_millis(500)).await, "another host's connection was closed too");
    assert!(call(&cloud.agents, shown(&h1)?, HEARTBEAT).await.is_err(), "a removed host opens new connections");
    Ok(())
}
