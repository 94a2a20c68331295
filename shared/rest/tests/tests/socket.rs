//! What only shows on a real connection.
#![allow(clippy::unwrap_used, clippy::expect_used)]
mod fixture;

use std::time::Duration;

use fixture::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Sends bytes to a server of its own and reads until the connection ends or `enough` is there.
async fn exchange(bytes: &[u8], enough: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, Server::new().router).into_future());
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.expect("the server reads all of it");
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains(enough) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the connection ended after {text}");
            text += &String::from_utf8_lossy(&buffer[..count]);
        }
        text
    };
    let text = tokio::time::timeout(Duration::from_secs(20), talk).await.expect("an answer in time");
    server.abort();
    text
}

#[tokio::test]
async fn a_client_that_sends_ten_megabytes_without_asking_sees_the_refusal() {
    let size = 10 << 20;
    let head = format!(
        "POST /things/x/poke HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + size, b' ');
    let text = exchange(&bytes, "larger than the limit").await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let text = exchange(b"GET /v1/things:watch HTTP/1.1\r\nhost: x\r\n\r\n", "too slow").await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(text.contains("content-type: text/event-stream\r\n"), "{text}");
    assert!(text.find("id: 1").unwrap() < text.find("event: error").unwrap());
}
