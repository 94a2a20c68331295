use cloud_contracts::agent::{VolumeSpec, volume_spec::Source};
use tonic::Code;
use uuid::Uuid;

use crate::{
    agent::{Agent, MIB, blank, copy_of, from, info, patterned, reads, reason, writes},
    volumes::Opener,
};

#[tokio::test]
async fn a_snapshot_keeps_its_moment_and_every_copy_lives_by_itself() {
    let agent = Agent::start().await;
    let image = agent.put_whole("qcow2", &patterned()).await.unwrap();
    let spec = from(&image, 16);
    let volume = agent.ensure(&spec, true).await.unwrap();
    writes(&volume, "0x11", "2M 1M");
    let id = Uuid::new_v4().to_string();
    assert_eq!(reason(agent.snapshot(&id, &spec.id, false).await), "DATA_MISSING");
    let snapshot = agent.snapshot(&id, &spec.id, true).await.unwrap();
    assert_eq!((snapshot.size_bytes, snapshot.volume_id.as_str()), (16 * MIB, spec.id.as_str()));
    assert_eq!(agent.snapshot(&id, &spec.id, false).await.unwrap(), snapshot);
    assert_eq!(agent.snapshots().await.unwrap(), [snapshot]);
    writes(&volume, "0x22", "0 4M");

    let restored = copy_of(Source::SnapshotId(id.clone()), 24);
    let restored = (agent.ensure(&restored, true).await.unwrap(), restored);
    let of_volume = copy_of(Source::VolumeId(spec.id.clone()), 16);
    let of_volume = (agent.ensure(&of_volume, true).await.unwrap(), of_volume);
    assert_eq!(restored.0.snapshot_id, id);
    assert_eq!(of_volume.0.volume_id, spec.id);
    let same = || {
        assert!(reads(&restored.0, "0xa5", "0 1M") && reads(&restored.0, "0", "1M 1M"));
        assert!(reads(&restored.0, "0x11", "2M 1M") && reads(&restored.0, "0", "3M 21M"));
        assert!(reads(&of_volume.0, "0x22", "0 4M") && reads(&of_volume.0, "0", "4M 12M"));
    };
    same();
    assert_eq!(info(&restored.0)["backing-filename"], format!("../images/{}.qcow2", image.id), "and nothing else");

    agent.remove(&spec.id).await.unwrap();
    assert_eq!(reason(agent.remove_image(&image.id).await), "IMAGE_IN_USE");
    for _ in 0..2 {
        agent.remove_snapshot(&id).await.unwrap();
    }
    same();
    for spec in [&restored.1, &of_volume.1] {
        assert_eq!(agent.ensure(spec, false).await.unwrap().format, "qcow2", "their sources are gone");
    }
    assert_eq!(reason(agent.remove_image(&image.id).await), "IMAGE_IN_USE");
    agent.remove(&restored.1.id).await.unwrap();
    agent.remove(&of_volume.1.id).await.unwrap();
    agent.remove_image(&image.id).await.unwrap();
    for part in ["volumes", "snapshots", "images"] {
        assert!(agent.files(part).is_empty(), "{part}");
    }
}

#[tokio::test]
async fn what_a_guest_has_open_is_not_copied_and_says_what_to_do() {
    let agent = Agent::start().await;
    let spec = blank(8);
    let volume = agent.ensure(&spec, true).await.unwrap();
    let opener = Opener::open(&volume.path);
    let (id, copy) = (Uuid::new_v4().to_string(), copy_of(Source::VolumeId(spec.id.clone()), 8));
    let refused = agent.snapshot(&id, &spec.id, true).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains("stop its instance first"), "{}", refused.message());
    assert_eq!(reason(agent.ensure(&copy, true).await), "COPY_IN_USE");
    assert!(agent.files("snapshots").is_empty() && agent.files("volumes").len() == 2);
    drop(opener);
    agent.snapshot(&id, &spec.id, true).await.unwrap();
    agent.ensure(&copy, true).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_survives_the_agent_and_what_was_half_taken_does_not() {
    let mut agent = Agent::start().await;
    let spec = blank(8);
    let volume = agent.ensure(&spec, true).await.unwrap();
    writes(&volume, "0x33", "0 1M");
    let id = Uuid::new_v4().to_string();
    let snapshot = agent.snapshot(&id, &spec.id, true).await.unwrap();
    agent.kill().await;
    let record = std::fs::read_to_string(agent.pool().join(format!("snapshots/{id}.json"))).unwrap();
    let other = Uuid::new_v4().to_string();
    let half = record.replace(&id, &other).replace("\"ready\"", "\"creating\"");
    std::fs::write(agent.pool().join(format!("snapshots/{other}.json")), half).unwrap();
    std::fs::write(agent.pool().join(format!("snapshots/.{other}.0123.tmp")), "x").unwrap();
    agent.run().await;
    assert_eq!(agent.files("snapshots"), [format!("{id}.json"), format!("{id}.qcow2")]);
    assert_eq!(agent.snapshot(&id, &spec.id, false).await.unwrap(), snapshot);
    std::fs::remove_file(agent.pool().join(format!("snapshots/{id}.qcow2"))).unwrap();
    for may_create in [true, false] {
        assert_eq!(reason(agent.snapshot(&id, &spec.id, may_create).await), "DATA_MISSING");
    }
    let lost = VolumeSpec { source: Some(Source::SnapshotId(id)), ..blank(8) };
    assert_eq!(agent.ensure(&lost, true).await.unwrap_err().code(), Code::NotFound);
}
