//! Projects, keys and quotas in a cloud that runs.

use cloud_testkit::{
    RestClient,
    wait::{PATIENCE, until},
};
use cloud_tests::{TestCloud, cloud::IMAGE};
use http::{HeaderName, Method};
use serde_json::{Value, json};

use crate::support::{names, refused};

/// The operator's client, in another project.
fn in_project(cloud: &TestCloud, project: &str) -> anyhow::Result<RestClient> {
    cloud.rest.clone().with_header(HeaderName::from_static("x-project"), project)
}

/// Makes a project, and a key of this role in it.
async fn tenant(cloud: &TestCloud, project: &str, role: &str) -> anyhow::Result<RestClient> {
    cloud.rest.post("/projects", &json!({"name": project})).await?.expect(201)?;
    let body = json!({"name": "ci", "role": role});
    let made = in_project(cloud, project)?.post("/api-keys", &body).await?.expect(201)?;
    RestClient::new(cloud.gateway.url()).with_key(made["secret"].as_str().unwrap())
}

async fn used(client: &RestClient, project: &str) -> anyhow::Result<Value> {
    Ok(client.get(&format!("/quotas/{project}")).await?.expect(200)?["used"].clone())
}

async fn publish(cloud: &TestCloud) -> anyhow::Result<()> {
    let path = "/images:upload?name=ours&format=RAW&visibility=PUBLIC";
    let answer = cloud.rest.send(Method::POST, path, Some("application/octet-stream"), vec![0x5a; 1 << 20]).await?;
    answer.expect(201).map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_launches_at_once_against_a_quota_of_ten_are_ten() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    publish(&cloud).await?;
    let blue = tenant(&cloud, "blue", "MEMBER").await?;
    let limits = json!({"limits": {"instances": 10}});
    let body = serde_json::to_vec(&limits)?;
    cloud.rest.send(Method::PATCH, "/quotas/blue", Some("application/json"), body).await?.expect(200)?;
    let launches = (0..64).map(|i| {
        let blue = blue.clone();
        async move {
            let body = json!({"name": format!("web-{i}"), "image": "ours", "instance_type": "tiny"});
            anyhow::Ok(blue.post("/instances", &body).await?.status.as_u16())
        }
    });
    let codes = futures::future::try_join_all(launches).await?;
    let count = |code| codes.iter().filter(|c| **c == code).count();
    assert_eq!((count(201), count(429)), (10, 54), "{codes:?}");
    assert_eq!(used(&blue, "blue").await?["instances"], "10");

    // What is gone from the hosts is given back, to the last MiB.
    let list = blue.get("/instances").await?.expect(200)?;
    for name in names(&list, "instances") {
        blue.delete(&format!("/instances/{name}")).await?.expect(200)?;
    }
    let zero = json!({"instances": "0", "vcpus": "0", "memory_mib": "0", "volume_gib": "0", "snapshots": "0", "vpcs": "1", "floating_ips": "0"});
    until("the quota to be given back", PATIENCE, || async {
        let used = used(&blue, "blue").await?;
        Ok(if used == zero { Ok(()) } else { Err(used.to_string()) })
    })
    .await?;
    cloud.is_clean().await?;
    cloud.rest.delete("/projects/blue").await?.expect(200)?;
    refused(&blue.get("/instances").await?, 401, "UNAUTHENTICATED");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other_and_a_revoked_key_is_out_at_once_and_after_a_restart() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let blue = tenant(&cloud, "blue", "ADMIN").await?;
    for path in ["/instances/web-01", &format!("/images/{IMAGE}"), "/projects/default", "/quotas/default"] {
        refused(&blue.get(path).await?, 404, "NOT_FOUND");
    }
    refused(&blue.get("/hosts").await?, 403, "PERMISSION_DENIED");
    refused(&blue.post("/projects", &json!({"name": "green"})).await?, 403, "PERMISSION_DENIED");
    let events = blue.get("/events").await?.expect(200)?;
    let denied = events["events"].as_array().unwrap().iter().find(|e| e["action"] == "project.create").unwrap();
    assert_eq!(denied["outcome"], "PERMISSION_DENIED");
    in_project(&cloud, "blue")?.delete("/api-keys/ci").await?.expect(200)?;
    refused(&blue.get("/vpcs").await?, 401, "UNAUTHENTICATED");
    cloud.gateway.restart().await?;
    refused(&blue.get("/vpcs").await?, 401, "UNAUTHENTICATED");
    cloud.rest.get("/projects/blue").await?.expect(200)?;
    Ok(())
}
