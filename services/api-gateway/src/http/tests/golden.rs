//! What resources look like over REST.

use serde_json::{Value, json};

use super::fixture::{Cloud, stable};

/// Everything there is, and everything a client may send.
#[tokio::test]
async fn resources_as_json() {
    let cloud = Cloud::with_image().await;
    let made = |answer: super::fixture::Answer| {
        assert_eq!(answer.status, 201, "{}", answer.json);
        answer.json
    };
    let vpc = made(cloud.post("/vpcs", json!({"name": "lab", "cidr": "10.9.0.0/16", "labels": {"a": "b"}})).await);
    let subnet = json!({"name": "db", "cidr": "10.9.5.0/24", "dns_servers": ["9.9.9.9"]});
    let subnet = made(cloud.post("/vpcs/lab/subnets", subnet).await);
    let volume = made(cloud.post("/v1/volumes", json!({"name": "data", "size_gib": 3})).await);
    let launch = json!({
        "name": "web-01", "image": "tiny", "instanceType": "tiny", "vpc": "lab", "subnet": "db",
        "volumes": [{"volume": "data"}], "labels": {"tier": "web"}, "root_disk_gib": 2,
        "ssh_keys": ["ssh-ed25519 AAAA me@home"], "user_data": "#!/bin/sh\necho hello",
    });
    let instance = made(cloud.post("/instances", launch).await);
    let mut ports = cloud.get("/ports").await.json["ports"].take();
    let mut events = cloud.get("/events?kind=instance").await.json["events"].take();
    let import = json!({"name": "far", "url": "https://example.org/far.qcow2", "format": "QCOW2"});
    let all = json!({
        "image": cloud.get("/images/tiny").await.json,
        "image being imported": made(cloud.post("/images", import).await),
        "vpc": vpc,
        "subnet": subnet,
        "volume": volume,
        "volume, attached": cloud.get("/volumes/data").await.json,
        "snapshot": cloud.snapshot("data", "before").await,
        "instance": instance,
        "port": ports[0].take(),
        "host": cloud.get("/hosts/h1").await.json,
        "instance type": cloud.get("/instance-types/small").await.json,
        "project": cloud.get("/projects/default").await.json,
        "event": events[0].take(),
    });
    insta::assert_json_snapshot!(stable(&all));
}

#[tokio::test]
async fn an_instance_is_found_by_id_and_name_until_it_is_deleted() {
    let cloud = Cloud::with_image().await;
    let made = cloud.launch("web-01").await;
    let id = made["id"].as_str().unwrap();
    for path in [format!("/instances/{id}"), "/instances/web-01".into(), format!("/v1/instances/{id}")] {
        assert_eq!(cloud.get(&path).await.json, made, "{path}");
    }
    let deleted = cloud.send("DELETE", "/instances/web-01", String::new()).await;
    assert_eq!((deleted.status.as_u16(), &deleted.json["status"]), (200, &json!("DELETING")));
    assert_eq!(cloud.get("/instances/web-01").await.json["desired_status"], "DELETED");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let cloud = Cloud::with_image().await;
    for name in ["a", "b", "c"] {
        cloud.launch(name).await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = cloud.get(&format!("/instances?page_size=2&page_token={token}")).await.json;
        let rows = page["instances"].as_array().unwrap();
        assert!(rows.len() <= 2);
        names.extend(rows.iter().map(|row: &Value| row["name"].as_str().unwrap().to_owned()));
        token = page["next_page_token"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
}
