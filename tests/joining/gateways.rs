//! Several gateways: one authority, one master key.

use std::fs;

use cloud_testkit::{DaemonProcess, PostgresServer, free_port, process::binary};

use crate::support::{Cloud, Machine, becomes};

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_the_authority_and_a_third_without_the_master_key_does_not_start() -> anyhow::Result<()> {
    let postgres = PostgresServer::start()?;
    let url = postgres.url();
    let first = Cloud::on(Some(url.clone()), &[]).await?;
    let master = first.dir.path().join("master.key");
    let flag = format!("--master-key-file={}", master.display());
    let admin = format!("--api-key-file={}", first.gateway.key_file().display());
    let second = Cloud::beside(Some(url.clone()), Some(&first), &[&flag]).await?;
    // A token of the first, used at the second.
    let token = first.one().await?;
    let (head, _) = token.split_once('@').unwrap();
    let h1 = Machine::new(&first, "h1")?;
    let ended = h1.join(&format!("{head}@{},{}", second.agents, first.agents), &[]).await?;
    assert!(ended.ok, "{ended:?}");
    assert_eq!((first.logged(&["a host joined"]), second.logged(&["a host joined"])), (0, 1));
    let ended = Machine::new(&first, "h2")?.join(&token, &[]).await?;
    assert!(!ended.ok && ended.err.contains("was used its one time"), "{ended:?}");
    // The agent may be with either; both know it.
    let _agent = h1.storage_agent()?;
    first.answers("h1", "storage").await?;
    second.answers("h1", "storage").await?;

    let dir = tempfile::tempdir()?;
    let args = [
        format!("--listen=127.0.0.1:{}", free_port()?),
        format!("--database={url}"),
        format!("--state-dir={}", dir.path().display()),
        format!("--agents-address=127.0.0.1:{}", free_port()?),
        admin,
    ];
    let log = dir.path().join("log");
    let mut third = DaemonProcess::spawn(&binary("cloud-api-gateway")?, &args, &[], &log)?;
    becomes("the third gateway to refuse", std::time::Duration::from_secs(30), || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text.contains("sealed with another master key") { Ok(()) } else { Err(text) }
    })
    .await?;
    cloud_testkit::until("its end", std::time::Duration::from_secs(10), || {
        let ended = third.ended();
        async move { Ok(if ended?.is_some() { Ok(()) } else { Err("it runs") }) }
    })
    .await?;
    Ok(())
}
