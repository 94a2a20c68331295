//! Finding the gateway and the key.

use std::{fs, process::Stdio};

use cloud_contracts::v1::instance::Status as State;
use tokio::io::AsyncReadExt;

use crate::support::{Fake, Run, instance};

#[tokio::test]
async fn without_a_key_it_says_where_one_could_be() {
    let ended = Run::bare("instance ls --endpoint https://cloud.example").end().await.with(5);
    assert!(ended.stderr.starts_with("error: no API key found\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("CLOUD_API_KEY_FILE"), "{}", ended.stderr);
    assert!(ended.stderr.contains(".config/thecloud/api.key"), "{}", ended.stderr);
}

#[tokio::test]
async fn without_a_gateway_it_says_how_to_start_one() {
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let ended = Run::bare("host ls").env("CLOUD_ENDPOINT", &endpoint).env("CLOUD_API_KEY", "k").end().await.with(6);
    assert!(ended.stderr.starts_with(&format!("error: cannot reach the gateway at {endpoint}: ")), "{}", ended.stderr);
    assert!(ended.stderr.contains("Connection refused") && ended.stderr.contains("`make up`"), "{}", ended.stderr);
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_a_mistake() {
    for endpoint in ["cloud.example", "ftp://cloud.example", "http://127.0.0.1:1/v1", "http://"] {
        let ended = Run::bare("host ls").env("CLOUD_ENDPOINT", endpoint).env("CLOUD_API_KEY", "k").end().await.with(2);
        assert!(ended.stderr.contains(endpoint), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn https_trusts_the_certificates_of_the_ca_file() {
    let (gateway, certificate) = Fake::start_with_tls().await;
    let run = Run::on(&gateway, "instance ls --ca-file ca.pem");
    fs::write(run.home.path().join("ca.pem"), certificate).unwrap();
    run.end().await.with(0);

    let (other, _) = Fake::start_with_tls().await;
    let run = Run::on(&other, "instance ls --ca-file ca.pem");
    fs::write(run.home.path().join("ca.pem"), Fake::start_with_tls().await.1).unwrap();
    let ended = run.end().await.with(6);
    assert!(ended.stderr.contains("certificate"), "{}", ended.stderr);
    assert!(other.state().calls.is_empty());

    let run = Run::on(&other, "instance ls --ca-file ca.pem");
    fs::write(run.home.path().join("ca.pem"), "nothing").unwrap();
    run.end().await.with(2);
}

#[tokio::test]
async fn a_key_file_that_is_missing_or_empty_is_told() {
    let missing = Run::bare("host ls --api-key-file /nowhere/key").end().await.with(5);
    assert!(missing.stderr.contains("cannot read the API key from /nowhere/key"), "{}", missing.stderr);
    let run = Run::bare("host ls --api-key-file key");
    fs::write(run.home.path().join("key"), "\n").unwrap();
    let empty = run.end().await.with(5);
    assert!(empty.stderr.contains("is empty"), "{}", empty.stderr);
}

#[tokio::test]
async fn a_checkout_is_enough() {
    let gateway = Fake::start().await;
    let mut run = Run::bare("instance ls");
    let checkout = run.home.path().join("checkout");
    fs::create_dir_all(checkout.join(".run")).unwrap();
    fs::create_dir_all(checkout.join("docs")).unwrap();
    fs::write(checkout.join(".run/admin.key"), "from-the-run\n").unwrap();
    let env = format!("export CLOUD_ENDPOINT={}\nexport CLOUD_API_KEY_FILE=.run/admin.key\n", gateway.endpoint);
    fs::write(checkout.join(".run/env"), env).unwrap();
    run.command.current_dir(checkout.join("docs"));
    run.end().await.with(0);
    assert_eq!(gateway.calls("list")[0].authorization, "Bearer from-the-run");
}

#[tokio::test]
async fn the_users_configuration_is_read() {
    let gateway = Fake::start().await;
    let run = Run::bare("instance ls");
    let config = run.home.path().join("xdg/thecloud");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), format!("endpoint = \"{}\"\nproject = \"blue\"\n", gateway.endpoint))
        .unwrap();
    fs::write(config.join("api.key"), "of-the-user").unwrap();
    let xdg = run.home.path().join("xdg");
    run.env("XDG_CONFIG_HOME", xdg).end().await.with(0);
    let call = &gateway.calls("list")[0];
    assert_eq!((&*call.authorization, &*call.project), ("Bearer of-the-user", "blue"));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let gateway = Fake::start().await;
    // More than a pipe holds.
    gateway.state().listed = (0..2_000).map(|n| instance(&format!("i-{n}"), State::Running)).collect();
    let mut run = Run::on(&gateway, "instance ls -o json");
    let mut child = run.command.stdin(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).await.unwrap();
    drop(stdout);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[tokio::test]
async fn completion_and_version_need_no_gateway() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = Run::bare(&format!("completion {shell}")).end().await.with(0);
        assert!(ended.stdout.contains("instance") && ended.stdout.contains("launch"), "{}", ended.stdout);
    }
    let ended = Run::bare("version -o json").end().await.with(0);
    assert_eq!(ended.json()["version"], env!("CARGO_PKG_VERSION"));
}
