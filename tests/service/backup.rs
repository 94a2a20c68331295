//! The database is backed up and restored while the cloud runs: guests do not notice, and nothing on a host is lost.

use cloud_contracts::v1::{
    BackupDatabaseRequest, RestoreDatabaseHeader, RestoreDatabaseRequest, RestoreDatabaseResponse,
    admin_service_client::AdminServiceClient, restore_database_request::Message,
};
use cloud_testkit::{until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use crate::support::text;

async fn back_up(cloud: &TestCloud) -> anyhow::Result<Vec<u8>> {
    let mut admin = AdminServiceClient::new(cloud.gateway.grpc()?.service());
    let mut stream = admin.backup_database(BackupDatabaseRequest {}).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

async fn restore(cloud: &TestCloud, bytes: &[u8], sha256: &str) -> Result<RestoreDatabaseResponse, Status> {
    let say = |message| RestoreDatabaseRequest { message: Some(message) };
    let header = RestoreDatabaseHeader { allow_other_cloud: false, sha256: sha256.to_owned() };
    let mut messages = vec![say(Message::Header(header))];
    messages.extend(bytes.chunks(1 << 16).map(|data| say(Message::Data(data.to_vec().into()))));
    let mut admin = AdminServiceClient::new(cloud.gateway.grpc().unwrap().service());
    Ok(admin.restore_database(tokio_stream::iter(messages)).await?.into_inner())
}

/// Waits until a GET of the path, of a gateway that may be away, is as `done` says.
async fn shows(cloud: &TestCloud, path: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until(path, PATIENCE, || async {
        Ok(match cloud.rest.get(path).await {
            Ok(answer) if answer.status.is_success() && done(&answer.json()) => Ok(answer.json()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        })
    })
    .await
    .map_err(|error| cloud.with_log(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_do_not_notice_a_restore_and_what_is_newer_is_an_orphan() -> anyhow::Result<()> {
    let mut cloud = TestCloud::with(Setup { args: vec!["--sweep-interval-ms=300".into()], ..Setup::default() }).await?;
    let a = text(&cloud.running("a").await?, "id");
    let backup = back_up(&cloud).await?;
    let b = text(&cloud.running("b").await?, "id");
    let pid = cloud.gateway.process().map(|process| process.pid());

    let refused = restore(&cloud, &backup, &"00".repeat(32)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let refused = restore(&cloud, b"no database at all", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(text(&cloud.instance("b").await?, "status"), "RUNNING", "nothing was restored");

    let restored = restore(&cloud, &backup, &hex::encode(Sha256::digest(&backup))).await?;
    assert!(restored.epoch > 1_700_000_000, "no less than the time in seconds: {restored:?}");
    let b_is_orphaned = |list: &Value| {
        list["orphans"].as_array().is_some_and(|all| all.iter().any(|orphan| orphan["id"] == b.as_str()))
    };
    let orphans = shows(&cloud, "/hosts/h1/orphans", b_is_orphaned).await?;
    assert!(!orphans.to_string().contains(&a), "{orphans}");
    cloud.hosts_are("UP").await?;
    assert_eq!(cloud.gateway.process().map(|process| process.pid()), pid, "it is the same process");
    let events = cloud.rest.get("/events?kind=database").await?.expect(200)?;
    let restores = events["events"].as_array().unwrap().iter().filter(|e| e["action"] == "database.restore");
    let restores: Vec<_> = restores.filter(|e| e["outcome"] == "OK").collect();
    assert_eq!((restores.len(), &restores[0]["actor"]), (1, &serde_json::json!("admin")), "{events}");

    // The agents take orders of the new epoch.
    cloud.running("c").await?;
    cloud.rest.delete("/instances/c").await?.expect(200)?;
    cloud.becomes("a", "RUNNING").await?;
    until("c to be gone", PATIENCE, || async {
        let domains = cloud.host().snapshot().domains.len();
        anyhow::Ok(if domains == 2 { Ok(()) } else { Err(domains) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    let domains = cloud.host().snapshot().domains;
    assert_eq!((domains[&a].starts, domains[&b].starts), (1, 1), "neither was touched");
    assert_eq!(cloud.host().snapshot().running(), 2);
    // The VPC was told of c, and what it is told replaces all ports on it: that of b, whose address is free to the database, is not among them.
    let unplugged = format!("a port was unplugged while instance {b} runs on it");
    let wrong: Vec<_> = cloud.host().violations().into_iter().filter(|wrong| *wrong != unplugged).collect();
    assert_eq!(wrong, Vec::<String>::new());
    assert!(cloud.host().snapshot().volumes.values().all(|volume| volume.created == 1), "no disk was made anew");
    Ok(())
}
