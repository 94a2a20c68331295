//! Where instances are placed, and what of a host may be promised.

use cloud_contracts::agent::{AgentRole, RegisterRequest, host_service_client::HostServiceClient};
use cloud_testkit::{sim::SimCapacity, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use http::Method as Http;
use serde_json::{Value, json};

use crate::{
    places::{impatient, placed},
    support::{refused, refused_field, text},
};

async fn patch(cloud: &TestCloud, host: &str, body: &Value) -> anyhow::Result<cloud_testkit::rest::Answer> {
    cloud.rest.send(Http::PATCH, &format!("/hosts/{host}"), Some("application/json"), body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_may_promise_is_its_own() -> anyhow::Result<()> {
    let capacity = SimCapacity { vcpus: 4, memory_mib: 4096, ..SimCapacity::default() };
    let cloud = TestCloud::with(Setup { capacity, ..impatient(1, &[]) }).await?;
    let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
    assert_eq!((&host["vcpus_promisable"], &host["memory_promisable_mib"]), (&json!("32"), &json!("3584")), "{host}");
    assert_eq!((&host["load1_hundredths"], &host["load15_hundredths"]), (&json!(25), &json!(75)));
    let wanted = json!({
        "labels": {"zone": "a"}, "vcpu_overcommit_percent": 50, "vcpus_reserved": 1, "memory_reserved_mib": "96",
        "memory_overcommit_percent": 7,
    });
    let named = "labels,vcpu_overcommit_percent,vcpus_reserved,memory_reserved_mib";
    let host = patch(&cloud, "h1", &json!({"host": wanted, "update_mask": named})).await?.expect(200)?;
    assert_eq!((&host["vcpus_promisable"], &host["memory_promisable_mib"]), (&json!("1"), &json!("4000")), "{host}");
    assert_eq!((&host["labels"]["zone"], &host["memory_overcommit_percent"]), (&json!("a"), &json!(100)));
    cloud.running("first").await?;
    let second = cloud.rest.post("/instances", &json!({"name": "second", "image": IMAGE})).await?;
    refused(&second, 429, "RESOURCE_EXHAUSTED");
    let body = json!({"host": {"vcpus_reserved": 4}, "update_mask": "vcpus_reserved"});
    let host = patch(&cloud, "h1", &body).await?.expect(200)?;
    assert_eq!((&host["vcpus_promisable"], &host["vcpus_used"]), (&json!("0"), &json!(1)), "less than is promised");
    assert_eq!(cloud.instance("first").await?["status"], "RUNNING");
    let wrong = patch(&cloud, "h1", &json!({"host": wanted, "update_mask": "memory_overcommit_percent"})).await?;
    refused_field(&wrong, "memory_overcommit_percent");
    refused_field(&patch(&cloud, "h1", &json!({"host": {}, "update_mask": "state"})).await?, "update_mask");
    // A heartbeat later it is still so.
    cloud.host().set_capacity(SimCapacity { vcpus: 6, memory_mib: 4096, ..SimCapacity::default() });
    until("the new capacity", PATIENCE, || async {
        let host = cloud.rest.get("/hosts/h1").await?.expect(200)?;
        Ok(if host["vcpus_promisable"] == "1" { Ok(()) } else { Err(host.to_string()) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_go_where_they_may() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { hosts: 3, ..Setup::default() }).await?;
    for (host, zone) in [("h1", "a"), ("h2", "b"), ("h3", "b")] {
        let body = json!({"host": {"labels": {"zone": zone}}, "update_mask": "labels"});
        patch(&cloud, host, &body).await?.expect(200)?;
    }
    let launch = async |name: &str, placement: Value| cloud.rest.post("/instances", &placed(name, &placement)).await;
    for number in 0..4 {
        let made = launch(&format!("a-{number}"), json!({"host_labels": {"zone": "a"}})).await?.expect(201)?;
        assert_eq!(made["host"], "h1");
    }
    let nowhere = launch("c", json!({"host_labels": {"zone": "c"}})).await?;
    refused(&nowhere, 429, "RESOURCE_EXHAUSTED");
    for line in ["h1: its label zone is `a`, not `c`", "h2: its label zone is `b`, not `c`", "h3:"] {
        assert!(nowhere.at("/error/message").contains(line), "{}", nowhere.text());
    }
    let nowhere = launch("k", json!({"accelerator": "kvm"})).await?;
    assert!(nowhere.at("/error/message").contains("h2: its guests run under tcg, not kvm"), "{}", nowhere.text());
    refused_field(&launch("x", json!({"accelerator": "magic"})).await?, "placement.accelerator");
    refused_field(&launch("x", json!({"anti_affinity_required": true})).await?, "placement.anti_affinity_required");

    let path = "/images:upload?name=arm&format=RAW&architecture=aarch64";
    let image = cloud.rest.send(Http::POST, path, Some("application/octet-stream"), vec![7; 1 << 20]).await?;
    assert_eq!(image.expect(201)?["architecture"], "aarch64");
    let nowhere = cloud.rest.post("/instances", &json!({"name": "arm", "image": "arm"})).await?;
    refused(&nowhere, 429, "RESOURCE_EXHAUSTED");
    assert!(nowhere.at("/error/message").contains("h3: it is x86_64, the image is for aarch64"), "{}", nowhere.text());
    let path = path.replace("aarch64", "abacus");
    let wrong = cloud.rest.send(Http::POST, &path, Some("application/octet-stream"), vec![7; 1 << 20]).await?;
    refused_field(&wrong, "architecture");

    let apart = json!({"anti_affinity_group": "db", "anti_affinity_required": true});
    let mut hosts = Vec::new();
    for number in 0..3 {
        let made = launch(&format!("db-{number}"), apart.clone()).await?.expect(201)?;
        assert_eq!(made["anti_affinity_group"], "db");
        hosts.push(text(&made, "host"));
    }
    hosts.sort();
    assert_eq!(hosts, ["h1", "h2", "h3"]);
    let fourth = launch("db-3", apart).await?;
    assert!(fourth.at("/error/message").contains("h1: it has an instance of group `db`"), "{}", fourth.text());
    let mut hosts = Vec::new();
    for number in 0..6 {
        let made = launch(&format!("web-{number}"), json!({"anti_affinity_group": "web"})).await?.expect(201)?;
        hosts.push(text(&made, "host"));
    }
    for host in ["h1", "h2", "h3"] {
        assert_eq!(hosts.iter().filter(|h| *h == host).count(), 2, "{hosts:?}");
    }

    cloud.becomes("db-0", "RUNNING").await?;
    let explained = cloud.rest.get("/instances/db-0/explain").await?.expect(200)?;
    assert!(text(&explained, "placement").contains("by spread, of 3 hosts of which 3 passed"), "{explained}");
    assert_eq!(explained["candidates"][0]["chosen"], true);
    let parts = explained["parts"].to_string();
    for part in
        ["instance: RUNNING, shall run", "host h", "root disk root-", "port 10.0.0.", "generation", "guest: was"]
    {
        assert!(parts.contains(part), "{part}: {explained}");
    }
    assert_eq!((&explained["last_error"], &explained["next_attempt_at"]), (&json!(""), &Value::Null));
    let explained = cloud.rest.get("/instances/a-0/explain").await?.expect(200)?;
    let refused: Vec<_> = explained["candidates"].as_array().unwrap().iter().map(|c| text(c, "refused")).collect();
    assert!(refused.iter().any(|why| why == "its label zone is `b`, not `a`"), "{explained}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn packing_fills_one_host_after_the_other() -> anyhow::Result<()> {
    let capacity = SimCapacity { memory_mib: 512 + 3 * 512, ..SimCapacity::default() };
    let cloud = TestCloud::with(Setup { capacity, ..impatient(3, &["--placement=pack"]) }).await?;
    let mut hosts = Vec::new();
    for number in 0..9 {
        hosts.push(text(&cloud.launch(&format!("i-{number}")).await?, "host"));
    }
    let changes = hosts.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 2, "{hosts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_a_release_too_far_away_is_refused() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let channel = tonic::transport::Endpoint::try_from(cloud.gateway.host_endpoint())?.connect_lazy();
    let mut gateway = HostServiceClient::new(channel);
    let mut register = async |version: String| {
        let request = RegisterRequest {
            host_id: uuid::Uuid::new_v4().to_string(),
            host_name: format!("v{}", version.replace('.', "-")),
            role: AgentRole::Network.into(),
            session_id: uuid::Uuid::new_v4().to_string(),
            endpoint: "unix:/nowhere".into(),
            agent_version: version,
            ..RegisterRequest::default()
        };
        gateway.register(request).await
    };
    let own = env!("CARGO_PKG_VERSION");
    let mut parts = own.split('.').map(|part| part.parse::<u64>().unwrap());
    let (major, minor) = (parts.next().unwrap(), parts.next().unwrap());
    register(format!("{major}.{}.0", minor + 1)).await?;
    let far = register(format!("{major}.{}.0", minor + 2)).await.unwrap_err();
    assert_eq!(far.code(), tonic::Code::FailedPrecondition);
    assert!(far.message().ends_with("upgrade the gateway"), "{far:?}");
    let far = register(format!("{}.0.0", major + 1)).await.unwrap_err();
    assert!(far.message().contains(own), "{far:?}");
    Ok(())
}
