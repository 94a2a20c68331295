//! Consoles: the log, the URL with its token, the stream.

use cloud_contracts::v1::{
    StreamConsoleRequest, instance_service_client::InstanceServiceClient, stream_console_request::Message,
};
use cloud_testkit::{RestClient, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud};
use serde_json::json;

use crate::support::{refused, text};

/// A console's page by its URL, fetched as a browser does: without a key.
async fn open(cloud: &TestCloud, url: &str) -> anyhow::Result<cloud_testkit::rest::Answer> {
    let path = url.strip_prefix(&cloud.gateway.url()).unwrap_or_else(|| panic!("{url} is not at the gateway"));
    RestClient::new(cloud.gateway.url()).get(path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_what_the_guest_wrote() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let log = cloud.rest.get("/instances/web-01/console-log").await?.expect(200)?;
    assert_eq!(log["log"], "web-01 starts\n");
    let end = cloud.rest.get("/instances/web-01/console-log?max_bytes=7").await?.expect(200)?;
    assert_eq!(end["log"], "starts\n");

    let id = text(&cloud.delete("web-01").await?, "id");
    let path = format!("/instances/{id}/console-log");
    refused(&cloud.rest.get(&path).await?, 400, "FAILED_PRECONDITION");
    // Also when nobody could be asked for it any more.
    cloud.rest.delete("/hosts/h1").await?.expect(200)?;
    refused(&cloud.rest.get(&path).await?, 400, "FAILED_PRECONDITION");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_url_opens_without_a_key_until_it_expires() -> anyhow::Result<()> {
    let args = vec!["--console-ttl=2".to_owned()];
    let cloud = TestCloud::with(Setup { args, ..Setup::default() }).await?;
    cloud.running("web-01").await?;
    let console = cloud.rest.get("/instances/web-01/console").await?.expect(200)?;
    let url = text(&console, "url");
    assert!(!text(&console, "expires_at").is_empty());
    let page = open(&cloud, &url).await?;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.headers["content-type"].to_str()?.starts_with("text/html"));

    let last = url.chars().last().unwrap();
    let forged = format!("{}{}", &url[..url.len() - 1], if last == '0' { '1' } else { '0' });
    let answer = open(&cloud, &forged).await?;
    assert!(matches!(answer.status.as_u16(), 401 | 403), "{}", answer.status);

    until("the token to expire", PATIENCE, || async {
        let answer = open(&cloud, &url).await?;
        Ok(if matches!(answer.status.as_u16(), 401 | 403) { Ok(()) } else { Err(answer.status) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_has_no_console() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200)?;
    refused(&cloud.rest.get("/instances/web-01/console").await?, 400, "FAILED_PRECONDITION");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_both_ways() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let mut grpc = InstanceServiceClient::new(cloud.gateway.grpc()?.service());
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let message = |m| StreamConsoleRequest { message: Some(m) };
    sender.send(message(Message::Id("web-01".into()))).await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = grpc.stream_console(requests).await?.into_inner();
    let first = answers.message().await?.unwrap();
    assert_eq!(&first.data[..], b"web-01 starts\n");
    sender.send(message(Message::Data("uname\n".into()))).await?;
    assert_eq!(&answers.message().await?.unwrap().data[..], b"uname\n");
    Ok(())
}
