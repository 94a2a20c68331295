use std::{fs, os::unix::fs::FileTypeExt as _};

use cloud_contracts::agent::{VolumeSpec, volume_spec::Source};
use futures::future::join_all;
use uuid::Uuid;

use crate::{
    agent::{MIB, blank, copy_of, from, image_bytes, patterned, reads, reason, run, writes},
    group::{Pool, lvs, name},
};

#[tokio::test]
async fn a_volume_lives_from_its_image_to_its_end() {
    let pool = Pool::start().await;
    let agent = &pool.agent;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    let spec = from(&image, 16);
    assert_eq!(reason(agent.ensure(&spec, false).await), "DATA_MISSING");
    let volume = agent.ensure(&spec, true).await.unwrap();
    assert_eq!((volume.size_bytes, volume.format.as_str(), volume.pool.as_str()), (16 * MIB, "raw", "default"));
    assert_eq!(volume.path, format!("/dev/{}/vol-{}", name(), spec.id));
    assert!(fs::metadata(&volume.path).unwrap().file_type().is_block_device());
    assert!(reads(&volume, "0xa5", "0 1M") && reads(&volume, "0", "1M 15M"), "the image's bytes, then zeros");
    let tags = pool.tags(&format!("vol-{}", spec.id));
    assert!(tags.contains(&format!("cloud.id={}", agent.gateway.cloud)) && tags.contains(&image.id), "{tags}");
    assert!(!lvs("lv_attr", &pool.full(&format!("img-{}", image.id)))[0].contains('a'), "the image is not active");

    writes(&volume, "0x11", "2M 1M");
    let grown = agent.resize(&spec.id, 32 * MIB).await.unwrap();
    assert_eq!(grown.size_bytes, 32 * MIB);
    assert!(reads(&grown, "0x11", "2M 1M") && reads(&grown, "0", "16M 16M"));
    assert_eq!(agent.ensure(&spec, false).await.unwrap().size_bytes, 32 * MIB, "its row may still say what it was");
    assert_eq!(reason(agent.remove_image(&image.id).await), "IMAGE_IN_USE");
    for _ in 0..2 {
        agent.remove(&spec.id).await.unwrap();
        agent.remove_image(&image.id).await.unwrap();
    }
    assert!(pool.volumes().is_empty(), "{:?}", pool.volumes());
}

#[tokio::test]
async fn nobody_reads_what_another_volume_had() {
    let pool = Pool::start().await;
    let secret = blank(64);
    let volume = pool.agent.ensure(&secret, true).await.unwrap();
    writes(&volume, "0x5a", "0 64M");
    pool.agent.remove(&secret.id).await.unwrap();
    let next = pool.agent.ensure(&blank(64), true).await.unwrap();
    assert!(reads(&next, "0", "0 64M"));
    // A part of a block is written: the rest of it was somebody else's.
    for offset in 0..16 {
        writes(&next, "0x11", &format!("{offset}M 512"));
    }
    for offset in 0..16 {
        assert!(reads(&next, "0", &format!("{} {}", offset * MIB + 512, MIB - 512)), "{offset}");
    }
}

#[tokio::test]
async fn a_snapshot_of_a_volume_in_use_keeps_its_moment_and_copies_live_by_themselves() {
    let pool = Pool::start().await;
    let agent = &pool.agent;
    let spec = blank(32);
    let volume = agent.ensure(&spec, true).await.unwrap();
    writes(&volume, "0x11", "0 4M");
    let open = fs::OpenOptions::new().read(true).write(true).open(&volume.path).unwrap();
    let id = Uuid::new_v4().to_string();
    assert_eq!(reason(agent.snapshot(&id, &spec.id, false).await), "DATA_MISSING");
    let snapshot = agent.snapshot(&id, &spec.id, true).await.unwrap();
    assert_eq!((snapshot.size_bytes, snapshot.volume_id.as_str()), (32 * MIB, spec.id.as_str()));
    let copy = copy_of(Source::VolumeId(spec.id.clone()), 32);
    let copied = agent.ensure(&copy, true).await.unwrap();
    writes(&volume, "0x22", "0 4M");
    assert_eq!(agent.resize(&spec.id, 64 * MIB).await.unwrap().size_bytes, 64 * MIB, "while it is open");
    assert_eq!(reason(agent.remove(&spec.id).await), "VOLUME_IN_USE");
    drop(open);

    let restored = copy_of(Source::SnapshotId(id.clone()), 48);
    let volume = agent.ensure(&restored, true).await.unwrap();
    assert_eq!(volume.size_bytes, 48 * MIB);
    assert!(reads(&volume, "0x11", "0 4M") && reads(&volume, "0", "4M 44M"));
    assert!(reads(&copied, "0x11", "0 4M"));
    let small = copy_of(Source::SnapshotId(id.clone()), 16);
    assert!(agent.ensure(&small, true).await.unwrap_err().message().contains("at least"));
    agent.remove(&spec.id).await.unwrap();
    for _ in 0..2 {
        assert_eq!(agent.snapshot(&id, &spec.id, false).await.unwrap().size_bytes, 32 * MIB, "it outlives its volume");
    }
    assert_eq!(agent.snapshots().await.unwrap().len(), 1);
    agent.remove_snapshot(&id).await.unwrap();
    agent.remove_snapshot(&id).await.unwrap();
    assert!(reads(&volume, "0x11", "0 4M") && reads(&copied, "0x11", "0 4M"));
    for spec in [&restored, &copy] {
        agent.ensure(spec, false).await.unwrap();
        agent.remove(&spec.id).await.unwrap();
    }
    assert!(pool.volumes().is_empty());
}

#[tokio::test]
async fn a_chain_of_snapshots_holds_every_moment() {
    let pool = Pool::start().await;
    let spec = blank(16);
    let volume = pool.agent.ensure(&spec, true).await.unwrap();
    let mut moments = Vec::new();
    for moment in 1..=12_u8 {
        writes(&volume, &moment.to_string(), "0 1M");
        let id = Uuid::new_v4().to_string();
        pool.agent.snapshot(&id, &spec.id, true).await.unwrap();
        moments.push((moment, id));
    }
    // In the middle of it some go.
    for (_, id) in moments.iter().filter(|(moment, _)| moment % 3 == 0) {
        pool.agent.remove_snapshot(id).await.unwrap();
    }
    for (moment, id) in moments.iter().filter(|(moment, _)| moment % 3 != 0) {
        let restored = pool.agent.ensure(&copy_of(Source::SnapshotId(id.clone()), 16), true).await.unwrap();
        assert!(reads(&restored, &moment.to_string(), "0 1M"), "{moment}");
    }
}

#[tokio::test]
async fn many_at_once_the_same_and_different_ones() {
    let pool = Pool::start().await;
    let same = blank(8);
    let volumes = join_all((0..8).map(|_| pool.agent.ensure(&same, true))).await;
    let volumes: Vec<_> = volumes.into_iter().map(Result::unwrap).collect();
    assert!(volumes.iter().all(|volume| (&volume.path, volume.size_bytes) == (&volumes[0].path, 8 * MIB)));
    assert_eq!(pool.volumes(), [format!("vol-{}", same.id)]);
    let specs: Vec<_> = (0..8).map(|_| blank(8)).collect();
    for volume in join_all(specs.iter().map(|spec| pool.agent.ensure(spec, true))).await {
        assert!(reads(&volume.unwrap(), "0", "0 8M"));
    }
    assert_eq!(pool.agent.volumes().await.unwrap().len(), 9);
    let gone = join_all(specs.iter().flat_map(|spec| [pool.agent.remove(&spec.id), pool.agent.remove(&spec.id)])).await;
    assert!(gone.into_iter().all(|removed| removed.is_ok()));
    assert_eq!(pool.volumes(), [format!("vol-{}", same.id)]);
}

#[tokio::test]
async fn what_is_not_ours_is_never_touched() {
    let mut pool = Pool::start().await;
    let (untagged, other_cloud, half) = (blank(8), blank(8), blank(8));
    let make = |id: &str, tags: &[&str]| {
        let mut args = vec!["--yes", "--quiet", "--type", "thin", "--thinpool", &pool.name, "-V", "8m", "-n", id];
        tags.iter().for_each(|tag| args.extend(["--addtag", tag]));
        let group = name();
        args.push(&group);
        run("lvcreate", &args);
    };
    make(&format!("vol-{}", untagged.id), &["backup"]);
    let foreign = [
        format!("cloud.id={}", Uuid::new_v4()),
        "cloud.order=1.1".into(),
        format!("cloud.volume={}", other_cloud.id),
        "cloud.size=8388608".into(),
    ];
    make(&format!("vol-{}", other_cloud.id), &foreign.each_ref().map(String::as_str));
    let damaged = [format!("cloud.id={}", pool.agent.gateway.cloud), format!("cloud.volume={}", half.id)];
    make(&format!("vol-{}", half.id), &damaged.each_ref().map(String::as_str));
    let before = pool.volumes();
    for restart in [false, true] {
        if restart {
            pool.agent.stop().await;
            pool.agent.run().await;
        }
        for (spec, why) in [(&untagged, "FOREIGN_OBJECT"), (&other_cloud, "OTHER_CLOUD"), (&half, "BACKEND_FAILED")] {
            assert_eq!(reason(pool.agent.ensure(spec, true).await), why);
            assert_eq!(reason(pool.agent.remove(&spec.id).await), why);
            assert_eq!(reason(pool.agent.resize(&spec.id, 16 * MIB).await), why);
        }
        assert!(pool.agent.volumes().await.unwrap().is_empty());
        assert_eq!(pool.volumes(), before);
    }
}

#[tokio::test]
async fn images_raw_and_qcow2_are_written_sparsely_and_bad_ones_leave_nothing() {
    let pool = Pool::start().await;
    let agent = &pool.agent;
    let mut raw = vec![0_u8; usize::try_from(8 * MIB).unwrap()];
    raw[..4096].fill(0x77);
    let image = agent.put_whole("raw", &raw).await.unwrap();
    assert_eq!(agent.images().await.unwrap(), std::slice::from_ref(&image));
    assert_eq!(agent.put(agent.header(&image.id, "raw", &raw), &raw).await.unwrap(), image, "it is there already");
    let volume = agent.ensure(&from(&image, 8), true).await.unwrap();
    assert!(reads(&volume, "0x77", "0 4k") && reads(&volume, "0", "4k 8188k"));
    let used = lvs("data_percent", &pool.full(&format!("vol-{}", volume.owner.unwrap().resource_id)));
    assert!(used[0].parse::<f64>().unwrap() < 2.0, "blocks of zeros are not written: {used:?}");

    let before = pool.volumes();
    let mut header = agent.header(&Uuid::new_v4().to_string(), "raw", &raw);
    header.sha256 = "0".repeat(64);
    assert_eq!(reason(agent.put(header, &raw).await), "IMAGE_CORRUPT");
    let header = agent.header(&Uuid::new_v4().to_string(), "qcow2", &raw);
    assert_eq!(reason(agent.put(header, &raw).await), "IMAGE_CORRUPT");
    let vmdk = image_bytes(&["-f", "vmdk"]);
    assert_eq!(reason(agent.put_whole("raw", &vmdk).await), "IMAGE_REFUSED");
    assert_eq!(pool.volumes(), before);
}

#[tokio::test]
async fn discards_give_space_back() {
    let pool = Pool::start().await;
    let volume = pool.agent.ensure(&blank(64), true).await.unwrap();
    writes(&volume, "0x11", "0 64M");
    let used = || lvs("data_percent", &pool.full(&pool.name))[0].parse::<f64>().unwrap();
    let full = used();
    assert!(full > 20.0, "{full}");
    run("blkdiscard", &["--offset", "0", "--length", &(60 * MIB).to_string(), &volume.path]);
    assert!(used() < full - 20.0, "{full} {}", used());
    assert!(reads(&volume, "0", "0 60M") && reads(&volume, "0x11", "60M 4M"));
}

#[tokio::test]
async fn a_volume_that_is_not_active_is_activated_when_it_is_asked_for() {
    let pool = Pool::start().await;
    let spec = blank(8);
    let volume = pool.agent.ensure(&spec, true).await.unwrap();
    run("lvchange", &["--activate", "n", &pool.full(&format!("vol-{}", spec.id))]);
    assert!(!fs::exists(&volume.path).unwrap());
    pool.agent.ensure(&spec, false).await.unwrap();
    assert!(fs::exists(&volume.path).unwrap());
}

#[tokio::test]
async fn several_pools_on_a_host_are_told_apart() {
    let second = Pool::start().await;
    let first = format!("default=lvm:{}/{}", name(), second.name);
    let root = tempfile::TempDir::new().unwrap();
    let directory = format!("files=directory:{}", root.path().join("files").display());
    drop(first);
    let pool = Pool::start_with("64m", &["--pool", &directory]).await;
    let beat = pool.agent.gateway.hears(|beat| beat.backend_healthy).await;
    let pools = beat.capacity.unwrap().storage.unwrap().pools;
    let kinds: Vec<_> = pools.iter().map(|pool| (pool.name.as_str(), pool.backend.as_str())).collect();
    assert_eq!(kinds, [("default", "lvm-thin"), ("files", "directory")]);
    let on_files = VolumeSpec { pool: "files".into(), ..blank(8) };
    let volume = pool.agent.ensure(&on_files, true).await.unwrap();
    assert_eq!((volume.pool.as_str(), volume.format.as_str()), ("files", "qcow2"));
    pool.agent.ensure(&blank(8), true).await.unwrap();
    assert_eq!(pool.agent.volumes().await.unwrap().len(), 2);
    pool.agent.remove(&on_files.id).await.unwrap();
    assert_eq!(pool.agent.volumes().await.unwrap().len(), 1);
}
