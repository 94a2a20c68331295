use std::fs;

use cloud_contracts::agent::{GetImageRequest, ImageHeader, PutImageRequest, put_image_request::Message};
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use uuid::Uuid;

use crate::{
    agent::{Agent, image_bytes, messages, patterned, reason},
    gateway::PATIENCE,
};

#[tokio::test]
async fn an_image_is_cached_as_announced() {
    let agent = Agent::start().await;
    let id = Uuid::new_v4().to_string();
    let get = GetImageRequest { id: id.clone(), pool: String::new() };
    assert_eq!(agent.client.clone().get_image(get.clone()).await.unwrap_err().code(), Code::NotFound);
    let bytes = patterned();
    let header = agent.header(&id, "qcow2", &bytes);
    let image = agent.put(header.clone(), &bytes).await.unwrap();
    assert_eq!((image.size_bytes, &image.sha256), (bytes.len() as u64, &header.sha256));
    assert_eq!(agent.client.clone().get_image(get).await.unwrap().into_inner().image.as_ref(), Some(&image));
    assert_eq!(agent.images().await.unwrap(), [image]);
    assert_eq!(fs::read(agent.pool().join(format!("images/{id}.qcow2"))).unwrap(), bytes);
}

#[tokio::test]
async fn two_that_bring_the_same_image_both_succeed() {
    let agent = Agent::start().await;
    let (id, bytes) = (Uuid::new_v4().to_string(), patterned());
    let header = agent.header(&id, "qcow2", &bytes);
    let (one, two) = tokio::join!(agent.put(header.clone(), &bytes), agent.put(header.clone(), &bytes));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(agent.files("images"), [format!("{id}.json"), format!("{id}.qcow2")]);
    // One that is there is not waited for: this stream never ends.
    let first = PutImageRequest { message: Some(Message::Header(header)) };
    let endless = stream::iter([first]).chain(stream::pending());
    tokio::time::timeout(PATIENCE, agent.client.clone().put_image(endless)).await.expect("at once").unwrap();
    let other = agent.header(&id, "qcow2", &image_bytes(&["-f", "qcow2"]));
    assert_eq!(reason(agent.put(other, &image_bytes(&["-f", "qcow2"])).await), "SPEC_DIFFERS");
}

#[tokio::test]
async fn what_is_not_as_announced_leaves_nothing() {
    let agent = Agent::start().await;
    let bytes = patterned();
    let good = || agent.header(&Uuid::new_v4().to_string(), "qcow2", &bytes);
    let sha256 = "0".repeat(64);
    for (name, header) in [
        ("another digest", ImageHeader { sha256, ..good() }),
        ("fewer bytes", ImageHeader { size_bytes: bytes.len() as u64 + 1, ..good() }),
        ("more bytes", ImageHeader { size_bytes: bytes.len() as u64 - 1, ..good() }),
        ("another format", ImageHeader { format: "raw".into(), ..good() }),
    ] {
        assert_eq!(reason(agent.put(header, &bytes).await), "IMAGE_CORRUPT", "{name}");
    }
    for (field, header) in [
        ("header.format", ImageHeader { format: "vmdk".into(), ..good() }),
        ("header.id", ImageHeader { id: "../x".into(), ..good() }),
        ("header.sha256", ImageHeader { sha256: "x".into(), ..good() }),
        ("header.size_bytes", ImageHeader { size_bytes: 0, ..good() }),
        ("header.context", ImageHeader { context: None, ..good() }),
    ] {
        let status = agent.put(header, &bytes).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(field), "{status:?}");
    }
    let headless = messages(good(), &bytes).split_off(1);
    let status = agent.client.clone().put_image(tokio_stream::iter(headless)).await.unwrap_err();
    assert!(status.message().contains("header"), "{status:?}");
    assert!(agent.files("images").is_empty());
}

#[tokio::test]
async fn images_that_reach_out_are_refused_and_leave_nothing() {
    let agent = Agent::start().await;
    let data = tempfile::TempDir::new().unwrap();
    let data_file = format!("data_file={}", data.path().join("data").display());
    let mut huge = image_bytes(&["-f", "qcow2"]);
    huge[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    let backed = |base: &str| image_bytes(&["-f", "qcow2", "-u", "-b", base, "-F", "raw"]);
    for (bytes, text) in [
        (backed("/etc/passwd"), "backing file"),
        (backed("nbd://127.0.0.1:1/x"), "backing file"),
        (image_bytes(&["-f", "qcow2", "-o", &data_file]), "another file"),
        (huge, "L1 table size"),
        (image_bytes(&["-f", "vmdk"]), "VMDK"),
    ] {
        for format in ["qcow2", "raw"] {
            let status = agent.put_whole(format, &bytes).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(status.message().contains(text), "{text}: {status:?}");
        }
    }
    assert!(agent.files("images").is_empty());
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_nothing() {
    let agent = Agent::start().await;
    let bytes = patterned();
    let (send, receive) = mpsc::channel(1);
    let mut client = agent.client.clone();
    let call = tokio::spawn(async move { client.put_image(ReceiverStream::new(receive)).await });
    let header = agent.header(&Uuid::new_v4().to_string(), "qcow2", &bytes);
    for message in messages(header, &bytes).into_iter().take(2) {
        send.send(message).await.unwrap();
    }
    until(|| !agent.files("images").is_empty()).await;
    call.abort();
    until(|| agent.files("images").is_empty()).await;
}

pub async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time");
}
