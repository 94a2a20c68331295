//! The database is backed up and restored while the cloud runs: guests do not notice, and nothing on a host is lost.

use cloud_testkit::{
    Method,
    sim::{Effect, Rule},
    until,
    wait::PATIENCE,
};
use cloud_tests::{
    Setup, TestCloud,
    backup::{back_up, restore, restore_as},
    cloud::IMAGE,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{names, refused, refused_field, text};

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
    let backup = back_up(&cloud.gateway).await?;
    let b = text(&cloud.running("b").await?, "id");
    let pid = cloud.gateway.process().map(|process| process.pid());

    let refused = restore_as(&cloud.gateway, &backup, &"00".repeat(32)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let refused = restore_as(&cloud.gateway, b"no database at all", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(text(&cloud.instance("b").await?, "status"), "RUNNING", "nothing was restored");

    let restored = restore(&cloud.gateway, &backup).await?;
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
    assert_eq!(
        cloud.host().violations(),
        Vec::<String>::new(),
        "b keeps its network, whatever the VPC's hosts were told of c"
    );
    assert!(cloud.host().snapshot().volumes.values().all(|volume| volume.created == 1), "no disk was made anew");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_newer_than_the_backup_is_adopted_as_it_was() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { args: vec!["--sweep-interval-ms=300".into()], ..Setup::default() }).await?;
    cloud.rest.post("/volumes", &json!({"name": "data", "size_gib": 2})).await?.expect(201)?;
    cloud.rest.post("/vpcs", &json!({"name": "lab"})).await?.expect(201)?;
    cloud.running("a").await?;
    let backup = back_up(&cloud.gateway).await?;
    let asked = json!({
        "name": "b", "image": IMAGE, "volumes": [{"volume": "data"}], "labels": {"tier": "db"}, "user_data": "#cloud-config",
    });
    cloud.launch_as(&asked).await?;
    let b = cloud.becomes("b", "RUNNING").await?;
    // A disk of c is a copy, and e is alone in its VPC.
    cloud.rest.post("/volumes", &json!({"name": "copy", "size_gib": 2, "volume": "data"})).await?.expect(201)?;
    shows(&cloud, "/volumes/copy", |volume| volume["status"] == "AVAILABLE").await?;
    cloud.launch_as(&json!({"name": "c", "image": IMAGE, "volumes": [{"volume": "copy"}]})).await?;
    cloud.launch_as(&json!({"name": "e", "image": IMAGE, "vpc": "lab"})).await?;
    let (c, e) = (cloud.becomes("c", "RUNNING").await?, cloud.becomes("e", "RUNNING").await?);
    let adopt = |instance: &Value| format!("/hosts/h1/orphans/{}/adopt", text(instance, "id"));
    // Nothing is told of networks before the host has said what guests it has.
    let silent = Rule::on(Method::ListInstances, Effect::FailBefore(Code::Unavailable));
    cloud.host().faults().inject(silent);
    let told = cloud.calls(Method::ApplyVpc);
    restore(&cloud.gateway, &backup).await?;
    until("the host to be asked for its networks", PATIENCE, || async {
        let struck = cloud.host().faults().struck();
        anyhow::Ok(if struck > 3 { Ok(()) } else { Err(struck) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    assert_eq!(cloud.calls(Method::ApplyVpc), told);
    cloud.host().faults().clear();
    // Three guests, their root disks, a copy, and a volume that the database knows as blank and without a place.
    let found = |list: &Value| list["orphans"].as_array().is_some_and(|all| all.len() == 8);
    let list = shows(&cloud, "/hosts/h1/orphans", found).await?;
    let name = |instance: &Value| {
        let all = list["orphans"].as_array().unwrap();
        text(all.iter().find(|orphan| orphan["id"] == instance["id"]).unwrap(), "name")
    };
    assert_eq!((name(&b), name(&c)), ("b".to_owned(), "c".to_owned()));
    cloud.hosts_are("UP").await?;

    refused_field(&cloud.rest.post(&adopt(&b), &json!({"name": "other"})).await?, "name");
    cloud.rest.post("/projects", &json!({"name": "other"})).await?.expect(201)?;
    refused_field(&cloud.rest.post(&adopt(&b), &json!({"project": "other"})).await?, "project");
    // The disk of a guest that is an orphan is no volume of anybody's.
    let disk = format!("/hosts/h1/orphans/{}/adopt", text(&c["volumes"][0], "id"));
    let answer = cloud.rest.post(&disk, &json!({})).await?;
    refused(&answer, 400, "FAILED_PRECONDITION");
    // Its `data` is blank and without a place in the backup; on the host it is neither.
    cloud.rest.post(&adopt(&b), &json!({})).await?.expect(200)?;
    is_as_it_was(&cloud, &b).await?;
    refused(&cloud.rest.post(&adopt(&b), &json!({})).await?, 404, "NOT_FOUND");

    // One that nobody wants goes, and its port with it; its network stays as long as it does.
    refused(&cloud.rest.delete("/vpcs/lab").await?, 400, "FAILED_PRECONDITION");
    let ports = cloud.host().snapshot().ports();
    for id in [text(&e, "id"), text(&e["volumes"][0], "id")] {
        cloud.rest.delete(&format!("/hosts/h1/orphans/{id}")).await?.expect(200)?;
    }
    until("the port to be unplugged", PATIENCE, || async {
        let is = cloud.host().snapshot().ports();
        anyhow::Ok(if is + 1 == ports { Ok(()) } else { Err(is) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    cloud.rest.delete("/vpcs/lab").await?.expect(200)?;

    // Nobody is given c's address, though no row has it.
    let ip = |instance: &Value| text(&instance["ports"][0], "ip");
    let d = cloud.running("d").await?;
    assert!(![ip(&b), ip(&c)].contains(&ip(&d)), "{d}");
    cloud.delete("d").await?;
    cloud.rest.post(&adopt(&c), &json!({})).await?.expect(200)?;
    is_as_it_was(&cloud, &c).await?;
    let domains = cloud.host().snapshot().domains;
    assert!(domains.values().all(|domain| domain.starts == 1), "no guest was disturbed");
    assert_eq!(cloud.host().violations(), Vec::<String>::new(), "nor its network");

    // They are instances like any other.
    let audit = cloud.rest.get("/events?filter=action%3Daudit.finding").await?.expect(200)?;
    assert_eq!(names(&audit, "events"), Vec::<String>::new());
    for instance in [&b, &c] {
        let path = format!("/instances/{}", text(instance, "id"));
        cloud.rest.post(&format!("{path}/reboot"), &json!({})).await?.expect(200)?;
        let rebooted = || cloud.host().snapshot().domains[&text(instance, "id")].reboots == 1;
        cloud_testkit::wait::until_true("the reboot", PATIENCE, rebooted).await?;
        cloud.becomes(&text(instance, "id"), "RUNNING").await?;
        cloud.rest.post(&format!("{path}/stop"), &json!({})).await?.expect(200)?;
        cloud.rest.post(&format!("{path}/start"), &json!({})).await?.expect(200)?;
        cloud.becomes(&text(instance, "name"), "RUNNING").await?;
        cloud.delete(&text(instance, "id")).await?;
    }
    for volume in ["data", "copy"] {
        cloud.rest.delete(&format!("/volumes/{volume}")).await?.expect(200)?;
    }
    cloud.delete("a").await?;
    until("nothing to be left", PATIENCE, || async {
        let left = cloud.host().leftovers();
        anyhow::Ok(if left.is_empty() { Ok(()) } else { Err(left) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    let quota = cloud.rest.get("/quotas/default").await?.expect(200)?;
    assert_eq!((&quota["used"]["instances"], &quota["used"]["volume_gib"]), (&json!("0"), &json!("0")), "{quota}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_address_was_given_away_is_adopted_when_it_is_free_again() -> anyhow::Result<()> {
    let cloud = TestCloud::with(Setup { args: vec!["--sweep-interval-ms=300".into()], ..Setup::default() }).await?;
    let backup = back_up(&cloud.gateway).await?;
    let b = cloud.running("b").await?;
    // Before the host has said what guests it has.
    cloud.host().faults().inject(Rule::on(Method::ListInstances, Effect::FailBefore(Code::Unavailable)));
    restore(&cloud.gateway, &backup).await?;
    shows(&cloud, "/instances", |list| !list.to_string().contains(&text(&b, "id"))).await?;
    let d = until("a launch", PATIENCE, || async {
        let answer = cloud.rest.post("/instances", &json!({"name": "d", "image": IMAGE})).await;
        anyhow::Ok(match answer {
            Ok(answer) if answer.status == 201 => Ok(answer.json()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    assert_eq!(d["ports"][0]["ip"], b["ports"][0]["ip"]);
    cloud.host().faults().clear();
    cloud.becomes("d", "RUNNING").await?;
    let found = |list: &Value| list.to_string().contains(&text(&b, "id"));
    shows(&cloud, "/hosts/h1/orphans", found).await?;
    let adopt = format!("/hosts/h1/orphans/{}/adopt", text(&b, "id"));
    let answer = cloud.rest.post(&adopt, &json!({})).await?;
    refused(&answer, 400, "FAILED_PRECONDITION");
    assert!(
        answer.text().contains("ADDRESS_TAKEN") && answer.text().contains(&text(&b["ports"][0], "ip")),
        "{}",
        answer.text()
    );
    cloud.delete("d").await?;
    cloud.rest.post(&adopt, &json!({})).await?.expect(200)?;
    is_as_it_was(&cloud, &b).await?;
    // The one without a row lost its network, and is the only one that lost anything.
    let unplugged = format!("a port was unplugged while instance {} runs on it", text(&b, "id"));
    assert_eq!(cloud.host().violations(), [unplugged]);
    assert!(cloud.host().snapshot().domains.values().all(|domain| domain.starts == 1), "no guest was disturbed");
    Ok(())
}

/// What users see of an adopted instance is what they saw before.
async fn is_as_it_was(cloud: &TestCloud, was: &Value) -> anyhow::Result<()> {
    let is = cloud.becomes(&text(was, "id"), "RUNNING").await?;
    for same in [
        "name",
        "project",
        "image",
        "instance_type",
        "ports",
        "volumes",
        "labels",
        "user_data",
        "created_at",
        "started_at",
    ] {
        assert_eq!(is[same], was[same], "{same}");
    }
    Ok(())
}
