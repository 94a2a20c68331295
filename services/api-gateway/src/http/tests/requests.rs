//! Request ids over both protocols: what is sent again is not done again.

use axum::{body::Body, http::Request};
use cloud_contracts::v1::{self, volume_service_client::VolumeServiceClient};
use cloud_core::{
    model::{
        Event, Host, HostCapacity, HostLimits, HostMode, Instance, JoinToken, Labels, Meta, Orphan, OrphanKind,
        Timestamp,
    },
    ports::{Store, Tx},
};
use cloud_domain::{InstanceStatus, ProjectId};
use serde_json::{Value, json};
use tonic::Code;
use uuid::Uuid;

use super::{
    fixture::{Answer, Cloud, KEY},
    grpc::serve,
};

/// The id of a volume that no row knows.
const ORPHAN: &str = "7b0c8f0a-52a4-4e0f-9d0e-3f1f5a6f9f10";

impl Cloud {
    async fn once(&self, verb: &str, path: &str, body: &Value, id: &str) -> Answer {
        let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
        let request = Request::builder().method(verb).uri(path).header("authorization", format!("Bearer {KEY}"));
        Answer::read(self.raw(request.header("idempotency-key", id).body(body).unwrap()).await).await
    }

    /// Brings an instance into a status, as a reconciler would.
    async fn is(&self, name: &str, status: InstanceStatus) {
        let id = self.get(&format!("/instances/{name}")).await.json["id"].as_str().unwrap().parse().unwrap();
        let mut tx = self.store.begin().await.unwrap();
        let mut row: Instance = tx.get(id).await.unwrap().unwrap();
        row.status = status;
        tx.update(&mut row).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|v| v == "true")
}

/// How each mutation of the contract is called: on an instance `one` that is in the status, or on a volume, an image or a VPC `one`.
fn call(rpc: &str) -> Option<(Option<InstanceStatus>, Value)> {
    use InstanceStatus::{Running, Stopped};
    Some(match rpc {
        "LaunchInstance" => (None, json!({"name": "two", "image": "tiny", "instance_type": "tiny"})),
        "StartInstance" => (Some(Stopped), json!({})),
        "StopInstance" => (Some(Running), json!({})),
        "RebootInstance" => (Some(Running), json!({})),
        "AttachVolume" => (Some(Running), json!({"volume": "one"})),
        "DetachVolume" => (Some(Running), Value::Null),
        "CreateVolume" => (None, json!({"name": "two", "size_gib": 1, "labels": {"b": "1", "a": "2"}})),
        "CreateSnapshot" => (None, json!({"name": "two", "volume": "placed"})),
        "ResizeVolume" => (None, json!({"size_gib": 2})),
        "UpdateVolume" => (None, json!({"volume": {"iops": 100}, "update_mask": "iops"})),
        "ImportImage" => (None, json!({"name": "two", "url": "https://images.example/x.qcow2"})),
        "CreateVpc" | "CreateSubnet" => (None, json!({"name": "two", "cidr": "10.0.8.0/24"})),
        "DeleteInstance" | "DeleteVolume" | "DeleteSnapshot" | "DeleteImage" | "DeleteVpc" | "DeleteSubnet" => {
            (None, Value::Null)
        }
        "CreateProject" => (None, json!({"name": "two"})),
        "CreateApiKey" => (None, json!({"name": "two", "role": "MEMBER"})),
        "RotateApiKey" | "AdoptOrphan" | "CreateJoinToken" | "RotateAuthority" => (None, json!({})),
        "UpdateQuota" => (None, json!({"limits": {"vpcs": "77"}})),
        "DeleteProject" | "RevokeApiKey" | "RemoveOrphan" | "RemoveHost" | "RevokeJoinToken" => (None, Value::Null),
        "CordonHost" | "UncordonHost" | "DrainHost" | "FenceHost" => (None, json!({})),
        "UpdateHost" => (None, json!({"host": {"vcpus_reserved": 1}, "update_mask": "vcpus_reserved"})),
        _ => return None,
    })
}

async fn with_one_of_each() -> Cloud {
    let cloud = Cloud::with_image().await;
    cloud.launch("one").await;
    for (path, body) in [
        ("/volumes", json!({"name": "one", "size_gib": 1})),
        ("/volumes", json!({"name": "placed", "size_gib": 1})),
        ("/images", json!({"name": "one", "url": "https://images.example/x.qcow2"})),
        ("/vpcs", json!({"name": "one"})),
        ("/vpcs/default/subnets", json!({"name": "one", "cidr": "10.0.9.0/24"})),
        ("/projects", json!({"name": "one"})),
        ("/api-keys", json!({"name": "one", "role": "MEMBER"})),
    ] {
        let answer = cloud.post(path, body).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
    }
    let host = cloud.get("/hosts/h1").await.json["id"].as_str().unwrap().parse().unwrap();
    let nobody = ProjectId::from(Uuid::nil());
    cloud.snapshot("placed", "one").await;
    let orphan = Orphan {
        meta: Meta::new(Uuid::new_v4(), nobody, "", ORPHAN, Labels::new()),
        kind: OrphanKind::Volume,
        object: ORPHAN.parse().unwrap(),
        host,
        host_name: "h1".into(),
        detail: String::new(),
        active: false,
        volumes: Vec::new(),
        size_bytes: 1 << 30,
        pool: "default".into(),
        image: None,
        copied: None,
        kept: None,
        generation: 0,
        removing: false,
        by_tombstone: false,
    };
    // One that never said anything, and holds nothing.
    let silent = Host {
        meta: Meta::new(Uuid::new_v4(), nobody, "", "h9", Labels::new()),
        agents: std::collections::BTreeMap::new(),
        capacity: HostCapacity::default(),
        boot_id: String::new(),
        mode: HostMode::Active,
        mode_reason: String::new(),
        mode_since: Timestamp::now(),
        limits: HostLimits::default(),
    };
    let mut tx = cloud.store.begin().await.unwrap();
    tx.insert(&silent).await.unwrap();
    tx.insert(&orphan).await.unwrap();
    let token = JoinToken {
        meta: Meta::new(Uuid::new_v4(), nobody, "", "one", Labels::new()),
        hash: String::new(),
        uses: 1,
        used: 0,
        expires_at: Timestamp::now(),
        revoked_at: None,
        host: None,
        host_name: String::new(),
    };
    tx.insert(&token).await.unwrap();
    tx.commit().await.unwrap();
    cloud
}

/// What was done, refusals left out.
async fn done(cloud: &Cloud) -> Vec<Event> {
    let events = cloud.store.events(None, None, None, None, 500).await.unwrap();
    events.into_iter().filter(|event| event.outcome == "OK").collect()
}

/// Walks the contract: a mutation that is added is called here, or this fails.
#[tokio::test]
async fn every_mutation_is_made_once() {
    let mut walked = 0;
    for (verb, path, rpc) in cloud_contracts::rest::ROUTES.iter().filter(|(verb, ..)| *verb != "GET") {
        let short = rpc.rsplit('/').next().unwrap();
        let (status, body) = call(short).unwrap_or_else(|| panic!("say in `call` how {rpc} is called"));
        let cloud = with_one_of_each().await;
        if let Some(status) = status {
            cloud.is("one", status).await;
        }
        if short == "UncordonHost" {
            assert_eq!(cloud.post("/hosts/h9/cordon", json!({})).await.status, 200);
        }
        if short == "DetachVolume" {
            assert_eq!(cloud.post("/instances/one/volumes", json!({"volume": "one"})).await.status, 200);
        }
        let id = match path {
            _ if path.contains("{orphan}") => "h1",
            _ if path.starts_with("/hosts/") => "h9",
            _ => "one",
        };
        let path = path.replace("{vpc}", "default").replace("{project}", "default");
        let path = path.replace("{id}", id).replace("{volume}", "one").replace("{orphan}", ORPHAN);
        let first = cloud.once(verb, &path, &body, "id 1").await;
        // Nobody stops anything here.
        let waits = short == "StopInstance";
        assert!(first.status.is_success() || (waits && first.status == 504), "{rpc}: {}", first.text);
        assert!(!replayed(&first), "{rpc}");
        // It was written down by the transaction that did it: with its event, and not afterwards.
        let events = done(&cloud).await;
        let caused = |e: &&Event| e.request_id == first.headers["x-request-id"].to_str().unwrap();
        assert_eq!(events.iter().filter(caused).count(), 1, "{rpc} wrote no event");

        let again = cloud.once(verb, &path, &body, "id 1").await;
        let joining = ["CreateJoinToken", "RevokeJoinToken", "RotateAuthority"];
        if ["CreateApiKey", "RotateApiKey", "AdoptOrphan", "RemoveOrphan"].contains(&short) || joining.contains(&short)
        {
            // Nothing reads it again: a secret, or what is gone.
            assert_eq!(again.status, 409, "{rpc}: {}", again.text);
            assert!(again.text.contains("NOT_REPLAYED") && !again.text.contains("tck_"), "{rpc}: {}", again.text);
        } else {
            assert_eq!(again.status, first.status, "{rpc}: {}", again.text);
            assert_eq!(again.json["id"], first.json["id"], "{rpc}");
            assert!(replayed(&again) || waits, "{rpc}: {:?}", again.headers);
        }
        assert_eq!(done(&cloud).await, events, "{rpc} did something again");

        let other = cloud.once("POST", "/volumes", &json!({"name": "another", "size_gib": 1}), "id 1").await;
        assert_eq!(other.status, 409, "{rpc}: {}", other.text);
        assert_eq!(other.json["error"]["status"], "ALREADY_EXISTS");
        assert!(other.text.contains("`id 1`") && other.text.contains("REQUEST_ID_REUSED"), "{}", other.text);
        walked += 1;
    }
    assert!(walked >= 13, "{walked}");
}

#[tokio::test]
async fn a_repetition_is_answered_as_things_are_now() {
    let cloud = Cloud::with_image().await;
    let body = json!({"name": "web-01", "image": "tiny", "instance_type": "tiny"});
    let made = cloud.once("POST", "/instances", &body, "launch").await;
    cloud.is("web-01", InstanceStatus::Running).await;
    let again = cloud.once("POST", "/instances", &body, "launch").await;
    assert_eq!((again.status.as_u16(), &again.json["id"]), (201, &made.json["id"]));
    assert_eq!(again.json["status"], "RUNNING");

    // A start that found nothing to do has nothing to do later.
    let start = cloud.once("POST", "/instances/web-01/start", &json!({}), "start").await;
    assert_eq!((start.status.as_u16(), replayed(&start)), (200, false));
    cloud.is("web-01", InstanceStatus::Stopped).await;
    let start = cloud.once("POST", "/instances/web-01/start", &json!({}), "start").await;
    assert_eq!((&start.json["status"], replayed(&start)), (&json!("STOPPED"), true));

    // A stop that is sent again waits again, until somebody stops it.
    cloud.is("web-01", InstanceStatus::Running).await;
    assert_eq!(cloud.once("POST", "/instances/web-01/stop", &json!({}), "stop").await.status, 504);
    let nothing = json!({});
    let (again, ()) = tokio::join!(cloud.once("POST", "/instances/web-01/stop", &nothing, "stop"), async {
        tokio::task::yield_now().await;
        cloud.is("web-01", InstanceStatus::Stopped).await;
    });
    assert_eq!((again.status.as_u16(), &again.json["status"]), (200, &json!("STOPPED")), "{}", again.text);
    // Started since by another order, it is not stopped again; nor is it said to be STOPPED.
    let start = cloud.once("POST", "/instances/web-01/start", &json!({}), "start again").await;
    assert_eq!(start.json["status"], "STARTING");
    let stop = cloud.once("POST", "/instances/web-01/stop", &json!({}), "stop").await;
    assert_eq!((stop.status.as_u16(), &stop.json["error"]["status"]), (400, &json!("FAILED_PRECONDITION")));
    assert!(stop.text.contains("another order"), "{}", stop.text);

    // Deleted, it is answered as last seen.
    let id = made.json["id"].as_str().unwrap();
    let delete = cloud.once("DELETE", &format!("/instances/{id}"), &Value::Null, "delete").await;
    assert_eq!(delete.json["status"], "DELETING");
    cloud.is("web-01", InstanceStatus::Deleted).await;
    let again = cloud.once("DELETE", &format!("/instances/{id}"), &Value::Null, "delete").await;
    assert_eq!((again.status.as_u16(), &again.json["status"]), (200, &json!("DELETED")));
}

#[tokio::test]
async fn of_calls_at_once_one_is_made_and_all_are_answered_alike() {
    let cloud = Cloud::with_image().await;
    let body = json!({"name": "web-01", "image": "tiny", "instance_type": "tiny"});
    let calls = (0..12).map(|_| cloud.once("POST", "/instances", &body, "launch"));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|a| a.status == 201 && a.json["id"] == answers[0].json["id"]), "{}", answers[0].text);
    assert_eq!(answers.iter().filter(|a| !replayed(a)).count(), 1);
    assert_eq!(cloud.get("/instances").await.json["instances"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn field_and_header_are_one_and_wrong_ones_are_named() {
    let cloud = Cloud::new().await;
    let body = |id: &str| json!({"name": "data", "size_gib": 1, "request_id": id});
    let both = cloud.once("POST", "/volumes", &body("a"), "b").await;
    assert_eq!((both.status.as_u16(), both.text.contains("Idempotency-Key")), (400, true), "{}", both.text);
    for id in ["", &"x".repeat(65)] {
        let answer = cloud.once("POST", "/volumes", &json!({"name": "data", "size_gib": 1}), id).await;
        assert_eq!(answer.status, 400, "{id:?}: {}", answer.text);
    }
    let first = cloud.post("/volumes", body("a")).await;
    let same = cloud.once("POST", "/volumes", &json!({"name": "data", "size_gib": 1}), "a").await;
    assert_eq!((first.status.as_u16(), same.status.as_u16(), replayed(&same)), (201, 201, true), "{}", same.text);
    // Refusals are not remembered.
    let taken = cloud.once("POST", "/volumes", &json!({"name": "data", "size_gib": 2}), "c").await;
    assert_eq!((taken.status.as_u16(), taken.text.contains("REQUEST_ID")), (409, false), "{}", taken.text);
    let other = cloud.once("POST", "/volumes", &json!({"name": "free", "size_gib": 2}), "c").await;
    assert_eq!(other.status, 201, "{}", other.text);
}

#[tokio::test]
async fn uploads_are_made_once() {
    let cloud = Cloud::new().await;
    let upload = async |query: &str, bytes: usize, id: &str| {
        let request = Request::post(format!("/images:upload?{query}")).header("authorization", format!("Bearer {KEY}"));
        let request = request.header("idempotency-key", id).body(vec![0_u8; bytes].into()).unwrap();
        Answer::read(cloud.raw(request).await).await
    };
    let first = upload("name=a", 4096, "up").await;
    let again = upload("name=a", 4096, "up").await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201), "{} {}", first.text, again.text);
    assert_eq!((&again.json["id"], replayed(&again)), (&first.json["id"], true));
    assert_eq!(upload("name=b", 4096, "up").await.status, 409);
    let field = upload("name=a&request_id=up", 4096, "up").await;
    assert_eq!((field.status.as_u16(), replayed(&field)), (201, true), "{}", field.text);
}

#[tokio::test]
async fn grpc_has_the_same_ids() {
    let cloud = Cloud::new().await;
    let served = serve(&cloud).await;
    let mut volumes = VolumeServiceClient::new(served.grpc().service());
    let request = |name: &str, field: &str, metadata: Option<&str>| {
        let message =
            v1::CreateVolumeRequest { name: name.into(), size_gib: 1, request_id: field.into(), ..Default::default() };
        let mut request = tonic::Request::new(message);
        if let Some(id) = metadata {
            request.metadata_mut().insert("idempotency-key", id.parse().unwrap());
        }
        request
    };
    let first = volumes.create_volume(request("data", "g1", None)).await.unwrap().into_inner();
    let again = volumes.create_volume(request("data", "", Some("g1"))).await.unwrap();
    assert_eq!(again.metadata().get("idempotency-replayed").unwrap(), "true");
    assert_eq!(again.into_inner().id, first.id);
    // And REST is the same cloud.
    let rest = cloud.once("POST", "/volumes", &json!({"name": "data", "size_gib": 1}), "g1").await;
    assert_eq!(rest.json["id"], first.id);
    let other = volumes.create_volume(request("other", "g1", None)).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    assert!(other.message().contains("`g1`"), "{other}");
    let both = volumes.create_volume(request("other", "g2", Some("g3"))).await.unwrap_err();
    assert_eq!(both.code(), Code::InvalidArgument);
}
