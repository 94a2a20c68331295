//! What happens on hosts behind the gateway's back: it is seen, and handled by stated policy.

use std::time::{Duration, Instant};

use cloud_testkit::{Method, Role, SimHost, until, wait::PATIENCE};
use cloud_tests::{Setup, TestCloud, cloud::IMAGE};
use serde_json::{Value, json};

use crate::support::{refused, text};

/// Looks at hosts every 300 ms.
async fn watchful() -> anyhow::Result<TestCloud> {
    TestCloud::with(Setup { args: vec!["--sweep-interval-ms=300".into()], ..Setup::default() }).await
}

/// Waits until a GET of the path is as `done` says.
async fn shows(cloud: &TestCloud, path: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    until(path, PATIENCE, || async {
        let answer = cloud.rest.get(path).await?;
        let body = answer.json();
        Ok(if answer.status.is_success() && done(&body) { Ok(body) } else { Err(answer.text()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))
}

/// Calls about single objects, which an inventory makes only where something differs.
fn looks(host: &SimHost) -> u64 {
    [Method::GetInstance, Method::EnsureInstance, Method::EnsureVolume, Method::ApplyVpc]
        .map(|m| host.calls(m))
        .iter()
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_gateway_asks_what_there_is_and_touches_nothing_else() -> anyhow::Result<()> {
    let mut cloud = TestCloud::start().await?;
    for number in 0..20 {
        cloud.launch(&format!("i-{number}")).await?;
    }
    for number in 0..20 {
        cloud.becomes(&format!("i-{number}"), "RUNNING").await?;
    }
    // Hosts are still told of each other's ports when all run.
    let idle = |text: &str| text.contains("work_queue_due{service=\"api-gateway\"} 0");
    until("nothing to be due", PATIENCE, || async {
        let text = cloud.rest.get("/metrics").await?.text();
        Ok(if idle(&text) { Ok(()) } else { Err(text) })
    })
    .await?;
    let before = looks(cloud.host());
    let lists = [Method::ListInstances, Method::ListVolumes, Method::ListVpcs].map(|m| cloud.host().calls(m));
    cloud.gateway.restart().await?;
    let host = shows(&cloud, "/hosts/h1", |host| host["state"] == "UP" && host["inventoried_at"].is_string()).await?;
    // Agents register again with their next heartbeat, two seconds later at the most: that is another inventory.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(looks(cloud.host()), before, "{host}");
    for (method, before) in [Method::ListInstances, Method::ListVolumes, Method::ListVpcs].into_iter().zip(lists) {
        let asked = cloud.host().calls(method) - before;
        assert!((1..=8).contains(&asked), "{method}: asked {asked} times");
    }
    let metrics = cloud.rest.get("/metrics").await?.text();
    assert!(metrics.contains("host_inventory_timestamp_seconds{host=\"h1\""), "{metrics}");
    assert!(metrics.contains("work_queue_due{service=\"api-gateway\"} 0"), "{metrics}");
    assert!(cloud.gateway.log()?.contains("inventory taken"));
    cloud.settles(20, 20, 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_vanished_is_seen_within_two_seconds() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let id = text(&cloud.running("web-01").await?, "id");
    let begun = Instant::now();
    assert!(cloud.host().remove_domain(&id));
    until("the guest to run again", Duration::from_secs(2), || async {
        let runs = cloud.host().snapshot().running();
        anyhow::Ok(if runs == 1 { Ok(()) } else { Err(runs) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    println!("it took {:?}", begun.elapsed());
    cloud.becomes("web-01", "RUNNING").await?;
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_gone_is_an_error_until_it_is_back() -> anyhow::Result<()> {
    let cloud = watchful().await?;
    let running = cloud.running("web-01").await?;
    let root = text(&running["volumes"][0], "id");
    let disk = cloud.host().snapshot().volumes[&root].clone();
    assert!(cloud.host().remove_volume(&root));
    let failed = shows(&cloud, "/instances/web-01", |row| row["status"] == "ERROR").await?;
    let reason = text(&failed, "status_reason");
    assert!(reason.contains(&format!("`root-{}`", text(&running, "id"))) && reason.contains("missing"), "{reason}");
    let volume = cloud.rest.get(&format!("/volumes/{root}")).await?.expect(200)?;
    assert_eq!(volume["status"], "ERROR", "{volume}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = cloud.host().snapshot();
    assert!(snapshot.volumes.is_empty(), "nothing is made in its place");
    assert_eq!((snapshot.running(), snapshot.domains[&text(&running, "id")].starts), (1, 1), "the guest is left alone");
    cloud.host().put_volume(disk);
    let back = shows(&cloud, "/instances/web-01", |row| row["status"] == "RUNNING").await?;
    assert_eq!(back["status_reason"], "");
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_somebody_took_apart_is_put_together() -> anyhow::Result<()> {
    let cloud = watchful().await?;
    let running = cloud.running("web-01").await?;
    let port = text(&running["ports"][0], "id");
    let vpc = cloud.host().snapshot().vpcs.keys().next().unwrap().clone();
    assert!(cloud.host().remove_port(&port));
    cloud.settles(1, 1, 1).await?;
    assert!(cloud.host().remove_vpc(&vpc));
    cloud.settles(1, 1, 1).await?;
    assert!(cloud.host().remove_port(&port), "it is the same one");
    cloud.host().restart_agent(Role::Network)?;
    cloud.settles(1, 1, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_followed_by_what_the_policy_says() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for (name, policy, again) in
        [("never", None, false), ("failure", Some("ON_FAILURE"), true), ("always", Some("ALWAYS"), true)]
    {
        let mut body = json!({"name": name, "image": IMAGE});
        if let Some(policy) = policy {
            body["restart_policy"] = json!(policy);
        }
        let launched = cloud.launch_as(&body).await?;
        assert_eq!(launched["restart_policy"], policy.unwrap_or("NEVER"));
        let id = text(&launched, "id");
        cloud.becomes(name, "RUNNING").await?;
        assert!(cloud.host().crash_guest(&id));
        if again {
            until("it to run again", PATIENCE, || async {
                let starts = cloud.host().snapshot().domains[&id].starts;
                anyhow::Ok(if starts == 2 { Ok(()) } else { Err(starts) })
            })
            .await
            .map_err(|error| cloud.with_log(error))?;
            cloud.becomes(name, "RUNNING").await?;
        } else {
            let row = cloud.becomes(name, "STOPPED").await?;
            assert_eq!(row["status_reason"], "the guest crashed");
        }
    }
    let wrong = json!({"name": "wrong", "image": IMAGE, "restart_policy": 9});
    refused(&cloud.rest.post("/instances", &wrong).await?, 400, "INVALID_ARGUMENT");
    cloud.settles(2, 3, 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_shown_adopted_and_removed() -> anyhow::Result<()> {
    let cloud = watchful().await?;
    let running = cloud.running("web-01").await?;
    let snapshot = cloud.host().snapshot();
    let mut volume = snapshot.volumes[&text(&running["volumes"][0], "id")].clone();
    let mut domain = snapshot.domains[&text(&running, "id")].clone();
    // Of another cloud: not touched, not even shown.
    let foreign = "11111111-1111-4111-8111-111111111111";
    let mut other = volume.clone();
    other.owner.cloud_id = foreign.to_owned();
    other.owner.resource_id = foreign.to_owned();
    cloud.host().put_volume(other);
    let (disk, guest) = ("22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333");
    disk.clone_into(&mut volume.owner.resource_id);
    guest.clone_into(&mut domain.owner.resource_id);
    guest.clone_into(&mut domain.spec.id);
    domain.spec.disks.truncate(1);
    disk.clone_into(&mut domain.spec.disks[0].volume_id);
    domain.spec.nics.clear();
    cloud.host().put_volume(volume);
    cloud.host().put_domain(domain);
    let count = |n: usize| move |list: &Value| list["orphans"].as_array().is_some_and(|all| all.len() == n);
    let list = shows(&cloud, "/hosts/h1/orphans", count(2)).await?;
    assert!(list.to_string().contains("runs; its disks: 22222222"), "{list}");
    assert_eq!(cloud.rest.get("/hosts/h1").await?.expect(200)?["orphans"], 2);
    let metrics = cloud.rest.get("/metrics").await?.text();
    assert!(metrics.contains("host_orphans{host=\"h1\",kind=\"volume\",service=\"api-gateway\"} 1"), "{metrics}");

    let adopt = |id: &str| format!("/hosts/h1/orphans/{id}/adopt");
    refused(&cloud.rest.post(&adopt(disk), &json!({})).await?, 400, "FAILED_PRECONDITION");
    refused(&cloud.rest.post(&adopt(guest), &json!({})).await?, 400, "FAILED_PRECONDITION");
    refused(&cloud.rest.delete(&format!("/hosts/h1/orphans/{foreign}")).await?, 404, "NOT_FOUND");
    let removing = cloud.rest.delete(&format!("/hosts/h1/orphans/{guest}")).await?.expect(200)?;
    assert_eq!(removing["removing"], true);
    shows(&cloud, "/hosts/h1/orphans", count(1)).await?;
    assert_eq!(cloud.host().power(guest), None);
    let adopted = cloud.rest.post(&adopt(disk), &json!({"name": "saved", "project": "default"})).await?.expect(200)?;
    assert_eq!(adopted["id"], disk);
    let row = cloud.rest.get("/volumes/saved").await?.expect(200)?;
    assert_eq!((&row["id"], &row["status"], &row["image"]), (&json!(disk), &json!("AVAILABLE"), &json!(IMAGE)));
    // It can be used, and its data are what they were.
    cloud.launch_as(&json!({"name": "web-02", "image": IMAGE, "volumes": [{"volume": "saved"}]})).await?;
    cloud.becomes("web-02", "RUNNING").await?;
    assert_eq!(cloud.host().snapshot().volumes[disk].created, 1);

    // What was deleted and turns up again goes by itself.
    let revenant = cloud.host().snapshot().volumes[disk].clone();
    cloud.delete("web-02").await?;
    cloud.rest.delete("/volumes/saved").await?.expect(200)?;
    shows(&cloud, &format!("/volumes/{disk}"), |row| row["status"] == "DELETED").await?;
    cloud.host().put_volume(revenant);
    until("the volume to be gone again", PATIENCE, || async {
        let there = cloud.host().snapshot().volumes.contains_key(disk);
        anyhow::Ok(if there { Err("it is there") } else { Ok(()) })
    })
    .await
    .map_err(|error| cloud.with_log(error))?;
    assert!(cloud.host().snapshot().volumes.contains_key(foreign), "another cloud's is not touched");
    assert!(cloud.host().remove_volume(foreign));
    cloud.settles(1, 1, 1).await
}
