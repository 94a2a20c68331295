//! The console page and its token.

use axum::{body::Body, http::Request};

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{
    fixture::{Answer, Cloud},
    grpc::serve,
};

async fn open(cloud: &Cloud, path: &str) -> Answer {
    Answer::read(cloud.raw(Request::get(path).body(Body::empty()).unwrap()).await).await
}

#[tokio::test]
async fn a_token_opens_one_instances_page_without_a_key() {
    let cloud = Cloud::with_image().await;
    let made = cloud.launch("web-01").await;
    assert_eq!(cloud.get("/instances/web-01/console").await.status, 400, "it does not run yet");
    cloud.runs(&made).await;
    let answer = cloud.get("/instances/web-01/console").await.json;
    let path = answer["url"].as_str().unwrap().strip_prefix("http://cloud.test").unwrap().to_owned();
    assert!(path.starts_with("/console/") && answer["expires_at"].is_string(), "{answer}");
    let page = open(&cloud, &path).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("<b id=\"name\">web-01</b>"));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.headers["referrer-policy"], "no-referrer");
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "it loads nothing");
}

#[tokio::test]
async fn a_token_that_is_not_ours_opens_nothing() {
    let cloud = Cloud::with_image().await;
    let made = cloud.launch("web-01").await;
    cloud.runs(&made).await;
    let url = cloud.get("/instances/web-01/console").await.json["url"].as_str().unwrap().to_owned();
    let token = url.rsplit('/').next().unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let later = i64::from_str_radix(parts[1], 16).unwrap() + 60_000_000;
    let past = format!("{}.1.{}", parts[0], parts[2]);
    for bad in ["x", &token[..token.len() - 1], &format!("{}.{later:x}.{}", parts[0], parts[2]), &past] {
        for path in [format!("/console/{bad}"), format!("/console/{bad}/ws")] {
            let request = Request::get(&path).header("connection", "upgrade").header("upgrade", "websocket");
            let request =
                request.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
            let status = cloud.raw(request.body(Body::empty()).unwrap()).await.status();
            assert!(status.is_client_error(), "{path}: {status}");
        }
        let page = open(&cloud, &format!("/console/{bad}")).await;
        assert_eq!(page.status, 401, "{}", page.text);
        assert!(page.text.contains("ask for a new one"), "{}", page.text);
    }
}

#[tokio::test]
async fn a_browser_types_and_sees_until_the_guest_ends() {
    let cloud = Cloud::with_image().await;
    let made = cloud.launch("web-01").await;
    cloud.runs(&made).await;
    let url = cloud.get("/instances/web-01/console").await.json["url"].as_str().unwrap().to_owned();
    let served = serve(&cloud).await;
    let cloud_service_kit::Address::Tcp { host, port } = &served.address else { panic!("{}", served.address) };
    let url = url.replace("http://cloud.test", &format!("ws://{host}:{port}")) + "/ws";
    let (mut socket, _) = connect_async(&url).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary("login: "));
    socket.send(Message::binary("root")).await.unwrap();
    let heard = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Ping(_) => {}
            other => break other,
        }
    };
    assert_eq!(heard, Message::binary("root"));
    socket.send(Message::text("bye")).await.unwrap();
    let close = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Ping(_) => {}
            Message::Close(Some(close)) => break close,
            other => panic!("not closed: {other:?}"),
        }
    };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4000, "the guest has ended"));
}
