//! A certificate that was revoked ends what is open with it.

use std::time::{Duration, Instant};

use cloud_service_kit::tls::{Credentials, Expect, client_config};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::{
    ca::{call, connect},
    support::{Cloud, Machine},
};

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_of_a_host_that_joined_again_close_within_five_seconds() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let (h1, h2) = (Machine::new(&cloud, "h1"), Machine::new(&cloud, "h2"));
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    assert!(h2.join(&cloud.one().await?, &[]).await?.ok);
    let config = |machine: &Machine| -> anyhow::Result<_> {
        Ok(client_config(&Credentials::new(machine.credentials("storage").load()?), Expect::Gateway)?)
    };
    let (old, other) = (config(&h1)?, config(&h2)?);
    // An HTTP/2 preface, so that the server takes it for a connection that is in use.
    let open = async |config| -> anyhow::Result<_> {
        let mut stream = connect(&cloud.agents, config).await?;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        tokio::io::AsyncWriteExt::write_all(&mut stream, preface).await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    let (mut of_h1, mut of_h2) = (open(old.clone()).await?, open(other).await?);
    let bound = cloud.token(&json!({"host": "h1"})).await?;
    let ended = h1.join(bound["token"].as_str().unwrap(), &["--again"]).await?;
    assert!(ended.ok, "{ended:?}");
    let revoked = Instant::now();
    let mut rest = Vec::new();
    // The end, with or without a goodbye.
    let closed = tokio::time::timeout(Duration::from_secs(5), of_h1.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "it is open after 5 s");
    println!("closed after {:?}", revoked.elapsed());
    let open = tokio::time::timeout(Duration::from_millis(500), of_h2.read_to_end(&mut rest)).await;
    assert!(open.is_err(), "another host's connection was closed too");
    let path = "/cloud.agent.v1.HostService/Heartbeat";
    assert!(call(&cloud.agents, old, path).await.is_err(), "the revoked certificate opens new connections");
    assert!(call(&cloud.agents, config(&h1)?, path).await?.starts_with("200"), "and the new one counts");
    Ok(())
}
