use std::time::Duration;

use cloud_contracts::agent::{VolumeSpec, volume_spec::Source};
use futures::future::join_all;
use uuid::Uuid;

use crate::{
    agent::{MIB, blank, copy_of, patterned, reads, run, writes},
    group::{Pool, lvs, name},
};

#[tokio::test]
async fn whatever_a_crash_left_the_next_call_and_the_next_start_complete() {
    let mut pool = Pool::start().await;
    let source = blank(8);
    let volume = pool.agent.ensure(&source, true).await.unwrap();
    writes(&volume, "0x33", "0 1M");
    for restart in [false, true] {
        // Between the two commands of a copy that is larger than what it is of.
        let half = copy_of(Source::VolumeId(source.id.clone()), 16);
        let cloud = pool.agent.gateway.cloud;
        let tags = [
            format!("cloud.id={cloud}"),
            "cloud.order=1.1".into(),
            format!("cloud.volume={}", half.id),
            format!("cloud.size={}", 16 * MIB),
            format!("cloud.source=volume:{}", source.id),
        ];
        let lv = format!("vol-{}", half.id);
        let of = pool.full(&format!("vol-{}", source.id));
        let mut args = vec!["--yes", "--quiet", "--snapshot", "--setactivationskip", "n", "--name", &lv];
        tags.iter().for_each(|tag| args.extend(["--addtag", tag.as_str()]));
        args.push(&of);
        run("lvcreate", &args);
        assert!(
            !pool.agent.volumes().await.unwrap().iter().any(|v| v.path.ends_with(&half.id)),
            "nobody was told of it"
        );
        // An image whose bytes never came.
        let image = Uuid::new_v4().to_string();
        let bytes = patterned();
        let header = pool.agent.header(&image, "qcow2", &bytes);
        let name_of_image = format!("img-{image}");
        let file = format!("cloud.file=qcow2:{}:{}", header.size_bytes, header.sha256);
        let tags = [
            format!("cloud.id={cloud}"),
            "cloud.order=1.1".into(),
            format!("cloud.image={image}"),
            file,
            format!("cloud.size={}", 8 * MIB),
            "cloud.state=creating".into(),
        ];
        let mut args =
            vec!["--yes", "--quiet", "--type", "thin", "--thinpool", &pool.name, "-V", "8m", "-n", &name_of_image];
        tags.iter().for_each(|tag| args.extend(["--addtag", tag.as_str()]));
        let group = name();
        args.push(&group);
        run("lvcreate", &args);
        if restart {
            pool.agent.kill().await;
            pool.agent.run().await;
            assert_eq!(pool.volumes().len(), 2, "the start clears both: {:?}", pool.volumes());
        }
        let made = pool.agent.ensure(&half, true).await.unwrap();
        assert_eq!(made.size_bytes, 16 * MIB);
        assert!(reads(&made, "0x33", "0 1M") && reads(&made, "0", "1M 15M"));
        // The agent may have been started anew since the header was made.
        let header = cloud_contracts::agent::ImageHeader { context: pool.agent.context(), ..header };
        let cached = pool.agent.put(header, &bytes).await.unwrap();
        let from_image = VolumeSpec { source: Some(Source::ImageId(cached.id.clone())), ..blank(8) };
        let volume = pool.agent.ensure(&from_image, true).await.unwrap();
        assert!(reads(&volume, "0xa5", "0 1M"));
        pool.agent.remove(&from_image.id).await.unwrap();
        pool.agent.remove_image(&image).await.unwrap();
        if restart {
            continue;
        }
        assert_eq!(pool.volumes().len(), 2);
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_at_any_moment_leaves_what_the_same_calls_complete() {
    let mut pool = Pool::start().await;
    let source = blank(8);
    let volume = pool.agent.ensure(&source, true).await.unwrap();
    writes(&volume, "0x44", "0 1M");
    let (mut copies, mut snapshots) = (Vec::new(), Vec::new());
    for round in 0..8_u64 {
        let specs: Vec<_> = (0..2).map(|_| copy_of(Source::VolumeId(source.id.clone()), 16)).collect();
        let taken: Vec<_> = (0..2).map(|_| Uuid::new_v4().to_string()).collect();
        {
            let making = join_all(specs.iter().map(|spec| pool.agent.ensure(spec, true)));
            let taking = join_all(taken.iter().map(|id| pool.agent.snapshot(id, &source.id, true)));
            let both = async { tokio::join!(making, taking) };
            let _cut_off = tokio::time::timeout(Duration::from_millis(150 * round), both).await;
        }
        pool.agent.kill().await;
        pool.agent.run().await;
        for spec in &specs {
            let made = pool.agent.ensure(spec, true).await.unwrap();
            assert_eq!(made.size_bytes, 16 * MIB);
            assert!(reads(&made, "0x44", "0 1M"), "round {round}");
        }
        for id in &taken {
            pool.agent.snapshot(id, &source.id, true).await.unwrap();
        }
        copies.extend(specs);
        snapshots.extend(taken);
    }
    assert_eq!(pool.volumes().len(), 1 + copies.len() + snapshots.len());
    for spec in &copies {
        pool.agent.remove(&spec.id).await.unwrap();
    }
    for id in &snapshots {
        pool.agent.remove_snapshot(id).await.unwrap();
    }
    assert_eq!(pool.volumes(), [format!("vol-{}", source.id)]);
    assert!(lvs("lv_health_status", &pool.full(&pool.name)).is_empty(), "the pool is healthy");
}

#[tokio::test]
async fn a_command_that_hangs_is_given_up_and_does_not_keep_other_pools() {
    let root = tempfile::TempDir::new().unwrap();
    let directory = format!("files=directory:{}", root.path().join("files").display());
    let mut pool = Pool::start_with("64m", &["--pool", &directory]).await;
    let spec = blank(8);
    pool.agent.ensure(&spec, true).await.unwrap();
    // Suspended devices hang every command that looks at them, as a dead disk does.
    let mapped = format!("{}-vol--{}", name().replace('-', "--"), spec.id.replace('-', "--"));
    run("dmsetup", &["suspend", "--noflush", &mapped]);
    let other = VolumeSpec { pool: "files".into(), ..blank(8) };
    let made = tokio::time::timeout(Duration::from_secs(30), pool.agent.ensure(&other, true)).await;
    run("dmsetup", &["resume", &mapped]);
    made.expect("in time").unwrap();
    pool.agent.ensure(&spec, false).await.unwrap();
    pool.agent.stop().await;
}

#[tokio::test]
async fn a_device_that_a_killed_command_left_suspended_goes_on_with_the_next_start() {
    let mut pool = Pool::start_with("64m", &[]).await;
    let spec = blank(8);
    let volume = pool.agent.ensure(&spec, true).await.unwrap();
    writes(&volume, "0x55", "0 1M");
    pool.agent.kill().await;
    let mapped = format!("{}-vol--{}", name().replace('-', "--"), spec.id.replace('-', "--"));
    run("dmsetup", &["suspend", "--noflush", &mapped]);
    pool.agent.run().await;
    assert!(reads(&volume, "0x55", "0 1M"));
    pool.agent.ensure(&spec, false).await.unwrap();
}
