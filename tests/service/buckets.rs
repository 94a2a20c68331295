//! Images in a bucket: gateways that share nothing but the database and the bucket. They need PostgreSQL's programs and moto, too.

use std::{fs, path::Path};

use cloud_testkit::{
    GatewayConfig, GatewayProcess, PostgresServer, RestClient, S3Server, SimHost, SimHostConfig, until, wait::PATIENCE,
};
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::text;

/// 1 MiB of a raw disk.
fn disk(seed: u8) -> Vec<u8> {
    vec![seed; 1 << 20]
}

struct Cloud {
    gateways: Vec<GatewayProcess>,
    hosts: Vec<SimHost>,
    s3: S3Server,
    // Ends after those that use it.
    postgres: PostgresServer,
    dir: TempDir,
}

impl Cloud {
    async fn new() -> anyhow::Result<Self> {
        let postgres = tokio::task::spawn_blocking(PostgresServer::start).await??;
        let (s3, dir) = (S3Server::start().await?, tempfile::tempdir()?);
        Ok(Self { gateways: Vec::new(), hosts: Vec::new(), s3, postgres, dir })
    }

    /// Adds a gateway, with a host that registers there alone.
    async fn add(&mut self, more: &[String]) -> anyhow::Result<RestClient> {
        let number = self.gateways.len();
        let dir = self.dir.path().join(format!("g{number}"));
        fs::create_dir(&dir)?;
        if let Some(first) = self.gateways.first() {
            fs::copy(first.key_file(), dir.join("admin.key"))?;
        }
        let import = format!("--import-dir={}", self.import()?.display());
        let mut args = self.s3.flags(&dir)?;
        args.extend(["--work-lease=3".to_owned(), import]);
        args.extend(more.iter().cloned());
        let config = GatewayConfig { database: Some(self.postgres.url()), args, ..GatewayConfig::default() };
        let gateway = GatewayProcess::start(&dir, config).await?;
        let rest = gateway.rest()?;
        let host = SimHostConfig::new(format!("h{number}"), self.dir.path(), Some(gateway.host_endpoint()));
        self.hosts.push(SimHost::start(host)?);
        self.gateways.push(gateway);
        field(&rest, &format!("/hosts/h{number}"), "state", "UP").await?;
        Ok(rest)
    }

    fn import(&self) -> anyhow::Result<std::path::PathBuf> {
        let dir = self.dir.path().join("import");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn files(&self, gateway: usize) -> usize {
        let cache: &Path = &self.gateways[gateway].dir().join("images/cache");
        fs::read_dir(cache).map_or(0, Iterator::count)
    }
}

async fn field(rest: &RestClient, path: &str, field: &str, wanted: &str) -> anyhow::Result<Value> {
    until(&format!("{path} {field}={wanted}"), PATIENCE, || async {
        let answer = rest.get(path).await?;
        Ok(if answer.at(&format!("/{field}")) == wanted { Ok(answer.json()) } else { Err(answer.text()) })
    })
    .await
}

async fn upload(rest: &RestClient, name: &str, bytes: Vec<u8>) -> anyhow::Result<cloud_testkit::rest::Answer> {
    let path = format!("/images:upload?name={name}&format=RAW");
    rest.send(Method::POST, &path, Some("application/octet-stream"), bytes).await
}

/// Launches from an image on the host of a gateway.
async fn launch(rest: &RestClient, name: &str, image: &str, host: &str) -> anyhow::Result<()> {
    let body = json!({"name": name, "image": image, "instance_type": "tiny", "placement": {"host": host}});
    rest.post("/instances", &body).await?.expect(201)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_one_gateway_took_is_launched_through_another() -> anyhow::Result<()> {
    let mut cloud = Cloud::new().await?;
    let (first, second) = (cloud.add(&[]).await?, cloud.add(&[]).await?);
    let objects = cloud.s3.objects()?;
    objects.put("somebody/else", vec![1]).await?;
    fs::write(cloud.import()?.join("disk.raw"), disk(2))?;
    upload(&first, "uploaded", disk(1)).await?.expect(201)?;
    let imported = first.post("/images", &json!({"name": "imported", "file": "disk.raw"})).await?.expect(201)?;
    field(&first, &format!("/images/{}", text(&imported, "id")), "status", "READY").await?;
    let kept = objects.keys().await?;
    assert_eq!(kept.len(), 3, "{kept:?}");
    let identity = fs::read_to_string(cloud.gateways[0].dir().join("cloud-id"))?;
    let ours = format!("thecloud/{}/", identity.trim());
    assert_eq!(kept.iter().filter(|key| key.starts_with(&ours)).count(), 2, "{kept:?}");
    // The one that took them is gone for good, with its disk.
    cloud.gateways[0].kill();
    fs::remove_dir_all(cloud.gateways[0].dir().join("images"))?;
    for (name, image) in [("web-01", "uploaded"), ("web-02", "imported")] {
        launch(&second, name, image, "h1").await?;
        field(&second, &format!("/instances/{name}"), "status", "RUNNING").await?;
    }
    let sent: Vec<_> = cloud.hosts[1].snapshot().images.into_values().map(|image| image.sha256).collect();
    for bytes in [disk(1), disk(2)] {
        assert!(sent.contains(&hex::encode(Sha256::digest(bytes))), "{sent:?}");
    }
    for image in ["uploaded", "imported"] {
        let deleted = second.delete(&format!("/images/{image}")).await?.expect(200)?;
        field(&second, &format!("/images/{}", text(&deleted, "id")), "status", "DELETED").await?;
    }
    assert_eq!(objects.keys().await?, ["somebody/else"]);
    assert_eq!(cloud.files(1), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_bucket_the_rest_goes_on_and_images_wait() -> anyhow::Result<()> {
    let mut cloud = Cloud::new().await?;
    let rest = cloud.add(&[]).await?;
    upload(&rest, "here", disk(1)).await?.expect(201)?;
    fs::write(cloud.import()?.join("disk.raw"), disk(2))?;
    cloud.s3.kill();
    let imported = rest.post("/images", &json!({"name": "waits", "file": "disk.raw"})).await?.expect(201)?;
    let refused = upload(&rest, "refused", disk(3)).await?;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("Connection refused"), "{}", refused.text());
    until("the gateway to say what is wrong", PATIENCE, || async {
        let ready = rest.get("/health/ready").await?;
        let told = ready.status == 200 && ready.at("/components/images").contains("Connection refused");
        Ok(if told { Ok(()) } else { Err(ready.text()) })
    })
    .await?;
    // What is here is launched.
    launch(&rest, "web-01", "here", "h0").await?;
    field(&rest, "/instances/web-01", "status", "RUNNING").await?;
    // A gateway starts all the same.
    cloud.gateways[0].kill();
    cloud.gateways[0].spawn()?;
    until("the gateway to answer", PATIENCE, || async {
        Ok(match rest.get("/instances/web-01").await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(format!("{error:#}")),
        })
    })
    .await?;
    let id = text(&imported, "id");
    let waiting = rest.get(&format!("/images/{id}")).await?.expect(200)?;
    assert_eq!(waiting["status"], "IMPORTING", "{waiting}");
    cloud.s3.restart().await?;
    field(&rest, &format!("/images/{id}"), "status", "READY").await?;
    cloud.gateways[0].ready().await?;
    launch(&rest, "web-02", "waits", "h0").await?;
    field(&rest, "/instances/web-02", "status", "RUNNING").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_the_bucket_does_not_take_in_time_is_told_why_and_leaves_nothing() -> anyhow::Result<()> {
    let mut cloud = Cloud::new().await?;
    let rest = cloud.add(&["--import-timeout=1".to_owned()]).await?;
    fs::write(cloud.import()?.join("disk.raw"), disk(2))?;
    cloud.s3.kill();
    let imported = rest.post("/images", &json!({"name": "late", "file": "disk.raw"})).await?.expect(201)?;
    let ended = field(&rest, &format!("/images/{}", text(&imported, "id")), "status", "ERROR").await?;
    let reason = text(&ended, "status_reason");
    assert!(reason.contains("not imported in time") && reason.contains("Connection refused"), "{reason}");
    cloud.s3.restart().await?;
    let deleted = rest.delete("/images/late").await?.expect(200)?;
    field(&rest, &format!("/images/{}", text(&deleted, "id")), "status", "DELETED").await?;
    assert_eq!(cloud.s3.objects()?.keys().await?, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_never_sent_and_the_launch_says_so() -> anyhow::Result<()> {
    let mut cloud = Cloud::new().await?;
    let (first, second) = (cloud.add(&[]).await?, cloud.add(&[]).await?);
    upload(&first, "disk", disk(1)).await?.expect(201)?;
    let objects = cloud.s3.objects()?;
    let key = objects.keys().await?.remove(0);
    objects.put(&key, disk(9)).await?;
    // The first one has a file of it, and must not be asked.
    cloud.gateways[0].kill();
    launch(&second, "web-01", "disk", "h1").await?;
    let failed = field(&second, "/instances/web-01", "status", "ERROR").await?;
    assert!(text(&failed, "status_reason").contains("is damaged"), "{failed}");
    assert!(cloud.hosts[1].snapshot().images.is_empty());
    Ok(())
}
