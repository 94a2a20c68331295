//! The public port's TLS, and what `cloud login` makes of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context as _;
use cloud_testkit::{DaemonProcess, RestClient, free_port, process::binary, until, wait::PATIENCE};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::support::Ended;

/// A gateway whose public port does not speak plain HTTP.
struct Public {
    dir: PathBuf,
    port: u16,
    process: DaemonProcess,
}

impl Public {
    fn start(dir: &Path, port: u16, args: &[String]) -> anyhow::Result<Self> {
        Self::on("127.0.0.1", dir, port, args)
    }

    fn on(address: &str, dir: &Path, port: u16, args: &[String]) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut flags = vec![
            format!("--listen={address}:{port}"),
            format!("--state-dir={}", dir.display()),
            format!("--database=sqlite:{}", dir.join("cloud.db").display()),
            format!("--host-listen=unix:{}", dir.join("host.sock").display()),
            format!("--api-key-file={}", dir.join("admin.key").display()),
        ];
        flags.extend_from_slice(args);
        let process = DaemonProcess::spawn(&binary("cloud-api-gateway")?, &flags, &[], &dir.join("gateway.log"))?;
        Ok(Self { dir: dir.to_owned(), port, process })
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn key(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.dir.join("admin.key"))?)
    }

    /// The fingerprint in its log.
    async fn fingerprint(&self) -> anyhow::Result<String> {
        let found = until("the fingerprint in the log", PATIENCE, || async {
            let log = fs::read_to_string(self.dir.join("gateway.log"))?;
            let line = log.lines().find(|line| line.contains("cloud login URL"));
            let mut words = line.unwrap_or_default().split(|c: char| !c.is_ascii_hexdigit());
            Ok(words.find(|word| word.len() == 64).map(str::to_owned).ok_or(self.process.log_tail()))
        });
        found.await
    }
}

/// A user's machine.
struct User(TempDir);

impl User {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn remembered(&self, name: &str) -> PathBuf {
        self.0.path().join(".config/thecloud").join(name)
    }

    async fn cloud(&self, args: &[&str], stdin: &str) -> anyhow::Result<Ended> {
        let mut command = Command::new(binary("cloud")?);
        command.args(args).env_clear().env("HOME", self.0.path()).current_dir(self.0.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("stdin")?;
        // Whoever does not read its input has gone already.
        let _unread = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let output = child.wait_with_output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// Waits until the gateway answers a command.
    async fn answered(&self, args: &[&str]) -> anyhow::Result<()> {
        let what = format!("`cloud {}` to be answered", args.join(" "));
        let asked = until(&what, PATIENCE, || async {
            let ended = self.cloud(args, "").await?;
            Ok(if ended.ok { Ok(()) } else { Err(ended.err) })
        });
        asked.await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn login_trusts_the_authority_with_that_fingerprint_and_no_other() -> anyhow::Result<()> {
    let (dir, user) = (tempfile::tempdir()?, User::new()?);
    let built_in = ["--tls=built-in".to_owned()];
    let gateway = Public::start(&dir.path().join("first"), free_port()?, &built_in)?;
    let fingerprint = gateway.fingerprint().await?;
    let (url, key) = (gateway.url(), gateway.key()?);
    let plain = RestClient::new(url.replace("https", "http"));
    // The port is open once `cloud` has seen the certificate there; without the fingerprint it trusts nobody.
    until("the certificate to be shown", PATIENCE, || async {
        let ended = user.cloud(&["login", &url], &key).await?;
        assert!(!ended.ok, "{ended:?}");
        Ok(if ended.err.contains(&fingerprint) { Ok(()) } else { Err(ended.err) })
    })
    .await?;
    assert!(plain.get("/health/live").await.is_err(), "plain HTTP is answered");
    let wrong = "ab".repeat(32);
    let ended = user.cloud(&["login", &url, "--fingerprint", &wrong], &key).await?;
    assert!(!ended.ok && ended.err.contains("nothing was sent to it"), "{ended:?}");
    assert!(!user.remembered("api.key").exists() && !user.remembered("ca.pem").exists());

    let ended = user.cloud(&["login", &url, "--fingerprint", &fingerprint], &key).await?;
    assert!(ended.ok, "{ended:?}");
    assert_eq!(fs::metadata(user.remembered("api.key"))?.permissions().mode() & 0o777, 0o600);
    user.answered(&["project", "ls"]).await?;

    // Somebody else at the same address, whose certificate is as good.
    let port = gateway.port;
    drop(gateway);
    let other = Public::start(&dir.path().join("second"), port, &built_in)?;
    let others = other.fingerprint().await?;
    assert_ne!(others, fingerprint);
    until("the other certificate to be refused", PATIENCE, || async {
        let ended = user.cloud(&["project", "ls"], "").await?;
        assert!(!ended.ok, "{ended:?}");
        Ok(if ended.err.contains("certificate") { Ok(()) } else { Err(ended.err) })
    })
    .await?;
    let ended = user.cloud(&["login", &url, "--fingerprint", &others], &other.key()?).await?;
    assert!(ended.ok, "{ended:?}");
    user.answered(&["project", "ls"]).await
}

/// A certificate for 127.0.0.1 that only its own key vouches for, in these files.
fn certificate(cert: &Path, key: &Path) -> anyhow::Result<String> {
    let pair = KeyPair::generate()?;
    let made = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&pair)?;
    fs::write(key, pair.serialize_pem())?;
    fs::write(cert, made.pem())?;
    Ok(made.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_in_files_are_read_again_when_they_change() -> anyhow::Result<()> {
    let (dir, user) = (tempfile::tempdir()?, User::new()?);
    let (cert, key) = (dir.path().join("public.pem"), dir.path().join("public.key"));
    let trusted = |name: &str| user.0.path().join(name);
    fs::write(trusted("first.pem"), certificate(&cert, &key)?)?;
    let files = [format!("--tls-cert={}", cert.display()), format!("--tls-key={}", key.display())];
    let gateway = Public::start(&dir.path().join("state"), free_port()?, &files)?;
    let (url, admin) = (gateway.url(), dir.path().join("state/admin.key").display().to_string());
    let list = |ca: &'static str| ["project", "ls", "--endpoint", &url, "--api-key-file", &admin, "--ca-file", ca];
    user.answered(&list("first.pem")).await?;
    fs::write(trusted("second.pem"), certificate(&cert, &key)?)?;
    user.answered(&list("second.pem")).await?;
    let ended = user.cloud(&list("first.pem"), "").await?;
    assert!(!ended.ok && ended.err.contains("certificate"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_beyond_loopback_has_to_be_allowed() -> anyhow::Result<()> {
    let (dir, user) = (tempfile::tempdir()?, User::new()?);
    let mut gateway = Public::on("0.0.0.0", dir.path(), free_port()?, &[])?;
    let ended = until("the gateway to refuse", PATIENCE, || {
        let ended = gateway.process.ended();
        async { Ok(ended?.ok_or("it runs")) }
    });
    assert!(!ended.await?.success());
    assert!(gateway.process.log_tail().contains("TLS is not configured"), "{}", gateway.process.log_tail());
    let ended = user.cloud(&["login", "http://cloud.example:8080"], "key").await?;
    assert!(!ended.ok && ended.err.contains("--allow-plain"), "{ended:?}");
    Ok(())
}
