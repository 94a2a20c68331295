//! Watching over the wire: Server-Sent Events, gRPC and gRPC-Web.

use std::time::{Duration, Instant};

use axum::{body::Body, http::Request};
use cloud_contracts::v1::{
    self, WatchInstancesRequest, host_service_client::HostServiceClient,
    instance_service_client::InstanceServiceClient, watch_instances_response::Change,
};
use cloud_core::{
    model::{ApiKey, Timestamp},
    ports::{Query, Store, Tx},
};
use cloud_testkit::{
    rest::RestClient,
    sse::{SseEvent, SseStream},
};
use http_body_util::BodyExt;
use prost::Message as _;
use serde_json::Value;
use tonic::Code;

use super::{
    fixture::{Cloud, KEY},
    grpc::{Served, serve},
};

fn rest(served: &Served) -> RestClient {
    let address = served.address.to_string();
    let address = address.trim_start_matches("tcp:");
    RestClient::new(format!("http://{address}")).with_key(KEY).unwrap()
}

async fn open(rest: &RestClient, path: &str, last: &str) -> SseStream {
    rest.events(path, last).await.unwrap().unwrap_or_else(|answer| panic!("{}", answer.text()))
}

async fn next(stream: &mut SseStream) -> SseEvent {
    stream.next().await.unwrap().expect("it goes on")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_watches_and_resumes() {
    let cloud = Cloud::with_image().await;
    let served = serve(&cloud).await;
    let rest = rest(&served);
    cloud.launch("web-01").await;
    let mut stream = open(&rest, "/instances:watch", "").await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    let current = next(&mut stream).await;
    assert_eq!((current.kind.as_str(), current.id.as_str()), ("CURRENT", ""));
    assert_eq!(current.data["instance"]["name"], "web-01");
    let synced = next(&mut stream).await;
    assert_eq!((synced.kind.as_str(), &synced.data["instance"]), ("SYNCED", &Value::Null));
    assert_eq!(synced.data["resume_token"], synced.id.as_str());
    cloud.launch("web-02").await;
    let created = next(&mut stream).await;
    assert_eq!((created.kind.as_str(), &created.data["change"]), ("CREATED", &"CREATED".into()));
    assert_eq!(created.data["instance"]["name"], "web-02");
    drop(stream);

    cloud.send("DELETE", "/instances/web-01", Body::empty()).await;
    let mut stream = open(&rest, "/v1/instances:watch", &created.id).await;
    let updated = next(&mut stream).await;
    assert_eq!((updated.kind.as_str(), &updated.data["instance"]["status"]), ("UPDATED", &"DELETING".into()));
    let mut one = open(&rest, &format!("/instances:watch?id=web-02&resume_token={}", synced.id), "").await;
    assert_eq!(next(&mut one).await.data["instance"]["name"], "web-02");
    let mut subnets = open(&rest, "/vpcs/default/subnets:watch", "").await;
    assert_eq!(next(&mut subnets).await.data["subnet"]["name"], "default");
    let mut events = open(&rest, "/events:watch?kind=volume", "").await;
    assert_eq!(next(&mut events).await.kind, "SYNCED");
    cloud.post("/volumes", serde_json::json!({"name": "data", "size_gib": 1})).await;
    assert_eq!(next(&mut events).await.data["event"]["action"], "volume.create");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_a_refusal_and_no_stream() {
    let cloud = Cloud::new().await;
    let (_, epoch) = cloud.store.identity();
    for (path, code, status, part) in [
        ("/instances:watch?resume_token=rubbish", 400, "INVALID_ARGUMENT", "resume_token"),
        (&*format!("/instances:watch?resume_token={}.1", epoch + 1), 400, "OUT_OF_RANGE", "without one"),
        (&*format!("/instances:watch?resume_token={epoch}.99999999"), 400, "OUT_OF_RANGE", "without one"),
        ("/instances:watch?filter=status%3DRUNNING", 400, "INVALID_ARGUMENT", "filter"),
        ("/instances:watch?id=nobody", 404, "NOT_FOUND", "nobody"),
        ("/vpcs/nowhere/subnets:watch", 404, "NOT_FOUND", "nowhere"),
    ] {
        let answer = cloud.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json["error"]["status"]), (code, &status.into()), "{path}");
        assert!(answer.text.contains(part), "{path}: {}", answer.text);
    }
    let request = Request::get("/instances:watch").header("last-event-id", "rubbish");
    let request = request.header("authorization", format!("Bearer {KEY}")).body(Body::empty()).unwrap();
    assert_eq!(cloud.raw(request).await.status(), 400);
    let nobody = cloud.raw(Request::get("/instances:watch").body(Body::empty()).unwrap()).await;
    assert_eq!(nobody.status(), 401);
    let document = cloud.get("/openapi.json").await.json;
    let get = &document["paths"]["/instances:watch"]["get"];
    assert!(get["responses"]["200"]["content"]["text/event-stream"].is_object(), "{get}");
    let parameters = get["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "Last-Event-ID" && p["in"] == "header"), "{get}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_watches_until_the_server_goes_away() {
    let cloud = Cloud::with_image().await;
    let served = serve(&cloud).await;
    let mut instances = InstanceServiceClient::new(served.grpc().service());
    let mut watch = instances.watch_instances(WatchInstancesRequest::default()).await.unwrap().into_inner();
    let synced = watch.message().await.unwrap().unwrap();
    assert_eq!((synced.change(), synced.instance), (Change::Synced, None));
    let begun = Instant::now();
    cloud.launch("web-01").await;
    let created = watch.message().await.unwrap().unwrap();
    assert_eq!((created.change(), created.instance.unwrap().name.as_str()), (Change::Created, "web-01"));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let mut hosts = HostServiceClient::new(served.grpc().service());
    let mut hosts = hosts.watch_hosts(v1::WatchHostsRequest::default()).await.unwrap().into_inner();
    assert_eq!(hosts.message().await.unwrap().unwrap().host.unwrap().state(), v1::host::State::Up);
    let mut events = open(&rest(&served), "/instances:watch", &created.resume_token).await;
    let begun = Instant::now();
    served.stop();
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
    let error = next(&mut events).await;
    assert_eq!((error.kind.as_str(), &error.data["error"]["status"]), ("error", &"UNAVAILABLE".into()));
    assert_eq!(events.next().await.unwrap(), None, "an error is the end");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_watch_by_grpc_web() {
    let cloud = Cloud::with_image().await;
    cloud.launch("web-01").await;
    let message = WatchInstancesRequest::default().encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let request = Request::post("/cloud.v1.InstanceService/WatchInstances")
        .header("content-type", "application/grpc-web+proto")
        .header("authorization", format!("Bearer {KEY}"));
    let answer = cloud.raw(request.body(Body::from(frame)).unwrap()).await;
    assert_eq!(answer.headers()["content-type"], "application/grpc-web+proto");
    let (mut body, mut bytes, mut told) = (answer.into_body(), Vec::new(), Vec::new());
    while told.len() < 2 {
        let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.unwrap().unwrap().unwrap();
        bytes.extend_from_slice(&frame.into_data().unwrap());
        while bytes.len() >= 5 {
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            if bytes.len() < 5 + length {
                break;
            }
            let message: Vec<u8> = bytes.drain(..5 + length).skip(5).collect();
            told.push(v1::WatchInstancesResponse::decode(message.as_slice()).unwrap().change());
        }
    }
    assert_eq!(told, [Change::Current, Change::Synced]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_so_many_watches_and_takes_them_with_it() {
    let cloud = Cloud::new().await;
    let served = serve(&cloud).await;
    let rest = rest(&served);
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = open(&rest, "/volumes:watch", "").await;
        assert_eq!(next(&mut stream).await.kind, "SYNCED");
        streams.push(stream);
    }
    let refused = rest.events("/instances:watch", "").await.unwrap().expect_err("one too many");
    assert_eq!((refused.status.as_u16(), refused.at("/error/status").as_str()), (429, "RESOURCE_EXHAUSTED"));
    let metrics = cloud.get("/metrics").await.text;
    assert!(metrics.lines().any(|l| l == r#"watches{kind="volumes",service="api-gateway"} 100"#), "{metrics}");
    streams.truncate(50);
    // Its connection has to be seen closed first.
    let begun = Instant::now();
    while rest.events("/instances:watch", "").await.unwrap().is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "places are not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut tx = cloud.store.begin().await.unwrap();
    let mut key: ApiKey = tx.list(&Query::default()).await.unwrap().remove(0);
    key.revoked_at = Some(Timestamp::now());
    tx.update(&mut key).await.unwrap();
    tx.commit().await.unwrap();
    let begun = Instant::now();
    for stream in &mut streams {
        let error = next(stream).await;
        assert_eq!((error.kind.as_str(), &error.data["error"]["status"]), ("error", &"UNAUTHENTICATED".into()));
        assert_eq!(stream.next().await.unwrap(), None);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
