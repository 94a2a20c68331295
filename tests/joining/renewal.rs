//! Certificates are renewed, and nobody notices.

use std::{fs, time::Duration};

use cloud_service_kit::tls::{Material, Validity};

use crate::{
    ca::presented,
    support::{Cloud, Machine, becomes},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_its_certificate_and_keeps_its_registration() -> anyhow::Result<()> {
    let cloud = Cloud::start(&["--host-certificate-lifetime=6"]).await?;
    let h1 = Machine::new(&cloud, "h1");
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
async fn a_gateway_shows_a_new_certificate_before_the_old_one_ends() -> anyhow::Result<()> {
    let cloud = Cloud::start(&["--gateway-certificate-lifetime=6"]).await?;
    let h1 = Machine::new(&cloud, "h1");
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
