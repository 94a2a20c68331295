//! Changes are made once, also where the gateway dies between them.

use std::time::Duration;

use cloud_testkit::{until, wait::PATIENCE};
use cloud_tests::{TestCloud, cloud::IMAGE};
use http::HeaderName;
use serde_json::json;

use crate::support::{names, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hears_nothing_sends_it_again() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    for round in 0..5_u64 {
        let name = format!("i-{round}");
        let body = json!({"name": name, "image": IMAGE, "instance_type": "tiny"});
        let once = cloud.rest.clone().with_header(HeaderName::from_static("idempotency-key"), &format!("r-{round}"))?;
        let first = tokio::spawn({
            let (once, body) = (once.clone(), body.clone());
            async move { once.post("/instances", &body).await }
        });
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        cloud.gateway.kill();
        let first = first.await?.ok().filter(|answer| answer.status == 201);
        cloud.gateway.restart().await?;
        // Whatever became of the first one: sent again, it is there once.
        let made = until("the launch to be answered", PATIENCE, || async {
            let answer = once.post("/instances", &body).await?;
            Ok(if answer.status == 201 { Ok(answer) } else { Err(answer.text()) })
        })
        .await?;
        if let Some(first) = first {
            assert_eq!(first.at("/id"), made.at("/id"), "round {round}");
        }
        let again = once.post("/instances", &body).await?;
        assert_eq!(again.at("/id"), made.at("/id"));
        assert_eq!(again.headers["idempotency-replayed"], "true");
        cloud.becomes(&name, "RUNNING").await?;
        refused(&once.delete(&format!("/instances/{name}")).await?, 409, "ALREADY_EXISTS");
    }
    let all = names(&cloud.rest.get("/instances").await?.expect(200)?, "instances");
    assert_eq!(all, ["i-0", "i-1", "i-2", "i-3", "i-4"]);
    cloud.settles(5, 5, 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_sent_again_waits_again() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let once = cloud.rest.clone().with_header(HeaderName::from_static("idempotency-key"), "stop")?;
    let body = json!({});
    let (first, second) =
        tokio::join!(once.post("/instances/web-01/stop", &body), once.post("/instances/web-01/stop", &body));
    for answer in [first?, second?, once.post("/instances/web-01/stop", &json!({})).await?] {
        assert_eq!(answer.expect(200)?["status"], "STOPPED");
    }
    let stops = cloud.rest.get("/events?filter=action%3Dinstance.stop").await?.expect(200)?;
    assert_eq!(stops["events"].as_array().map(Vec::len), Some(1));
    Ok(())
}
