//! VPCs, subnets and addresses.

use std::collections::BTreeSet;

use cloud_tests::{TestCloud, cloud::IMAGE};
use serde_json::json;

use crate::support::{names, refused, refused_field, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_vpc_comes_with_a_subnet() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let vpc = cloud.rest.post("/vpcs", &json!({"name": "blue", "cidr": "10.42.0.0/16"})).await?.expect(201)?;
    assert_eq!((text(&vpc, "name"), text(&vpc, "cidr")), ("blue".into(), "10.42.0.0/16".into()));
    let subnets = cloud.rest.get("/vpcs/blue/subnets").await?.expect(200)?;
    assert_eq!(names(&subnets, "subnets"), ["default"]);
    assert_eq!(text(&subnets["subnets"][0], "cidr"), "10.42.0.0/24");
    assert_eq!(text(&subnets["subnets"][0], "gateway"), "10.42.0.1");
    let by_default = cloud.rest.post("/vpcs", &json!({"name": "plain"})).await?.expect(201)?;
    assert_eq!(text(&by_default, "cidr"), "10.0.0.0/16");
    refused(&cloud.rest.post("/vpcs", &json!({"name": "blue"})).await?, 409, "ALREADY_EXISTS");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ranges_are_refused_by_name() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    for cidr in ["10.0.0.0", "10.0.0.1/16", "8.8.8.0/24", "10.0.0.0/7", "10.0.0.0/30", "x", "::/0", "10.0.0.0/-1"] {
        refused_field(&cloud.rest.post("/vpcs", &json!({"name": "blue", "cidr": cidr})).await?, "cidr");
    }
    cloud.rest.post("/vpcs", &json!({"name": "blue", "cidr": "10.42.0.0/16"})).await?.expect(201)?;
    for (cidr, ok) in
        [("10.43.0.0/24", false), ("10.42.0.128/25", false), ("10.42.1.0/24", true), ("10.42.1.0/25", false)]
    {
        let body = json!({"name": format!("s-{}", cidr.replace(['.', '/'], "-")), "cidr": cidr});
        let answer = cloud.rest.post("/vpcs/blue/subnets", &body).await?;
        if ok {
            answer.expect(201)?;
        } else {
            refused_field(&answer, "cidr");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_vpcs_may_have_equal_addresses() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    let mut vnis = BTreeSet::new();
    for name in ["blue", "green"] {
        let vpc = cloud.rest.post("/vpcs", &json!({"name": name, "cidr": "10.42.0.0/16"})).await?.expect(201)?;
        vnis.insert(vpc["vni"].as_u64());
        cloud.launch_as(&json!({"name": format!("in-{name}"), "image": IMAGE, "vpc": name})).await?;
        let running = cloud.becomes(&format!("in-{name}"), "RUNNING").await?;
        assert_eq!(text(&running["ports"][0], "ip"), "10.42.0.2");
        assert_eq!(text(&running["ports"][0], "vpc"), name);
    }
    assert_eq!(vnis.len(), 2);
    assert_eq!(cloud.host().snapshot().vpcs.len(), 2);
    cloud.settles(2, 2, 2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subnet_refuses_and_a_freed_address_is_given_again() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.rest.post("/vpcs", &json!({"name": "small", "cidr": "10.9.0.0/29"})).await?.expect(201)?;
    let launch = |number: u32| json!({"name": format!("i-{number}"), "image": IMAGE, "vpc": "small"});
    let mut ips = BTreeSet::new();
    for number in 0..5 {
        let accepted = cloud.launch_as(&launch(number)).await?;
        ips.insert(text(&accepted["ports"][0], "ip"));
    }
    assert_eq!(ips.len(), 5, "{ips:?}");
    refused(&cloud.rest.post("/instances", &launch(5)).await?, 429, "RESOURCE_EXHAUSTED");
    cloud.becomes("i-3", "RUNNING").await?;
    let freed = text(&cloud.instance("i-3").await?["ports"][0], "ip");
    cloud.delete("i-3").await?;
    let again = cloud.launch_as(&launch(6)).await?;
    assert_eq!(text(&again["ports"][0], "ip"), freed);
    cloud.becomes("i-6", "RUNNING").await?;
    cloud.settles(5, 5, 5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_not_deleted() -> anyhow::Result<()> {
    let cloud = TestCloud::start().await?;
    cloud.rest.post("/vpcs", &json!({"name": "blue"})).await?.expect(201)?;
    cloud.launch_as(&json!({"name": "web-01", "image": IMAGE, "vpc": "blue"})).await?;
    cloud.becomes("web-01", "RUNNING").await?;
    refused(&cloud.rest.delete("/vpcs/blue").await?, 400, "FAILED_PRECONDITION");
    refused(&cloud.rest.delete("/vpcs/blue/subnets/default").await?, 400, "FAILED_PRECONDITION");
    let ports = cloud.rest.get("/ports").await?.expect(200)?;
    assert_eq!(text(&ports["ports"][0], "instance"), "web-01");
    cloud.delete("web-01").await?;
    cloud.is_clean().await?;
    cloud.rest.delete("/vpcs/blue").await?.expect(200)?;
    refused(&cloud.rest.get("/vpcs/blue").await?, 404, "NOT_FOUND");
    refused(&cloud.rest.delete("/vpcs/default").await?, 400, "FAILED_PRECONDITION");
    Ok(())
}
