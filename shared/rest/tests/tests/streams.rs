//! Server streams as Server-Sent Events.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod fixture;

use std::time::Duration;

use axum::body::Body;
use fixture::Server;
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

#[tokio::test]
async fn messages_are_events_with_ids_and_an_error_is_the_last() {
    let server = Server::new();
    let answer = server.call("GET", "/things:watch").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    insta::assert_snapshot!(answer.text);
}

#[tokio::test]
async fn last_event_id_resumes_and_an_early_error_is_a_status() {
    let server = Server::new();
    let request = |id: &str| Request::builder().uri("/things:watch").header("last-event-id", id).body(Body::empty());
    server.send(request("2").unwrap()).await;
    assert_eq!(server.fake.watched.lock().unwrap()[0].resume_token, "2");
    let answer = server.send(request("foreign").unwrap()).await;
    assert_eq!(answer.error(), "400 \"start again\"");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let server = Server::with(|config| config.keep_alive = Duration::from_secs(15));
    let request = Request::builder().uri("/things:watch?resume_token=silent").body(Body::empty()).unwrap();
    let mut body = server.router.clone().oneshot(request).await.unwrap().into_body();
    let before = tokio::time::Instant::now();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame.as_ref(), b": keep-alive\n\n");
    assert!(before.elapsed() >= Duration::from_secs(15), "not busier than told");
}
