use std::{fs, path::PathBuf, process::Stdio};

use cloud_contracts::agent::VolumeSpec;
use tempfile::TempDir;
use tonic::Code;

use crate::agent::{Agent, blank, from, patterned, reason};

#[tokio::test]
async fn heartbeats_say_what_the_pool_has_and_whether_it_works() {
    let agent = Agent::start().await;
    let spec = blank(4);
    agent.ensure(&spec, true).await.unwrap();
    let beat = agent.gateway.hears(|beat| beat.backend_healthy).await;
    let pool = beat.capacity.unwrap().storage.unwrap().pools.remove(0);
    assert_eq!((pool.name.as_str(), pool.backend.as_str()), ("default", "directory"));
    assert!(pool.total_bytes >= pool.free_bytes && pool.free_bytes > 0 && pool.pool_id.len() == 36);

    let (marker, away) = (agent.pool().join("pool.json"), agent.pool().join("away"));
    fs::rename(&marker, &away).unwrap();
    let beat = agent.gateway.hears(|beat| !beat.backend_healthy).await;
    assert!(beat.backend_error.contains("no marker"), "{}", beat.backend_error);
    assert_eq!(beat.capacity.unwrap().storage.unwrap().pools[0].pool_id, pool.pool_id);
    for may_create in [false, true] {
        let status = agent.ensure(&blank(4), may_create).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reason::<()>(Err(status)), "POOL_NOT_HEALTHY");
    }
    assert_eq!(reason(agent.remove(&spec.id).await), "POOL_NOT_HEALTHY");
    assert_eq!(reason(agent.volumes().await), "POOL_NOT_HEALTHY");
    fs::rename(&away, &marker).unwrap();
    agent.gateway.hears(|beat| beat.backend_healthy).await;
    agent.ensure(&spec, false).await.unwrap();
}

#[tokio::test]
async fn several_pools_on_a_host_are_told_apart() {
    let root = TempDir::new().unwrap();
    let second = format!("ssd=directory:{}", root.path().join("ssd").display());
    let agent = Agent::start_with(&["--pool", &second]).await;
    let spec = VolumeSpec { pool: "ssd".into(), ..blank(4) };
    let volume = agent.ensure(&spec, true).await.unwrap();
    assert!(volume.pool == "ssd" && volume.path.starts_with(root.path().to_str().unwrap()), "{volume:?}");
    agent.ensure(&blank(4), true).await.unwrap();
    assert_eq!(agent.volumes().await.unwrap().len(), 2);
    let beat = agent.gateway.hears(|beat| beat.backend_healthy).await;
    let pools = beat.capacity.unwrap().storage.unwrap().pools;
    assert_eq!(pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["default", "ssd"]);
    fs::remove_file(root.path().join("ssd/pool.json")).unwrap();
    let beat = agent.gateway.hears(|beat| !beat.backend_healthy).await;
    assert!(beat.backend_error.contains("pool `ssd`"), "{}", beat.backend_error);
    agent.ensure(&blank(4), true).await.unwrap();
    assert_eq!(reason(agent.remove(&spec.id).await), "POOL_NOT_HEALTHY");
}

#[tokio::test]
async fn a_directory_that_is_no_pool_is_refused_with_a_message() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("pool")).unwrap();
    fs::write(root.path().join("pool/photo.jpg"), "mine").unwrap();
    let refused = Agent::command(root.path()).stderr(Stdio::piped()).output().await.unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && message.contains("is not empty and is not a pool"), "{message}");
    assert_eq!(fs::read_dir(root.path().join("pool")).unwrap().count(), 1);
}

#[tokio::test]
async fn foreign_files_stay() {
    let mut agent = Agent::start().await;
    let spec = blank(4);
    let names = [format!("volumes/{}.qcow2", spec.id), "volumes/disk.raw".into(), "images/x.iso".into()];
    let paths: Vec<PathBuf> = names.iter().map(|name| agent.pool().join(name)).collect();
    for path in &paths {
        fs::write(path, "mine").unwrap();
    }
    assert_eq!(reason(agent.ensure(&spec, true).await), "FOREIGN_OBJECT");
    assert_eq!(reason(agent.remove(&spec.id).await), "FOREIGN_OBJECT");
    assert!(agent.volumes().await.unwrap().is_empty());
    agent.stop().await;
    agent.run().await;
    for path in &paths {
        assert_eq!(fs::read(path).unwrap(), b"mine");
    }
}

#[tokio::test]
async fn volumes_survive_a_restart_and_belong_to_their_cloud() {
    let mut agent = Agent::start().await;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    let spec = from(&image, 8);
    let volume = agent.ensure(&spec, true).await.unwrap();
    agent.stop().await;
    agent.run().await;
    assert_eq!(agent.ensure(&spec, false).await.unwrap(), volume);
    assert_eq!(agent.images().await.unwrap(), [image]);

    // The same disk in the hands of another cloud.
    let record = agent.pool().join(format!("volumes/{}.json", spec.id));
    let text = fs::read_to_string(&record).unwrap();
    let cloud = agent.gateway.cloud.to_string();
    fs::write(&record, text.replace(&cloud, "00000000-0000-4000-8000-000000000000")).unwrap();
    assert_eq!(reason(agent.ensure(&spec, true).await), "OTHER_CLOUD");
    assert_eq!(reason(agent.remove(&spec.id).await), "OTHER_CLOUD");
    assert!(agent.volumes().await.unwrap().is_empty(), "not this cloud's");
    assert!(fs::exists(&volume.path).unwrap());
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_nothing_is_left() {
    let agent = Agent::start_small().await;
    let big = vec![7; 32 << 20];
    assert_eq!(reason(agent.put_whole("raw", &big).await), "POOL_FULL", "by its announced size");
    fs::write(agent.pool().join("volumes/ballast"), &big[..22 << 20]).unwrap();
    let status = agent.put_whole("raw", &big[..(1 << 20) + 512]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    fs::write(agent.pool().join("volumes/more"), &big[..(3 << 20) / 2]).unwrap();
    let status = agent.ensure(&blank(4), true).await.unwrap_err();
    assert!(status.code() == Code::ResourceExhausted && status.message().contains("reserve"), "{status:?}");
    assert!(agent.files("images").is_empty());
    assert_eq!(agent.files("volumes"), ["ballast", "more"]);
}

#[tokio::test]
async fn an_unmounted_pool_states_no_facts_and_is_not_made_anew() {
    let mut agent = Agent::start_small().await;
    let spec = blank(4);
    agent.ensure(&spec, true).await.unwrap();
    drop(agent.mount.take());
    agent.gateway.hears(|beat| !beat.backend_healthy).await;
    assert_eq!(reason(agent.ensure(&spec, true).await), "POOL_NOT_HEALTHY");
    assert_eq!(reason(agent.volumes().await), "POOL_NOT_HEALTHY");
    agent.stop().await;
    let root = agent.pool().parent().unwrap().to_owned();
    let refused = Agent::command(&root).stderr(Stdio::piped()).output().await.unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && message.contains("is its file system mounted?"), "{message}");
    assert_eq!(fs::read_dir(agent.pool()).unwrap().count(), 0);
}

#[tokio::test]
async fn idle_it_takes_less_than_30_mib() {
    let agent = Agent::start().await;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    agent.ensure(&from(&image, 8), true).await.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("resident: {kib} KiB");
    assert!(kib < 30 << 10, "{kib} KiB");
}
