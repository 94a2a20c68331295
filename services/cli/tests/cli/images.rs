//! Importing images.

use tonic::Code;

use crate::support::{Fake, Run, status};

#[tokio::test]
async fn an_upload_arrives_whole() {
    let gateway = Fake::start().await;
    // Not a multiple of what goes into a message.
    let bytes: Vec<u8> = (0..2_500_000u32).map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)]).collect();
    let run = Run::on(&gateway, "image import tiny --file disk.img --public --wait -o json");
    std::fs::write(run.home.path().join("disk.img"), &bytes).unwrap();
    let ended = run.end().await.with(0);
    let image = ended.json();
    assert_eq!(
        (&image["name"], &image["status"], &image["visibility"]),
        (&"tiny".into(), &"READY".into(), &"PUBLIC".into())
    );
    assert!(gateway.state().uploaded == bytes, "other bytes came out");
    assert!(ended.stderr.contains("image tiny: sent 2.3 MiB of 2.3 MiB"), "{}", ended.stderr);
}

#[tokio::test]
async fn damage_on_the_way_is_found() {
    let gateway = Fake::start().await;
    gateway.state().sha256 = Some("00".repeat(32));
    let run = Run::on(&gateway, "image import tiny --file disk.img");
    std::fs::write(run.home.path().join("disk.img"), "bytes").unwrap();
    let ended = run.end().await.with(1);
    assert!(ended.stderr.contains("arrived damaged"), "{}", ended.stderr);
}

#[tokio::test]
async fn an_upload_that_is_refused_ends_at_once() {
    let gateway = Fake::start().await;
    gateway.fail("upload", status(Code::AlreadyExists, "image `tiny` exists"));
    let run = Run::on(&gateway, "image import tiny --file disk.img");
    let file = std::fs::File::create(run.home.path().join("disk.img")).unwrap();
    file.set_len(50 << 20).unwrap();
    let ended = run.end().await.with(4);
    assert!(ended.stderr.contains("image `tiny` exists"), "{}", ended.stderr);
}

#[tokio::test]
async fn what_is_no_file_is_not_sent() {
    let gateway = Fake::start().await;
    Run::on(&gateway, "image import tiny --file nowhere.img").end().await.with(2);
    let ended = Run::on(&gateway, "image import tiny --file /dev/zero").end().await.with(2);
    assert!(ended.stderr.contains("is not a regular file"), "{}", ended.stderr);
    assert!(gateway.state().calls.is_empty());
}

#[tokio::test]
async fn an_import_is_waited_for() {
    let gateway = Fake::start().await;
    let line = "image import tiny --url https://images.example/tiny.qcow2 --format qcow2 --wait";
    let ended = Run::on(&gateway, line).end().await.with(0);
    assert_eq!(ended.stderr, "image tiny: IMPORTING\nimage tiny: READY\n");
    let message = &gateway.calls("import")[0].message;
    assert!(message.contains("Url(\"https://images.example/tiny.qcow2\")") && message.contains("Qcow2"), "{message}");
    Run::on(&gateway, "image import tiny --import-file a/b.raw").end().await.with(0);
    assert!(gateway.calls("import")[1].message.contains("File(\"a/b.raw\")"));
}
