//! Images: upload and import, and what is refused.

use std::net::SocketAddr;

use axum::{Router, response::Redirect, routing::get};
use cloud_testkit::{rest::Answer, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud};
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{names, refused, text};

const MIB: usize = 1 << 20;

/// An empty qcow2 disk (docs/interop/qcow2.txt of QEMU): header, refcount table, refcount block, L1 table.
fn qcow2(virtual_size: u64, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let cluster_at = |number: usize| ((number * CLUSTER) as u64).to_be_bytes();
    let mut file = vec![0; 4 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &virtual_size.to_be_bytes());
    // One L1 entry covers the 2^13 entries of an L2 table, each a cluster of 2^16 bytes.
    put(36, &u32::try_from(virtual_size.div_ceil(1 << 29)).unwrap().to_be_bytes());
    put(40, &cluster_at(3));
    put(48, &cluster_at(1));
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(CLUSTER, &cluster_at(2));
    for cluster in 0..4 {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    change(&mut file);
    file
}

async fn upload(cloud: &TestCloud, query: &str, bytes: Vec<u8>) -> anyhow::Result<Answer> {
    let path = format!("/images:upload?{query}");
    // On a connection of its own: one on which a body was refused unread is closed, and must not be taken for the next upload.
    let rest = cloud.gateway.rest()?;
    rest.send(Method::POST, &path, Some("application/octet-stream"), bytes).await
}

async fn import(cloud: &TestCloud, body: &Value) -> anyhow::Result<Value> {
    let image = cloud.rest.post("/images", body).await?.expect(201)?;
    ended(cloud, &text(&image, "id")).await
}

/// Waits until an import has ended, one way or the other.
async fn ended(cloud: &TestCloud, id: &str) -> anyhow::Result<Value> {
    until("the import to end", PATIENCE, || async {
        let image = cloud.rest.get(&format!("/images/{id}")).await?.expect(200)?;
        Ok(if image["status"] == "IMPORTING" { Err(image.to_string()) } else { Ok(image) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_probed_and_ready_to_launch() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let bytes = qcow2(2 << 30, |_| ());
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let size = bytes.len();
    let image = upload(&cloud, &format!("name=disk&sha256={sha256}"), bytes).await?.expect(201)?;
    assert_eq!((text(&image, "status"), text(&image, "format")), ("READY".into(), "QCOW2".into()));
    assert_eq!(text(&image, "virtual_size_bytes"), (2_u64 << 30).to_string());
    assert_eq!((text(&image, "size_bytes"), text(&image, "sha256")), (size.to_string(), sha256.clone()));
    assert_eq!(text(&image, "source"), "upload");

    cloud.launch_as(&json!({"name": "web-01", "image": "disk"})).await?;
    cloud.becomes("web-01", "RUNNING").await?;
    let cached = cloud.host().snapshot().images.into_values().find(|i| i.sha256 == sha256).unwrap();
    assert_eq!(cached.format, "qcow2");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_use_can_be_deleted_and_its_guest_stays() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.running("web-01").await?;
    cloud.rest.delete("/images/tiny").await?.expect(200)?;
    refused(&cloud.rest.post("/instances", &json!({"name": "web-02", "image": "tiny"})).await?, 404, "NOT_FOUND");
    cloud.rest.post("/instances/web-01/stop", &json!({})).await?.expect(200)?;
    cloud.rest.post("/instances/web-01/start", &json!({})).await?.expect(200)?;
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.settles(1, 1, 1).await?;
    cloud.delete("web-01").await?;
    until("the image to leave the host's cache", PATIENCE, || async {
        let left = cloud.host().snapshot().images.len();
        Ok(if left == 0 { Ok(()) } else { Err(left) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn dangerous_and_broken_files_are_refused() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let backing = qcow2(1 << 30, |file| {
        file[8..16].copy_from_slice(&200_u64.to_be_bytes());
        file[16..20].copy_from_slice(&11_u32.to_be_bytes());
        file[200..211].copy_from_slice(b"/etc/passwd");
    });
    let data_file = qcow2(1 << 30, |file| file[79] = 4);
    let huge = qcow2(1 << 60, |_| ());
    let short = qcow2(1 << 30, |file| file.truncate(60));
    let good = || qcow2(1 << 30, |_| ());
    let wrong = "0".repeat(64);
    for (query, bytes, word) in [
        ("name=bad".to_owned(), backing, "backing"),
        ("name=bad".to_owned(), data_file, "another file"),
        ("name=bad".to_owned(), huge, ""),
        ("name=bad".to_owned(), short, ""),
        ("name=bad".to_owned(), Vec::new(), ""),
        (format!("name=bad&sha256={wrong}"), good(), "SHA-256"),
        ("name=bad&format=RAW".to_owned(), good(), ""),
        ("name=bad&format=QCOW2".to_owned(), vec![7; MIB], ""),
        ("name=bad".to_owned(), b"KDMV\x01\0\0\0 a VMDK by its magic".repeat(100), ""),
        ("name=Bad_Name".to_owned(), good(), "name"),
        ("name=bad&nonsense=1".to_owned(), good(), "nonsense"),
        ("".to_owned(), good(), "name"),
    ] {
        let answer = upload(&cloud, &query, bytes).await?;
        assert_eq!(answer.status, 400, "{query} {word}: {}", answer.text());
        assert!(answer.text().contains(word), "{query}: `{word}` is not in {}", answer.text());
    }
    refused(&upload(&cloud, "name=tiny", good()).await?, 409, "ALREADY_EXISTS");
    let list = cloud.rest.get("/images?show_deleted=true").await?.expect(200)?;
    assert_eq!(names(&list, "images"), ["tiny"], "nothing was made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_imports_from_the_import_directory_alone() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let bytes = qcow2(1 << 30, |_| ());
    std::fs::write(dir.path().join("disk.qcow2"), &bytes)?;
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link"))?;
    std::os::unix::fs::symlink("/etc", dir.path().join("directory"))?;
    let args = vec![format!("--import-dir={}", dir.path().display())];
    let cloud = TestCloud::with(Setup { hosts: 0, args, ..Setup::default() }).await?;
    let image = import(&cloud, &json!({"name": "disk", "file": "disk.qcow2"})).await?;
    assert_eq!(image["status"], "READY", "{image}");
    for (number, file) in
        ["../../etc/passwd", "/etc/passwd", "link", "directory/passwd", "nonesuch", "", ".", "disk.qcow2/"]
            .iter()
            .enumerate()
    {
        let body = json!({"name": format!("bad-{number}"), "file": file});
        let answer = cloud.rest.post("/images", &body).await?;
        if answer.status == 201 {
            let image = ended(&cloud, &answer.at("/id")).await?;
            assert_eq!(image["status"], "ERROR", "{file}: {image}");
            assert!(!text(&image, "status_reason").contains("root:"), "{image}");
        } else {
            assert_eq!(answer.status, 400, "{file}: {}", answer.text());
        }
    }
    Ok(())
}

/// A server with an image, and redirects to it and elsewhere.
async fn web(bytes: Vec<u8>) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/disk", get(move || async move { bytes }))
        .route("/moved", get(|| async { Redirect::temporary("/disk") }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/file", get(|| async { Redirect::temporary("file:///etc/passwd") }));
    // Ends with the test's runtime.
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread")]
async fn local_addresses_are_not_fetched_unless_allowed() -> anyhow::Result<()> {
    let bytes = qcow2(1 << 30, |_| ());
    let address = web(bytes.clone()).await?;
    let port = address.port();
    let cloud = TestCloud::with(Setup { hosts: 0, ..Setup::default() }).await?;
    for (number, url) in [
        format!("http://127.0.0.1:{port}/disk"),
        format!("http://localhost:{port}/disk"),
        format!("http://[::1]:{port}/disk"),
        format!("http://[::ffff:127.0.0.1]:{port}/disk"),
        format!("http://0.0.0.0:{port}/disk"),
        format!("http://2130706433:{port}/disk"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1/disk".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        "not a url".to_owned(),
        format!("http://user:secret@127.0.0.1:{port}/disk"),
    ]
    .iter()
    .enumerate()
    {
        let answer = cloud.rest.post("/images", &json!({"name": format!("bad-{number}"), "url": url})).await?;
        if answer.status == 201 {
            let image = ended(&cloud, &answer.at("/id")).await?;
            assert_eq!(image["status"], "ERROR", "{url}: {image}");
            assert!(!text(&image, "status_reason").is_empty(), "{url}: {image}");
        } else {
            assert_eq!(answer.status, 400, "{url}: {}", answer.text());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_url_is_fetched_through_redirects() -> anyhow::Result<()> {
    let bytes = qcow2(1 << 30, |_| ());
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let base = format!("http://{}", web(bytes).await?);
    let args = vec!["--import-allow-private".to_owned()];
    let cloud = TestCloud::with(Setup { args, ..Setup::default() }).await?;
    let image = import(&cloud, &json!({"name": "disk", "url": format!("{base}/moved"), "sha256": sha256})).await?;
    assert_eq!(image["status"], "READY", "{image}");
    for (name, path) in [("loop", "/loop"), ("file", "/file"), ("none", "/nonesuch")] {
        let image = import(&cloud, &json!({"name": name, "url": format!("{base}{path}")})).await?;
        assert_eq!(image["status"], "ERROR", "{path}: {image}");
        assert!(!text(&image, "status_reason").is_empty(), "{path}: {image}");
    }
    let wrong = json!({"name": "wrong", "url": format!("{base}/disk"), "sha256": "0".repeat(64)});
    assert_eq!(import(&cloud, &wrong).await?["status"], "ERROR");
    cloud.launch_as(&json!({"name": "web-01", "image": "disk"})).await?;
    cloud.becomes("web-01", "RUNNING").await?;
    Ok(())
}
