//! A private S3 server (moto, in a virtual environment that `deploy/install-deps.sh --tests` makes) on 127.0.0.1: made and killed by a test.
//!
//! It keeps objects in memory, so a killed one has lost them; keys and the bucket are the same after each start. It checks signatures.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use http::{HeaderName, Method};
use object_store::{
    ObjectStore, ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Key,
};
use sha2::{Digest as _, Sha256};

use super::DaemonProcess;
use crate::{RestClient, free_port, rest::Answer, wait::until};

/// How long it may take to answer: Python reads much at its start.
const READY: Duration = Duration::from_secs(60);
/// The bucket that it has.
const BUCKET: &str = "images";
/// How often it is tried to make the same key as before, where others call meanwhile.
const KEYS: u32 = 50;

/// An S3 server with a bucket. Dropping it ends it.
#[derive(Debug)]
pub struct S3Server {
    dir: tempfile::TempDir,
    program: PathBuf,
    port: u16,
    process: Option<DaemonProcess>,
    /// The id of the access key, and its secret.
    key: (String, String),
}

/// A client whose calls are for this service; its signature is none.
fn as_user(rest: &RestClient, service: &str) -> anyhow::Result<RestClient> {
    let scope = format!("x/20260101/us-east-1/{service}/aws4_request");
    let header = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
    rest.clone().with_header(HeaderName::from_static("authorization"), &header)
}

fn fine(answer: &Answer) -> anyhow::Result<()> {
    anyhow::ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
    Ok(())
}

/// Where `moto_server` is.
fn program() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let requirements = fs::read(root.join("tests/s3/requirements.txt"))?;
    let version = &hex::encode(Sha256::digest(requirements))[..12];
    let cache = env::var_os("CLOUD_CACHE_DIR").map_or_else(|| root.join(".cache"), PathBuf::from);
    let made = cache.join(format!("moto-{version}"));
    anyhow::ensure!(made.join("complete").is_file(), "moto is not installed: run `deploy/install-deps.sh --tests`");
    Ok(made.join("bin/moto_server"))
}

impl S3Server {
    /// Starts one, with a key and a bucket, and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("cloud-s3-").tempdir()?;
        let key = (String::new(), String::new());
        let mut server = Self { dir, program: program()?, port: free_port()?, process: None, key };
        server.restart().await?;
        Ok(server)
    }

    /// Starts it again, with the same key and an empty bucket. Kills it first if it runs.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = None;
        let args = ["-H", "127.0.0.1", "-p", &self.port.to_string()].map(str::to_owned);
        let log = self.dir.path().join("log");
        self.process = Some(DaemonProcess::spawn(&self.program, &args, &[], &log)?);
        self.set_up().await.with_context(|| {
            format!(
                "the server's log ends:\n{}",
                self.process.as_ref().map(DaemonProcess::log_tail).unwrap_or_default()
            )
        })
    }

    async fn set_up(&mut self) -> anyhow::Result<()> {
        let rest = RestClient::new(self.endpoint());
        let control = async |path: &str, body: &'static str| {
            fine(&rest.send(Method::POST, &format!("/moto-api/{path}"), None, body).await?)
        };
        until("the S3 server to answer", READY, || async {
            Ok(control("reset", "").await.map_err(|error| format!("{error:#}")))
        })
        .await?;
        for _ in 0..KEYS {
            // What is drawn at random is the same each time, the key too, unless somebody's call comes between.
            control("seed?a=42", "").await?;
            let key = self.make_key(&rest).await?;
            if self.key.0.is_empty() || self.key == key {
                self.key = key;
                let answer = as_user(&rest, "s3")?.send(Method::PUT, &format!("/{BUCKET}"), None, "").await?;
                fine(&answer).context("the bucket")?;
                // From here on signatures count.
                return control("reset-auth", "0").await;
            }
            control("reset", "").await?;
        }
        anyhow::bail!("the key is another one after a restart, {KEYS} times")
    }

    /// A user who may do everything: the id of its access key, and its secret.
    async fn make_key(&self, rest: &RestClient) -> anyhow::Result<(String, String)> {
        let iam = as_user(rest, "iam")?;
        let all = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        let policy = format!("PutUserPolicy&PolicyName=all&PolicyDocument={all}");
        let mut made = String::new();
        for action in ["CreateUser", "CreateAccessKey", &policy] {
            let body = format!("Version=2010-05-08&UserName=cloud&Action={action}");
            let answer = iam.send(Method::POST, "/", Some("application/x-www-form-urlencoded"), body).await?;
            fine(&answer).context("the user")?;
            made.push_str(&answer.text());
        }
        let of = |tag: &str| {
            let rest = made.split_once(&format!("<{tag}>")).map(|(_, rest)| rest);
            let text = rest.and_then(|r| r.split_once('<')).map(|(text, _)| text.to_owned());
            text.with_context(|| format!("no {tag}: {made}"))
        };
        Ok((of("AccessKeyId")?, of("SecretAccessKey")?))
    }

    /// SIGKILL: its objects are lost.
    pub fn kill(&mut self) {
        // Dropping kills.
        self.process = None;
    }

    /// What it was asked, a line each, by all its runs.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> std::io::Result<String> {
        fs::read_to_string(self.dir.path().join("log"))
    }

    /// Such as `http://127.0.0.1:20123`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The id of the access key, and its secret.
    #[must_use]
    pub fn key(&self) -> (&str, &str) {
        (&self.key.0, &self.key.1)
    }

    /// What a gateway is given, its secret in a file in `dir`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flags(&self, dir: &Path) -> anyhow::Result<Vec<String>> {
        use std::os::unix::fs::PermissionsExt as _;
        let secret = dir.join("s3-secret");
        fs::write(&secret, format!("{}\n", self.key.1))?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        Ok(vec![
            format!("--image-bucket={BUCKET}"),
            format!("--image-bucket-endpoint={}", self.endpoint()),
            format!("--image-bucket-access-key={}", self.key.0),
            format!("--image-bucket-secret-file={}", secret.display()),
        ])
    }

    /// Its bucket, for a test to look into and to break.
    ///
    /// # Errors
    /// Never in practice.
    pub fn objects(&self) -> anyhow::Result<Objects> {
        let store = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id(&self.key.0)
            .with_secret_access_key(&self.key.1)
            .build()?;
        Ok(Objects(Arc::new(store)))
    }
}

/// The objects of a bucket.
#[derive(Debug, Clone)]
pub struct Objects(Arc<AmazonS3>);

impl Objects {
    /// The keys of all, in order.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub async fn keys(&self) -> anyhow::Result<Vec<String>> {
        let mut keys: Vec<_> = self.0.list(None).map_ok(|object| object.location.to_string()).try_collect().await?;
        keys.sort();
        Ok(keys)
    }

    /// What an object holds.
    ///
    /// # Errors
    /// There is none.
    pub async fn get(&self, key: &str) -> anyhow::Result<Vec<u8>> {
        Ok(self.0.get(&Key::parse(key)?).await?.bytes().await?.to_vec())
    }

    /// Puts an object in the place of what is there.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.0.put(&Key::parse(key)?, bytes.into()).await?;
        Ok(())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub async fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.0.delete(&Key::parse(key)?).await?;
        Ok(())
    }
}
