//! The life of a real guest through the public API.

use std::time::{Duration, Instant};

use cloud_contracts::v1::{
    StreamConsoleRequest, instance_service_client::InstanceServiceClient, stream_console_request::Message,
};
use cloud_tests::{
    RealCloud,
    real::{BOOT, virsh},
};
use serde_json::json;

/// After this a guest is powered off.
const STOP_GRACE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_lives_through_the_public_api() -> anyhow::Result<()> {
    let cloud = RealCloud::start().await?;
    let accepted = cloud.launch("web-01", json!({})).await?;
    assert_eq!(accepted["status"], "STARTING");
    let running = cloud.becomes("web-01", "RUNNING").await?;
    let id = running["id"].as_str().unwrap().to_owned();
    assert_eq!(virsh(&["domstate", &id])?, "running");
    cloud.has(1, 1, 1).await?;
    let ip = running["ports"][0]["ip"].as_str().unwrap().to_owned();
    cloud.says("web-01", &format!("tiny: eth0 {ip}/24")).await?;
    cloud.says("web-01", "web-01 login:").await?;

    let begun = Instant::now();
    let stopped = cloud.rest.post(&format!("/instances/{id}/stop"), &json!({})).await?.expect(200)?;
    assert_eq!(stopped["status"], "STOPPED");
    let (took, log) = (begun.elapsed(), cloud.log("web-01").await?);
    assert!(log.contains("tiny: power off") && took < STOP_GRACE, "it went by itself, after {took:?}: {log}");
    assert_eq!(virsh(&["domstate", &id])?, "shut off");

    cloud.rest.post("/instances/web-01/start", &json!({})).await?.expect(200)?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.has(1, 1, 1).await?;
    cloud.delete("web-01").await?;
    cloud.has(0, 0, 0).await?;
    assert_eq!(cloud.rest.get("/instances/web-01").await?.status, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_a_login_prompt_and_takes_keys() -> anyhow::Result<()> {
    let cloud = RealCloud::start().await?;
    cloud.launch("web-01", json!({})).await?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.says("web-01", "web-01 login:").await?;
    let mut grpc = InstanceServiceClient::new(cloud.gateway.grpc()?.service());
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let message = |m| StreamConsoleRequest { message: Some(m) };
    sender.send(message(Message::Id("web-01".into()))).await?;
    sender.send(message(Message::Data("root\r".into()))).await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = grpc.stream_console(requests).await?.into_inner();
    let mut seen = String::new();
    let read = async {
        let mut asked = false;
        while !seen.contains("sum=42") {
            // What is typed before the shell is there goes to the login, which drops it.
            if !asked && seen.contains("/root #") {
                sender.send(message(Message::Data("echo sum=$((40+2))\r".into()))).await?;
                asked = true;
            }
            let part = answers.message().await?.ok_or_else(|| anyhow::anyhow!("the stream ended"))?;
            seen += &String::from_utf8_lossy(&part.data);
        }
        anyhow::Ok(())
    };
    let read = tokio::time::timeout(BOOT, read).await;
    assert!(matches!(read, Ok(Ok(()))), "{read:?}: {seen}");

    let console = cloud.rest.get("/instances/web-01/console").await?.expect(200)?;
    assert!(console["url"].as_str().unwrap().starts_with(&cloud.gateway.url()), "{console}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_boots_the_guest_again() -> anyhow::Result<()> {
    let cloud = RealCloud::start().await?;
    cloud
        .launch("web-01", json!({"user_data": "#!/bin/sh\necho boot $(cat /proc/sys/kernel/random/boot_id)\n"}))
        .await?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.says("web-01", "tiny: user-data exited with status 0").await?;
    let before = cloud.log("web-01").await?;
    cloud.rest.post("/instances/web-01/reboot", &json!({})).await?.expect(200)?;
    cloud_testkit::until("the second boot", BOOT, || async {
        let log = cloud.log("web-01").await?;
        let boots = log.lines().filter(|l| l.trim().starts_with("boot ")).count();
        Ok(if boots >= 2 { Ok(()) } else { Err(log) })
    })
    .await
    .map_err(|error| cloud.with_logs(error.context(before)))?;
    cloud.becomes("web-01", "RUNNING").await?;
    Ok(())
}
