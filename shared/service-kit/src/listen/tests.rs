use std::{
    os::unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    sync::Arc,
};

use tempfile::TempDir;
use tokio::sync::Barrier;

use super::*;

fn socket(directory: &TempDir) -> (PathBuf, Address) {
    let path = directory.path().join("state/a.sock");
    (path.clone(), Address::Unix(path))
}

async fn bind(address: &Address) -> Result<Listener, ListenError> {
    Listener::bind(address, BindPolicy::default()).await
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_goes_with_the_listener() {
    let directory = tempfile::tempdir().unwrap();
    let (path, address) = socket(&directory);
    let listener = bind(&address).await.unwrap();
    assert_eq!(listener.local_addr(), &address);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let parent = path.parent().unwrap();
    assert_eq!(fs::read_dir(parent).unwrap().count(), 1, "a temporary name is left");
    let _client = StdStream::connect(&path).unwrap();
    assert!(matches!(listener.accept().await.unwrap(), Stream::Unix(_)));
    drop(listener);
    assert_eq!(fs::read_dir(parent).unwrap().count(), 0);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (path, address) = socket(&directory);
    fs::create_dir(path.parent().unwrap()).unwrap();
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = bind(&address).await.unwrap();
    let error = bind(&address).await.unwrap_err();
    assert!(error.to_string().starts_with("another process listens on unix:"), "{error}");
    let _client = StdStream::connect(&path).expect("the first still listens");
    drop(first);
    bind(&address).await.unwrap();
}

#[tokio::test]
async fn a_listener_does_not_remove_its_successors_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (path, address) = socket(&directory);
    let first = bind(&address).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _second = bind(&address).await.unwrap();
    drop(first);
    StdStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_file_in_the_way_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, address) = socket(&directory);
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&address).await, Err(ListenError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_start_at_once_one_listens() {
    let directory = tempfile::tempdir().unwrap();
    let (path, address) = socket(&directory);
    fs::create_dir(path.parent().unwrap()).unwrap();
    drop(StdListener::bind(&path).unwrap());
    let barrier = Arc::new(Barrier::new(8));
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let (address, barrier) = (address.clone(), barrier.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                bind(&address).await
            })
        })
        .collect();
    let mut listening = Vec::new();
    for start in starts {
        match start.await.unwrap() {
            Ok(listener) => listening.push(listener),
            Err(error) => assert!(matches!(error, ListenError::InUse { .. }), "{error:?}"),
        }
    }
    assert_eq!(listening.len(), 1);
    StdStream::connect(&path).unwrap();
}

#[tokio::test]
async fn plain_tcp_stays_on_loopback_unless_allowed() {
    let beyond: Address = "0.0.0.0:0".parse().unwrap();
    let error = bind(&beyond).await.unwrap_err();
    assert!(matches!(error, ListenError::PlainBeyondLoopback { .. }), "{error:?}");
    for policy in [
        BindPolicy { tls: true, ..BindPolicy::default() },
        BindPolicy { allow_plain_beyond_loopback: true, ..BindPolicy::default() },
    ] {
        Listener::bind(&beyond, policy).await.unwrap();
    }
}

#[tokio::test]
async fn port_0_becomes_a_port_and_a_taken_one_is_named() {
    let listener = bind(&"localhost:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().clone();
    assert!(matches!(&address, Address::Tcp { port, .. } if *port > 0) && address.is_loopback());
    assert!(matches!(bind(&address).await, Err(ListenError::InUse { .. })));
}
