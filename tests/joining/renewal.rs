//! Certificates are renewed, and nobody notices.

use std::{fs, time::Duration};

use cloud_contracts::agent::{AgentRole, HeartbeatRequest, HeartbeatsRequest, host_service_client::HostServiceClient};
use cloud_service_kit::{
    channel::connect_lazy_by,
    tls::{Credentials, Expect, Material, Validity, client_config},
};
use futures::stream;
use tonic::Code;

use crate::{
    ca::{presented, presented_authority},
    support::{Cloud, Machine, becomes},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_its_certificate_and_keeps_its_registration() -> anyhow::Result<()> {
    let cloud = Cloud::start(&["--host-certificate-lifetime=6"]).await?;
    let h1 = Machine::new(&cloud, "h1")?;
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    let agent = h1.storage_agent()?;
    cloud.answers("h1", "storage").await?;
    let files = h1.credentials("storage");
    let first = fs::read_to_string(&files.certificate)?;
    let first_end = files.load()?.validity.until;
    becomes("two renewals", Duration::from_secs(30), || {
        let times = h1.storage_log().matches("the certificate was renewed").count();
        if times >= 2 { Ok(()) } else { Err(h1.storage_log()) }
    })
    .await?;
    assert_ne!(fs::read_to_string(&files.certificate)?, first);
    // Past the end of the first one: what goes on goes on with the new ones.
    becomes("the first certificate to end", Duration::from_secs(10), || {
        if first_end < std::time::SystemTime::now() { Ok(()) } else { Err(String::new()) }
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cloud.answers("h1", "storage").await?;
    assert_eq!(cloud.logged(&["agent registered", "role=storage"]), 1, "it had to register again");
    assert!(!h1.storage_log().contains("heartbeat failed"), "{}", h1.storage_log());
    drop(agent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_end_with_the_certificate_that_they_came_with() -> anyhow::Result<()> {
    let cloud = Cloud::start(&["--host-certificate-lifetime=3"]).await?;
    let h1 = Machine::new(&cloud, "h1")?;
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    let tls = client_config(&Credentials::new(h1.credentials("storage").load()?), Expect::Gateway)?;
    let mut client = HostServiceClient::new(connect_lazy_by(&cloud.agents.parse()?, Some(tls)));
    let beat = HeartbeatRequest {
        host_id: h1.host_id(),
        role: AgentRole::Storage.into(),
        session_id: uuid::Uuid::new_v4().to_string(),
        ..HeartbeatRequest::default()
    };
    let beats = stream::unfold((), move |()| {
        let beat = beat.clone();
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((HeartbeatsRequest { heartbeat: Some(beat) }, ()))
        }
    });
    let mut answers = client.heartbeats(beats).await?.into_inner();
    let mut heard = 0;
    let ended = loop {
        match answers.message().await {
            Ok(answer) => heard += u32::from(answer.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(heard > 0 && heard < 100, "{heard}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_shows_a_new_certificate_before_the_old_one_ends() -> anyhow::Result<()> {
    let cloud = Cloud::start(&["--gateway-certificate-lifetime=6"]).await?;
    let h1 = Machine::new(&cloud, "h1")?;
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    let _agent = h1.storage_agent()?;
    cloud.answers("h1", "storage").await?;
    let material = || -> anyhow::Result<Material> { Ok(h1.credentials("compute").load()?) };
    let first = presented(&cloud.agents, material()?).await?;
    let end = Validity::of(&first)?.until;
    becomes("the first certificate to end", Duration::from_secs(10), || {
        if end < std::time::SystemTime::now() { Ok(()) } else { Err(String::new()) }
    })
    .await?;
    let second = presented(&cloud.agents, material()?).await?;
    assert_ne!(first, second);
    assert!(!Validity::of(&second)?.is_over());
    cloud.answers("h1", "storage").await?;
    assert_eq!(cloud.logged(&["agent registered", "role=storage"]), 1, "it had to register again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_replaced_and_both_are_trusted_meanwhile() -> anyhow::Result<()> {
    let cloud = Cloud::start(&["--host-certificate-lifetime=10", "--gateway-certificate-lifetime=60"]).await?;
    let h1 = Machine::new(&cloud, "h1")?;
    assert!(h1.join(&cloud.one().await?, &[]).await?.ok);
    let _agent = h1.storage_agent()?;
    cloud.answers("h1", "storage").await?;
    let files = h1.credentials("storage");
    let trusted = || fs::read_to_string(&files.authorities).unwrap_or_default().matches("BEGIN CERTIFICATE").count();
    assert_eq!(trusted(), 1);
    let before = presented_authority(&cloud.agents, files.load()?).await?;
    let token = cloud.one().await?;
    let made = cloud.rest.post("/hosts:rotate-authority", &serde_json::json!({})).await?.expect(201)?;
    assert_eq!(made["id"], "ca-2", "{made}");
    let again = cloud.rest.post("/hosts:rotate-authority", &serde_json::json!({})).await?;
    assert!(again.text().contains("is replacing the authority before it"), "{}", again.text());
    // The agent is asked to renew at once, and then trusts both.
    becomes("the agent to trust both", Duration::from_secs(10), || {
        if trusted() == 2 { Ok(()) } else { Err(h1.storage_log()) }
    })
    .await?;
    assert_eq!(
        presented_authority(&cloud.agents, files.load()?).await?,
        before,
        "the gateway goes on with the old one"
    );
    let listed = cloud.rest.get("/hosts:authorities").await?.expect(200)?;
    let issues: Vec<_> = listed["authorities"].as_array().unwrap().iter().map(|a| a["issues"] == true).collect();
    assert_eq!(issues, [false, true], "{listed}");
    // A token from before it lets a host in, which gets certificates of the new one.
    let h2 = Machine::new(&cloud, "h2")?;
    assert!(h2.join(&token, &[]).await?.ok);
    // And when every certificate that counts is of the new one, the gateway changes over, and the old one is forgotten.
    cloud_testkit::until("the gateway to change over", Duration::from_secs(30), || async {
        let shown = presented_authority(&cloud.agents, files.load()?).await;
        Ok(match shown {
            Ok(shown) if shown != before => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    cloud_testkit::until("the old authority to be forgotten", Duration::from_secs(30), || async {
        let listed = cloud.rest.get("/hosts:authorities").await?.expect(200)?;
        let names: Vec<_> = listed["authorities"].as_array().unwrap().iter().map(|a| a["id"].clone()).collect();
        Ok(if names == ["ca-2"] { Ok(()) } else { Err(listed.to_string()) })
    })
    .await?;
    cloud.answers("h1", "storage").await?;
    assert_eq!(cloud.logged(&["agent registered", "role=storage"]), 1, "it had to register again");
    let late = Machine::new(&cloud, "h3")?.join(&cloud.one().await?, &[]).await?;
    assert!(late.ok, "{late:?}");
    Ok(())
}
