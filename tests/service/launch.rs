//! Launching, and reading what was launched.

use cloud_contracts::v1::{
    GetInstanceRequest, LaunchInstanceRequest, ListInstancesRequest, instance::Status,
    instance_service_client::InstanceServiceClient,
};
use cloud_testkit::Method;
use cloud_tests::{TestCloud, cloud::IMAGE};
use serde_json::json;

use crate::support::{names, refused, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_answers_starting_at_once_and_then_runs() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let accepted = cloud.launch("web-01").await?;
    assert_eq!(accepted["status"], "STARTING");
    assert_eq!(accepted["name"], "web-01");
    assert!(uuid::Uuid::parse_str(&text(&accepted, "id")).is_ok());
    assert!(text(&accepted, "created_at").ends_with('Z'), "{accepted}");

    let running = cloud.becomes("web-01", "RUNNING").await?;
    assert_eq!(running["id"], accepted["id"]);
    assert_eq!(running["host"], "h1");
    assert_eq!(running["host_reachable"], true);
    assert_eq!(running["image"], IMAGE);
    assert_eq!(running["console_available"], true);
    assert!(!text(&running, "started_at").is_empty());
    assert_eq!(text(&running["ports"][0], "ip"), "10.0.0.2");
    assert_eq!(running["volumes"][0]["root"], true);
    cloud.settles(1, 1, 1).await?;

    let snapshot = cloud.host().snapshot();
    let domain = &snapshot.domains[&text(&running, "id")];
    assert_eq!(domain.spec.name, "web-01");
    assert_eq!(domain.spec.seed.as_ref().unwrap().hostname, "web-01");
    assert_eq!(domain.spec.nics[0].mac, text(&running["ports"][0], "mac"));
    assert_eq!(cloud.calls(Method::PutImage), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_launch_takes_reaches_the_guest() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrZ3Q1Y me@home";
    let body = json!({
        "name": "web-01", "image": IMAGE, "instance_type": "medium", "labels": {"tier": "web"},
        "ssh_keys": [key], "user_data": "#!/bin/sh\necho hello", "root_disk_gib": 30,
    });
    cloud.launch_as(&body).await?;
    let running = cloud.becomes("web-01", "RUNNING").await?;
    assert_eq!(running["labels"]["tier"], "web");
    assert_eq!((&running["vcpus"], &running["memory_mib"]), (&json!(2), &json!(2048)));
    let snapshot = cloud.host().snapshot();
    let spec = &snapshot.domains[&text(&running, "id")].spec;
    let seed = spec.seed.clone().unwrap();
    assert_eq!((seed.ssh_keys, seed.user_data), (vec![key.to_owned()], "#!/bin/sh\necho hello".to_owned()));
    assert_eq!((spec.vcpus, spec.memory_mib), (2, 2048));
    assert_eq!(snapshot.volumes.values().next().unwrap().size_bytes, 30 << 30);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_and_rest_are_one_service() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let mut grpc = InstanceServiceClient::new(cloud.gateway.grpc()?.service());
    let request = LaunchInstanceRequest { name: "db-01".into(), image: IMAGE.into(), ..Default::default() };
    let accepted = grpc.launch_instance(request.clone()).await?.into_inner();
    assert_eq!(accepted.status(), Status::Starting);
    let taken = grpc.launch_instance(request).await.unwrap_err();
    assert_eq!(taken.code(), tonic::Code::AlreadyExists);

    cloud.becomes(&accepted.id, "RUNNING").await?;
    let by_name = grpc.get_instance(GetInstanceRequest { id: "db-01".into() }).await?.into_inner();
    assert_eq!((by_name.id.as_str(), by_name.status()), (accepted.id.as_str(), Status::Running));
    let list = grpc.list_instances(ListInstancesRequest::default()).await?.into_inner();
    assert_eq!(list.instances.len(), 1);
    let rest = cloud.instance("db-01").await?;
    assert_eq!((text(&rest, "id"), text(&rest, "etag")), (by_name.id, by_name.etag));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_a_conflict_and_nothing_is_made() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    let again = cloud.rest.post("/instances", &json!({"name": "web-01", "image": IMAGE})).await?;
    refused(&again, 409, "ALREADY_EXISTS");
    assert!(again.at("/error/message").contains("web-01"));
    let list = cloud.rest.get("/instances?show_deleted=true").await?.expect(200)?;
    assert_eq!(names(&list, "instances"), ["web-01"]);
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_launches_of_one_name_have_one_winner() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let launches = (0..16).map(|_| {
        let rest = cloud.rest.clone();
        tokio::spawn(async move { rest.post("/instances", &json!({"name": "web-01", "image": IMAGE})).await })
    });
    let mut statuses = Vec::new();
    for launch in launches {
        statuses.push(launch.await??.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 201, "{statuses:?}");
    assert!(statuses[1..].iter().all(|s| *s == 409), "{statuses:?}");
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_oldest_first() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for number in 0..5 {
        cloud.launch(&format!("i-{number}")).await?;
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = cloud.rest.get(&format!("/instances?page_size=2&page_token={token}")).await?.expect(200)?;
        let here = names(&page, "instances");
        assert!(here.len() <= 2);
        seen.extend(here);
        token = text(&page, "next_page_token");
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["i-0", "i-1", "i-2", "i-3", "i-4"]);
    let bad = cloud.rest.get("/instances?page_token=nonsense").await?;
    refused(&bad, 400, "INVALID_ARGUMENT");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_in_the_events() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let id = text(&cloud.running("web-01").await?, "id");
    let events = cloud.rest.get(&format!("/events?resource_id={id}")).await?.expect(200)?;
    let actions: Vec<_> = events["events"].as_array().unwrap().iter().map(|e| text(e, "action")).collect();
    assert!(actions.contains(&"instance.launch".to_owned()), "{actions:?}");
    assert!(actions.contains(&"instance.running".to_owned()), "{actions:?}");
    let launch = events["events"].as_array().unwrap().iter().find(|e| e["action"] == "instance.launch").unwrap();
    assert_eq!((text(launch, "actor"), text(launch, "resource_name")), ("admin".to_owned(), "web-01".to_owned()));
    Ok(())
}
