//! Several hosts on one machine, as `make up HOSTS=…` runs them: real agents, switches, hypervisors and guests, and wires that can be cut.
//! Needs root and the image `tiny` (images/tiny/build.sh). One cloud at a time: run with `--test-threads 1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cloud_testkit::until;
use cloud_tests::{
    HostsCloud, Instances,
    hosts::HostsConfig,
    instances::{BOOT, PATIENCE},
};
use serde_json::{Value, json};

/// How soon a host that does not answer must be called so.
const SILENCE: Duration = Duration::from_secs(15);

/// Asks the first addresses of the subnet for their names and pings them with the largest packet of MTU 1450, again and again:
/// `sees first second pings 2 3`.
const LOOK: &str = r#"#!/bin/sh
prefix=$(ip -o -4 addr show eth0 | awk '{ split($4, a, "."); print a[1] "." a[2] "." a[3] }')
echo; echo "mtu $(cat /sys/class/net/eth0/mtu)"
while true; do
    rm -rf /run/look; mkdir /run/look
    for last in 2 3 4 5; do
        nc -w 2 "$prefix.$last" 7777 < /dev/null > "/run/look/$last" 2>/dev/null &
        { ping -c 1 -W 1 -s 1422 "$prefix.$last" && echo "$last" > "/run/look/ping-$last"; } > /dev/null 2>&1 &
    done
    wait
    echo "sees $(sed -n 's/^hello from \([^ ]*\) .*/\1/p' /run/look/[0-9] | sort -u | xargs) pings $(cat /run/look/ping-* 2>/dev/null | sort | xargs)"
    sleep 1
done
"#;

fn views(log: &str) -> impl Iterator<Item = &str> {
    log.lines().map(str::trim).filter(|line| line.starts_with("sees "))
}

/// Waits until a guest says, in a view that it did not have before, what it sees.
async fn sees(cloud: &HostsCloud, name: &str, view: &str) -> anyhow::Result<()> {
    let before = views(&cloud.instances().log(name).await?).count();
    until(&format!("{name} to say `{view}`"), BOOT, || async {
        let log = cloud.instances().log(name).await?;
        let last = views(&log).skip(before).last().unwrap_or("nothing new").to_owned();
        Ok(if last == view { Ok(()) } else { Err(last) })
    })
    .await
    .map_err(|error| cloud.with_logs(error))
}

/// Where the scheduler has put an instance, and its id.
async fn place(cloud: &HostsCloud, name: &str) -> anyhow::Result<(String, String)> {
    let instance = cloud.instances().becomes(name, "RUNNING").await.map_err(|error| cloud.with_logs(error))?;
    let part = |key: &str| instance[key].as_str().unwrap().to_owned();
    Ok((part("host"), part("id")))
}

async fn launch_looking(cloud: &HostsCloud, names: &[(&str, &str)]) -> anyhow::Result<()> {
    for vpc in names.iter().map(|(_, vpc)| *vpc).collect::<BTreeSet<_>>() {
        cloud.rest.post("/vpcs", &json!({"name": vpc, "cidr": "10.42.0.0/16"})).await?.expect(201)?;
    }
    for (name, vpc) in names {
        cloud.instances().launch(name, json!({"vpc": vpc, "user_data": LOOK})).await?;
    }
    Ok(())
}

/// Room for ten instances with one virtual processor on each host.
fn ten_instances_each() -> Vec<(String, String)> {
    let processors = std::thread::available_parallelism().unwrap().get();
    // Half of one more, since the product is rounded down.
    #[allow(clippy::cast_precision_loss)]
    let ratio = 10.5 / processors as f64;
    vec![("CLOUD_CPU_OVERCOMMIT".to_owned(), format!("{ratio:.3}"))]
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_reach_each_other_across_hosts_and_launches_spread() -> anyhow::Result<()> {
    let config = HostsConfig { hosts: 3, envs: ten_instances_each(), ..HostsConfig::default() };
    let cloud = HostsCloud::start(config).await?;
    for host in ["h1", "h2", "h3"] {
        assert_eq!(cloud.host(host).await?["state"], "UP");
    }
    let all = [("first", "blue"), ("second", "blue"), ("third", "blue"), ("stranger", "green")];
    launch_looking(&cloud, &all).await?;
    let mut hosts = BTreeSet::new();
    for (name, vpc) in all {
        let (host, id) = place(&cloud, name).await?;
        assert!(cloud.guests_on(&host)?.contains(&format!("cloud-{id}")), "{name} runs where the gateway says");
        if vpc == "blue" {
            hosts.insert(host);
        }
    }
    assert_eq!(hosts.len(), 3, "three guests, three hosts: {hosts:?}");
    let ip = |instance: Value| instance["ports"][0]["ip"].clone();
    let first = ip(cloud.instances().get("first").await?);
    assert_eq!(first, ip(cloud.instances().get("stranger").await?), "equal addresses, different VPCs");
    for name in ["first", "second", "third"] {
        sees(&cloud, name, "sees first second third pings 2 3 4").await?;
        assert!(cloud.instances().log(name).await?.contains("mtu 1450"));
    }
    sees(&cloud, "stranger", "sees stranger pings 2").await?;
    for (name, others) in [("first", "stranger"), ("second", "stranger"), ("third", "stranger"), ("stranger", "first")]
    {
        let log = cloud.instances().log(name).await?;
        assert_eq!(views(&log).find(|view| view.contains(others)), None, "{name}");
    }
    for (name, _) in all {
        cloud.instances().delete(name).await?;
    }
    thirty_launches_fill_three_hosts(&cloud).await?;
    a_token_lets_one_host_in(&cloud).await
}

/// The command that let the three hosts in, on a fourth one that has joined nothing yet: it has no agents, and is never UP.
async fn a_token_lets_one_host_in(cloud: &HostsCloud) -> anyhow::Result<()> {
    for host in ["h1", "h2", "h3"] {
        let config =
            std::fs::read_to_string(cloud.state().join(format!("hosts/{host}/etc/thecloud/compute-agent.toml")))?;
        assert!(config.contains(":8443") && config.contains("tls-cert"), "{host} joined over mutual TLS: {config}");
    }
    let made = cloud.rest.post("/hosts:join-token", &json!({})).await?;
    anyhow::ensure!(made.status.is_success(), "{}", made.text());
    let token = made.at("/token");
    let join = |number: u8| {
        let directories = cloud.state().join(format!("new-{number}"));
        let program = cloud_testkit::process::binary("cloud-agent-join")?.display().to_string();
        let (config, state) =
            (directories.join("etc").display().to_string(), directories.join("lib").display().to_string());
        let flags = [
            "--no-start",
            "--host-name",
            "new",
            "--address",
            "198.19.0.99",
            "--config-dir",
            &config,
            "--state-dir",
            &state,
        ];
        cloud.hosts(&[&["exec", "h1", &program, &token], &flags[..]].concat())
    };
    let joined = join(1)?;
    assert!(joined.contains("joined cloud"), "{joined}");
    assert_eq!(cloud.host("new").await?["state"], "UNREACHABLE");
    let refused = join(2).expect_err("the token was used").to_string();
    assert!(refused.contains("was used"), "{refused}");
    Ok(())
}

/// Ten clients, three launches each, into exactly as much room.
async fn thirty_launches_fill_three_hosts(cloud: &HostsCloud) -> anyhow::Result<()> {
    let clients = (0..10).map(|client| {
        let rest = cloud.rest.clone();
        tokio::spawn(async move {
            for number in 0..3 {
                Instances(&rest).launch(&format!("many-{client}-{number}"), json!({})).await?;
            }
            anyhow::Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    let even: BTreeMap<String, u64> = ["h1", "h2", "h3"].map(|host| (host.to_owned(), 10)).into();
    assert_eq!(cloud.spread().await?, even);
    let refused = cloud.rest.post("/instances", &Instances::body("one-too-many", json!({}))).await?;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.at("/error/status"), "RESOURCE_EXHAUSTED", "{}", refused.text());

    let names: Vec<String> = (0..30).map(|n| format!("many-{}-{}", n / 3, n % 3)).collect();
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in &names {
        let (host, id) = place(cloud, name).await?;
        wanted.entry(host).or_default().insert(format!("cloud-{id}"));
    }
    for (host, guests) in &wanted {
        assert_eq!(&cloud.guests_on(host)?, guests, "what {host} runs");
    }
    for name in &names {
        cloud.rest.delete(&format!("/instances/{name}")).await?.expect(200)?;
    }
    until("all to be gone", PATIENCE, || async {
        let spread = cloud.spread().await?;
        Ok(if spread.values().all(|count| *count == 0) { Ok(()) } else { Err(format!("{spread:?}")) })
    })
    .await
    .map_err(|error| cloud.with_logs(error))
}

/// Every guest of these runs once on all hosts together, as the process that is given.
fn run_once_as(cloud: &HostsCloud, guests: &BTreeMap<String, (String, u32)>) -> anyhow::Result<()> {
    let mut running = BTreeMap::new();
    for host in ["h1", "h2", "h3"] {
        for domain in cloud.guests_on(host)? {
            let id = domain.trim_start_matches("cloud-").to_owned();
            let process = (host.to_owned(), cloud.guest_pid(host, &id)?);
            assert_eq!(running.insert(id, process), None, "{domain} runs twice");
        }
    }
    assert_eq!(&running, guests);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_cut_off_killed_and_switched_off_come_back() -> anyhow::Result<()> {
    let mut cloud = HostsCloud::start(HostsConfig { hosts: 3, ..HostsConfig::default() }).await?;
    launch_looking(&cloud, &[("first", "blue"), ("second", "blue"), ("third", "blue")]).await?;
    cloud.instances().launch("doomed", json!({})).await?;
    let mut guests = BTreeMap::new();
    let mut of = BTreeMap::new();
    for name in ["first", "second", "third", "doomed"] {
        let (host, id) = place(&cloud, name).await?;
        guests.insert(id.clone(), (host.clone(), cloud.guest_pid(&host, &id)?));
        of.insert(name, (host, id));
    }
    sees(&cloud, "first", "sees first second third pings 2 3 4").await?;
    a_cut_host_keeps_its_guests(&cloud, &mut guests).await?;
    sees(&cloud, "first", "sees first second third pings 2 3 4").await?;

    // One set of agents dies.
    let (host, _) = &of["third"];
    cloud.hosts(&["kill", host])?;
    cloud.host_becomes(host, "UNREACHABLE", SILENCE).await?;
    run_once_as(&cloud, &guests)?;
    sees(&cloud, "first", "sees first second third pings 2 3 4").await?;
    cloud.hosts(&["start", host])?;
    cloud.host_becomes(host, "UP", PATIENCE).await?;
    run_once_as(&cloud, &guests)?;

    // Everything dies but the guests, and is started again.
    cloud.kill_everything()?;
    cloud.up().await?;
    for name in ["first", "second", "third"] {
        place(&cloud, name).await?;
    }
    run_once_as(&cloud, &guests)?;
    sees(&cloud, "first", "sees first second third pings 2 3 4").await?;

    // A host loses its power, and returns.
    let (host, id) = &of["second"];
    cloud.hosts(&["power-off", host])?;
    assert!(cloud.guest_pid(host, id).is_err());
    cloud.host_becomes(host, "UNREACHABLE", SILENCE).await?;
    assert_eq!(cloud.instances().get("second").await?["status"], "RUNNING", "silence changes no status");
    sees(&cloud, "first", "sees first third pings 2 4").await?;
    cloud.hosts(&["start", host])?;
    cloud.host_becomes(host, "UP", PATIENCE).await?;
    sees(&cloud, "first", "sees first second third pings 2 3 4").await?;
    assert_eq!(cloud.instances().get("second").await?["host"].as_str(), Some(host.as_str()));
    guests.insert(id.clone(), (host.clone(), cloud.guest_pid(host, id)?));
    run_once_as(&cloud, &guests)?;

    // Whoever finds all of it dead can clear it away.
    cloud.kill_everything()?;
    cloud.down()?;
    assert_eq!(cloud.left()?, Vec::<String>::new());
    Ok(())
}

/// Its link is cut: UNREACHABLE in time, its instances keep status and guests, nothing starts twice, and what was ordered meanwhile is done
/// when the link is back.
async fn a_cut_host_keeps_its_guests(
    cloud: &HostsCloud,
    guests: &mut BTreeMap<String, (String, u32)>,
) -> anyhow::Result<()> {
    let (host, doomed) = &place(cloud, "doomed").await?;
    cloud.hosts(&["cut", host])?;
    let seen = cloud.host_becomes(host, "UNREACHABLE", SILENCE).await?;
    assert!(seen["state_reason"].as_str().unwrap_or_default().contains("silent"), "{seen}");
    for id in guests.iter().filter(|(_, (of, _))| of == host).map(|(id, _)| id) {
        let there = cloud.instances().get(id).await?;
        assert_eq!((&there["status"], &there["host_reachable"]), (&json!("RUNNING"), &json!(false)), "{there}");
    }
    run_once_as(cloud, guests)?;
    // New ones go elsewhere.
    for name in ["fourth", "fifth"] {
        cloud.instances().launch(name, json!({})).await?;
        let (other, _) = place(cloud, name).await?;
        assert_ne!(&other, host);
    }
    for name in ["fourth", "fifth"] {
        cloud.instances().delete(name).await?;
    }
    // Ordered now, done later.
    cloud.rest.delete("/instances/doomed").await?.expect(200)?;
    run_once_as(cloud, guests)?;
    cloud.hosts(&["mend", host])?;
    cloud.host_becomes(host, "UP", PATIENCE).await?;
    cloud.instances().becomes(doomed, "DELETED").await.map_err(|error| cloud.with_logs(error))?;
    guests.remove(doomed);
    for id in guests.keys() {
        let there = cloud.instances().get(id).await?;
        assert_eq!((&there["status"], &there["host_reachable"]), (&json!("RUNNING"), &json!(true)), "{there}");
    }
    run_once_as(cloud, guests)
}

/// Launches an instance: the host that it runs on, or why it does not.
async fn outcome(cloud: &HostsCloud, name: &str) -> anyhow::Result<Result<String, String>> {
    let answer = cloud.rest.post("/instances", &Instances::body(name, json!({}))).await?;
    if answer.status == 429 {
        return Ok(Err(answer.at("/error/message")));
    }
    answer.expect(201)?;
    until(&format!("{name} to run, or not"), PATIENCE, || async {
        let instance = cloud.instances().get(name).await?;
        let part = |key: &str| instance[key].as_str().unwrap_or_default().to_owned();
        Ok(match part("status").as_str() {
            "RUNNING" => Ok(Ok(part("host"))),
            "ERROR" => Ok(Err(part("status_reason"))),
            _ => Err(instance.to_string()),
        })
    })
    .await
    .map_err(|error| cloud.with_logs(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_stops_nobody_else() -> anyhow::Result<()> {
    let config = HostsConfig { hosts: 2, disk_mib: Some(1024), ..HostsConfig::default() };
    let cloud = HostsCloud::start(config).await?;
    let mut kept = Vec::new();
    for (name, on) in [("kept-1", "h1"), ("kept-2", "h2")] {
        cloud.instances().launch(name, json!({"placement": {"host": on}})).await?;
        let (host, id) = place(&cloud, name).await?;
        kept.push((cloud.guest_pid(&host, &id)?, host, id));
    }
    assert_ne!(kept[0].1, kept[1].1);

    // Not a byte is left: the host takes nothing more, and says why. Its guest goes on, and so does the other host.
    cloud.hosts(&["fill", "h1"])?;
    let full = cloud.host_becomes("h1", "UNREACHABLE", PATIENCE).await?;
    assert!(full["state_reason"].as_str().unwrap_or_default().contains("No space left"), "{full}");
    for name in ["beside-1", "beside-2"] {
        assert_eq!(outcome(&cloud, name).await?, Ok("h2".to_owned()), "{name}");
    }
    cloud.hosts(&["empty", "h1"])?;
    cloud.host_becomes("h1", "UP", PATIENCE).await?;

    // Little is left on both: less than a volume and the reserve need.
    for host in ["h1", "h2"] {
        cloud.hosts(&["fill", host, "20"])?;
    }
    let reason = outcome(&cloud, "too-much").await?.expect_err("there is no room");
    assert!(reason.contains("pool"), "{reason}");
    for host in ["h1", "h2"] {
        cloud.hosts(&["empty", host])?;
    }
    // Hosts say how much room they have by their signs of life.
    let mut tries = 0;
    until("a launch to succeed again", PATIENCE, || {
        tries += 1;
        let name = format!("again-{tries}");
        let cloud = &cloud;
        async move { outcome(cloud, &name).await }
    })
    .await?;
    for (pid, host, id) in kept {
        assert_eq!(cloud.guest_pid(&host, &id)?, pid, "the guest of {host} went on");
        // One that wrote while there was no room is paused by its hypervisor, and said to be.
        let there = cloud.instances().get(&id).await?;
        assert!(["RUNNING", "PAUSED"].contains(&there["status"].as_str().unwrap_or_default()), "{there}");
    }
    Ok(())
}
