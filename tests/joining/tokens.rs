//! Tokens: each lets in whom it shall, as often as it shall, and says why not otherwise.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use cloud_testkit::{until, wait::PATIENCE};
use serde_json::json;

use crate::support::{Cloud, Machine};

#[tokio::test(flavor = "multi_thread")]
async fn one_command_lets_a_host_join_and_the_token_is_used_up() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let token = cloud.one().await?;
    let h1 = Machine::new(&cloud, "h1")?;
    let ended = h1.join(&token, &[]).await?;
    assert!(ended.ok, "{ended:?}");
    for role in ["compute", "storage", "network"] {
        let files = h1.credentials(role);
        assert_eq!(fs::metadata(&files.key)?.permissions().mode() & 0o777, 0o600);
        let identity = files.load()?.identity.to_string();
        assert!(identity.ends_with(&format!("/host/{}/{role}-agent", h1.host_id())), "{identity}");
    }
    let more = cloud.one().await?;
    let metrics = cloud.rest.get("/metrics").await?.text();
    for role in ["compute", "storage", "network"] {
        let name = format!("host_certificate_expiry_timestamp_seconds{{host=\"h1\",role=\"{role}\"");
        let line = metrics.lines().find(|line| line.starts_with(&name));
        let end = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let days =
            (end.context(metrics.clone())? - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64()) / 86400.0;
        assert!((29.0..31.0).contains(&days), "{role}: {days}");
    }
    assert!(metrics.contains("authority_expiry_timestamp_seconds{authority=\"ca-1\""), "{metrics}");
    assert!(metrics.contains("\njoin_tokens{service=\"api-gateway\"} 1\n"), "the used one does not count: {metrics}");
    let h3 = Machine::new(&cloud, "h3")?;
    assert!(h3.join(&more, &[]).await?.ok);
    assert!(cloud.rest.get("/metrics").await?.text().contains("\njoin_tokens{service=\"api-gateway\"} 0\n"));
    let _agent = h1.storage_agent()?;
    cloud.answers("h1", "storage").await?;
    // The gateway reaches the agent too: over TLS, as the agent of that host.
    cloud.logs(&["inventory taken", "host=h1", "role=storage"]).await?;

    let h2 = Machine::new(&cloud, "h2")?;
    let ended = h2.join(&token, &[]).await?;
    assert!(!ended.ok && ended.err.contains("was used its one time"), "{ended:?}");
    assert_eq!(h2.files(), vec![], "a host that was not let in has nothing");
    cloud.rest.get("/hosts/h2").await?.expect(404)?;
    assert_eq!(cloud.logged(&["a host joined", "host=h1"]), 1);
    assert_eq!(cloud.logged(&["a host was not let in", "host=h2"]), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_that_does_not_count_is_refused_with_its_own_reason() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let machine = Machine::new(&cloud, "h1")?;
    let short = cloud.token(&json!({"ttl_seconds": 1})).await?;
    let revoked = cloud.token(&json!({})).await?;
    let id = revoked["id"].as_str().unwrap();
    let gone = cloud.rest.delete(&format!("/hosts:join-tokens/{id}")).await?.expect(200)?;
    assert!(gone["revoked_at"].is_string(), "{gone}");
    let real = cloud.one().await?;
    let (head, address) = real.split_once('@').unwrap();
    let (head, secret) = head.rsplit_once('.').unwrap();
    let guessed = format!("{head}.{}@{address}", "0".repeat(secret.len()));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (token, why) in [
        (short["token"].as_str().unwrap(), "has expired"),
        (revoked["token"].as_str().unwrap(), "was revoked"),
        (guessed.as_str(), "no such join token"),
        ("cj1.abc", "this is no join token"),
    ] {
        let ended = machine.join(token, &[]).await?;
        assert!(!ended.ok && ended.err.contains(why), "{why}: {ended:?}");
    }
    let listed = cloud.rest.get("/hosts:join-tokens").await?.expect(200)?;
    let all = listed["join_tokens"].as_array().unwrap();
    assert!(all.iter().all(|t| t["id"] != id && t["token"] == ""), "{listed}");
    assert!(machine.join(&real, &[]).await?.ok);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lets_in_as_many_hosts_as_it_says_also_at_once() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let token = cloud.token(&json!({"uses": 3})).await?["token"].as_str().unwrap().to_owned();
    let machines: Vec<_> = (1..=6).map(|n| Machine::new(&cloud, &format!("h{n}"))).collect::<Result<_, _>>()?;
    let joining = machines.iter().map(|machine| machine.join(&token, &[]));
    let ended = futures::future::try_join_all(joining).await?;
    let let_in = ended.iter().filter(|e| e.ok).count();
    assert_eq!(let_in, 3, "{ended:?}");
    assert!(ended.iter().filter(|e| !e.ok).all(|e| e.err.contains("used its 3 times")), "{ended:?}");
    let hosts = cloud.rest.get("/hosts").await?.expect(200)?;
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 3, "{hosts}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_another_authority_is_told_nothing() -> anyhow::Result<()> {
    let (cloud, other) = (Cloud::start(&[]).await?, Cloud::start(&[]).await?);
    let token = cloud.one().await?;
    let (head, _) = token.split_once('@').unwrap();
    let machine = Machine::new(&cloud, "h1")?;
    let ended = machine.join(&format!("{head}@{}", other.agents), &[]).await?;
    assert!(!ended.ok && ended.err.contains("was told nothing"), "{ended:?}");
    assert_eq!(other.logged(&["HostService/Join"]), 0, "the token reached the other gateway");
    assert!(machine.join(&token, &[]).await?.ok, "and it still counts");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_joined_is_left_as_it_is() -> anyhow::Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let h1 = Machine::new(&cloud, "h1")?;
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    let (before, token) = (h1.files(), cloud.one().await?);
    let ended = h1.join(&token, &[]).await?;
    assert!(!ended.ok && ended.err.contains("has joined already"), "{ended:?}");
    assert_eq!(h1.files(), before);
    // Not even where that is asked for, with a token that is not bound to it.
    let ended = h1.join(&token, &["--again"]).await?;
    assert!(!ended.ok && ended.err.contains("token bound to it"), "{ended:?}");
    assert_eq!(h1.files(), before);
    // A name that is taken is taken.
    let twin = Machine { dir: cloud.dir.path().join("twin"), ..Machine::new(&cloud, "h1")? };
    let ended = twin.join(&token, &[]).await?;
    assert!(!ended.ok && ended.err.contains("already a host called `h1`"), "{ended:?}");
    assert!(Machine::new(&cloud, "h2")?.join(&token, &[]).await?.ok, "the token was not used by what was refused");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_certificates_ran_out_joins_again_and_is_the_same() -> anyhow::Result<()> {
    let cloud = Cloud::start(&["--host-certificate-lifetime=3"]).await?;
    let (h1, h2) = (Machine::new(&cloud, "h1")?, Machine::new(&cloud, "h2")?);
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    let id = h1.host_id();
    until("the certificates to run out", PATIENCE, || async {
        let over = h1.credentials("storage").load()?.validity.is_over();
        Ok(if over { Ok(()) } else { Err("they count") })
    })
    .await?;
    let ended = h1.join(&cloud.one().await?, &[]).await?;
    assert!(!ended.ok && ended.err.contains("token bound to it"), "{ended:?}");
    let bound = cloud.token(&json!({"host": "h1"})).await?;
    assert_eq!(bound["host"], "h1");
    let bound = bound["token"].as_str().unwrap();
    let ended = h2.join(bound, &[]).await?;
    assert!(!ended.ok && ended.err.contains("is for host `h1` alone"), "{ended:?}");
    let ended = h1.join(bound, &[]).await?;
    assert!(ended.ok && ended.out.contains("kept as it was"), "{ended:?}");
    assert_eq!(h1.host_id(), id);
    assert!(!h1.credentials("storage").load()?.validity.is_over());
    let ended = h1.join(bound, &["--again"]).await?;
    assert!(!ended.ok && ended.err.contains("was used its one time"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_for_hosts_there_is_no_token() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let gateway = cloud_testkit::GatewayProcess::start(dir.path(), cloud_testkit::GatewayConfig::default()).await?;
    let answer = gateway.rest()?.post("/hosts:join-token", &json!({})).await?;
    assert_eq!(answer.status.as_u16(), 400, "{}", answer.text());
    assert!(
        answer.text().contains("NO_AGENTS_ADDRESS") && answer.text().contains("--agents-address"),
        "{}",
        answer.text()
    );
    for wrong in [json!({"uses": 2, "host": "h1"}), json!({"ttl_seconds": 2_592_001}), json!({"uses": 1001})] {
        let answer = gateway.rest()?.post("/hosts:join-token", &wrong).await?;
        assert!(answer.status.is_client_error(), "{wrong}: {}", answer.text());
    }
    Ok(())
}
