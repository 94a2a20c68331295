//! What a generated route costs beside a hand-written axum handler with serde's derive, in one process and without
//! sockets:
//! `cargo run --release -p cloud-rest-tests --example cost`.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, Router, body::Body, extract::Path, routing::get};
use cloud_rest_tests::{
    checked::Checked,
    rest,
    v1::{self, thing_service_server::ThingService},
};
use http_body_util::BodyExt;
use serde::Serialize;
use tonic::{Request, Response, Status};
use tower::ServiceExt;

/// What the hand-written handler answers with: the fields that the generated one writes.
#[derive(Serialize)]
struct Bare {
    id: String,
    name: String,
    color: &'static str,
    small: i32,
    large: String,
    unsigned: String,
    ratio: f64,
    flag: bool,
    colors: Vec<String>,
    data: String,
    parts: Vec<String>,
    labels: BTreeMap<String, String>,
    named: BTreeMap<String, String>,
    counts: BTreeMap<String, String>,
    later: String,
    r#type: String,
    tags: Vec<String>,
}

struct Service;

#[tonic::async_trait]
impl ThingService for Service {
    async fn get_thing(&self, request: Request<v1::GetThingRequest>) -> Result<Response<v1::Thing>, Status> {
        Ok(Response::new(v1::Thing { id: request.into_inner().id, name: "thing".into(), ..Default::default() }))
    }
    async fn list_things(&self, _: Request<v1::ListThingsRequest>) -> Result<Response<v1::ListThingsResponse>, Status> {
        let things = (0..100).map(|i| v1::Thing { id: i.to_string(), name: "thing".into(), ..Default::default() });
        Ok(Response::new(v1::ListThingsResponse { things: things.collect(), next_page_token: String::new() }))
    }
}

fn bare(id: String) -> Bare {
    Bare {
        id,
        name: "thing".into(),
        color: "COLOR_UNSPECIFIED",
        small: 0,
        large: "0".into(),
        unsigned: "0".into(),
        ratio: 0.0,
        flag: false,
        colors: Vec::new(),
        data: String::new(),
        parts: Vec::new(),
        labels: BTreeMap::new(),
        named: BTreeMap::new(),
        counts: BTreeMap::new(),
        later: String::new(),
        r#type: String::new(),
        tags: Vec::new(),
    }
}

async fn measure(router: &Router, path: &str, rounds: u32) -> Result<Duration, Box<dyn std::error::Error>> {
    let start = Instant::now();
    for _ in 0..rounds {
        let response = router.clone().oneshot(http::Request::get(path).body(Body::empty())?).await?;
        let bytes = response.into_body().collect().await?.to_bytes();
        std::hint::black_box(bytes);
    }
    Ok(start.elapsed() / rounds)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config =
        Arc::new(cloud_rest::Config::new(|_| (http::StatusCode::INTERNAL_SERVER_ERROR, serde_json::json!({}))));
    let generated = rest::thing_service(Arc::new(Checked::new(Service)), &config);
    let by_hand = Router::new()
        .route("/things/{id}", get(|Path(id): Path<String>| async move { Json(bare(id)) }))
        .route("/things", get(|| async { Json((0..100).map(|i| bare(i.to_string())).collect::<Vec<_>>()) }));
    for (path, rounds) in [("/things/abc", 200_000), ("/things", 5_000)] {
        for (name, router) in [("by hand", &by_hand), ("generated", &generated)] {
            measure(router, path, rounds / 10).await?;
            println!("{path:12} {name:10} {:?}", measure(router, path, rounds).await?);
        }
    }
    Ok(())
}
