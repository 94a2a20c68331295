//! Who reaches whom, as the guests say.

use cloud_tests::{RealCloud, real::BOOT};
use serde_json::json;

/// Asks each of the first addresses of the subnet for its name, again and again, and says who answered: `sees db-01 web-01`.
pub const LOOK: &str = r#"#!/bin/sh
prefix=$(ip -o -4 addr show eth0 | awk '{ split($4, a, "."); print a[1] "." a[2] "." a[3] }')
while true; do
    rm -rf /run/look; mkdir /run/look
    for last in 2 3 4 5; do nc -w 2 "$prefix.$last" 7777 < /dev/null > "/run/look/$last" 2>/dev/null & done
    wait
    echo "sees $(sed -n 's/^hello from \([^ ]*\) .*/\1/p' /run/look/* | sort -u | tr '\n' ' ')"
    sleep 1
done
"#;

/// Whom a guest with [`LOOK`] saw last.
pub fn last_view(log: &str) -> Vec<String> {
    let line = log.lines().rev().find_map(|l| l.trim().strip_prefix("sees "));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_one_vpc_reach_each_other_and_no_other_vpc() -> anyhow::Result<()> {
    let cloud = RealCloud::start().await?;
    for vpc in ["blue", "green"] {
        cloud.rest.post("/vpcs", &json!({"name": vpc, "cidr": "10.42.0.0/16"})).await?.expect(201)?;
    }
    for (name, vpc) in [("web-01", "blue"), ("db-01", "blue"), ("stranger", "green")] {
        cloud.launch(name, json!({"vpc": vpc, "user_data": LOOK})).await?;
    }
    for name in ["web-01", "db-01", "stranger"] {
        cloud.becomes(name, "RUNNING").await?;
    }
    let ip = |instance: serde_json::Value| instance["ports"][0]["ip"].clone();
    let first = ip(cloud.rest.get("/instances/web-01").await?.expect(200)?);
    assert_eq!(first, ip(cloud.rest.get("/instances/stranger").await?.expect(200)?), "equal addresses, different VPCs");
    // A line of its own: the first one may stand behind the login prompt.
    let both = ["db-01", "web-01"];
    for (name, sees) in [("web-01", &both[..]), ("db-01", &both), ("stranger", &["stranger"])] {
        cloud_testkit::until(&format!("{name} to see {sees:?}"), BOOT, || async {
            let view = last_view(&cloud.log(name).await?);
            Ok(if view == sees { Ok(()) } else { Err(format!("{view:?}")) })
        })
        .await
        .map_err(|error| cloud.with_logs(error))?;
    }
    for (name, others) in [("web-01", "stranger"), ("db-01", "stranger"), ("stranger", "01")] {
        let log = cloud.log(name).await?;
        let views = || log.lines().filter_map(|l| l.trim().strip_prefix("sees "));
        assert!(views().count() > 0, "{name} says nothing: {log}");
        assert_eq!(views().find(|view| view.contains(others)), None, "{name}");
    }
    for name in ["web-01", "db-01", "stranger"] {
        cloud.delete(name).await?;
    }
    cloud.has(0, 0, 0).await
}
