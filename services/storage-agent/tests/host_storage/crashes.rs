use std::fs;

use cloud_contracts::agent::VolumeSpec;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use crate::{
    agent::{Agent, blank, from, info, messages, patterned, reads, reason},
    images::until,
};

/// Names and contents.
type Files = Vec<(String, Vec<u8>)>;

/// What a crash can leave of a volume, by the files that are there: the states between any two steps of making and of
/// removing it.
fn states(agent: &Agent, spec: &VolumeSpec, size: u64) -> Vec<(&'static str, Files)> {
    let record = |state: &str| {
        let owner = serde_json::json!({
            "cloud_id": agent.gateway.cloud, "epoch": 1, "version": 1, "incarnation": null
        });
        let record = serde_json::json!({
            "form": 1, "id": spec.id, "owner": owner, "state": state, "source": {"kind": "blank"},
            "created_size_bytes": size, "pool": "default"
        });
        (format!("{}.json", spec.id), serde_json::to_vec(&record).unwrap())
    };
    let data = |name: String| (name, b"half of a file".to_vec());
    let id = &spec.id;
    vec![
        ("nothing", vec![]),
        ("temporary record", vec![data(format!(".{id}.json.01.tmp"))]),
        ("record", vec![record("creating")]),
        ("temporary data", vec![record("creating"), data(format!(".{id}.01.tmp"))]),
        ("data", vec![record("creating"), data(format!("{id}.qcow2"))]),
        ("removal begun", vec![record("removing"), data(format!("{id}.qcow2"))]),
        ("removal of data done", vec![record("removing")]),
    ]
}

#[tokio::test]
async fn whatever_a_crash_left_the_next_call_completes() {
    let mut agent = Agent::start().await;
    for restart in [false, true] {
        for index in 0..7 {
            let spec = blank(4);
            // The attempt that was cut off had another size in mind.
            let (name, files) = states(&agent, &spec, 9 << 20).swap_remove(index);
            if restart {
                agent.kill().await;
            }
            for (file, bytes) in files {
                fs::write(agent.pool().join("volumes").join(file), bytes).unwrap();
            }
            if restart {
                agent.run().await;
                assert!(agent.files("volumes").is_empty(), "{name}: the start clears it");
            }
            assert_eq!(reason(agent.ensure(&spec, false).await), "DATA_MISSING", "{name}");
            let volume = agent.ensure(&spec, true).await.unwrap();
            assert_eq!(info(&volume)["virtual-size"], 4 << 20, "{name}");
            agent.remove(&spec.id).await.unwrap();
            // A temporary file is the next start's.
            let left = agent.files("volumes").into_iter().filter(|name| !name.ends_with(".tmp")).count();
            assert_eq!(left, 0, "{name}");
        }
    }
}

#[tokio::test]
async fn data_that_were_there_and_are_gone_are_reported_and_not_replaced() {
    let mut agent = Agent::start().await;
    let spec = blank(4);
    let volume = agent.ensure(&spec, true).await.unwrap();
    fs::remove_file(&volume.path).unwrap();
    for _ in 0..2 {
        for may_create in [false, true] {
            assert_eq!(reason(agent.ensure(&spec, may_create).await), "DATA_MISSING");
        }
        assert!(agent.volumes().await.unwrap().is_empty());
        agent.kill().await;
        agent.run().await;
    }
    agent.remove(&spec.id).await.unwrap();
    assert!(agent.files("volumes").is_empty());
}

#[tokio::test]
async fn killed_while_an_image_comes_it_leaves_nothing() {
    let mut agent = Agent::start().await;
    let bytes = patterned();
    let header = agent.header(&Uuid::new_v4().to_string(), "qcow2", &bytes);
    let (send, receive) = mpsc::channel(1);
    let mut client = agent.client.clone();
    let call = tokio::spawn(async move { client.put_image(ReceiverStream::new(receive)).await });
    for message in messages(header.clone(), &bytes).into_iter().take(3) {
        send.send(message).await.unwrap();
    }
    until(|| !agent.files("images").is_empty()).await;
    agent.kill().await;
    assert!(call.await.unwrap().is_err());
    assert_eq!(agent.files("images").len(), 1);
    agent.run().await;
    assert!(agent.files("images").is_empty() && agent.images().await.unwrap().is_empty());
    let again = cloud_contracts::agent::ImageHeader { context: agent.context(), ..header };
    agent.put(again, &bytes).await.unwrap();
}

/// The moments of death are spread over the time that eight creations take.
#[tokio::test]
async fn killed_at_any_moment_every_volume_converges() {
    let mut agent = Agent::start().await;
    let bytes = patterned();
    let image = agent.put_whole("qcow2", &bytes).await.unwrap();
    let started = std::time::Instant::now();
    for spec in join_all((0..8).map(|_| async { agent.ensure(&from(&image, 8), true).await.unwrap() })).await {
        agent.remove(&spec.owner.unwrap().resource_id).await.unwrap();
    }
    let whole = started.elapsed();
    for round in 0..12 {
        let specs: Vec<_> = (0..8).map(|_| from(&image, 8)).collect();
        let calls = join_all(specs.iter().map(|spec| agent.ensure(spec, true)));
        let acknowledged = tokio::select! {
            all = calls => all.into_iter().filter(Result::is_ok).count(),
            () = tokio::time::sleep(whole * round / 12) => 0,
        };
        agent.kill().await;
        agent.run().await;
        let there = agent.volumes().await.unwrap().len();
        assert!(there >= acknowledged, "{there} of {acknowledged}");
        assert_eq!(agent.files("volumes").len(), 2 * there, "nothing half-done after the start");
        for volume in join_all(specs.iter().map(|spec| agent.ensure(spec, true))).await {
            assert!(reads(&volume.unwrap(), "0xa5", "0 1M"));
        }
        assert_eq!(agent.files("volumes").len(), 16);
        for spec in &specs {
            agent.remove(&spec.id).await.unwrap();
        }
        assert!(agent.files("volumes").is_empty());
    }
}
