//! Subnets and their VPCs.

use cloud_contracts::v1::{Subnet, Vpc};

use crate::support::{Fake, Run};

async fn with_two_vpcs() -> Fake {
    let gateway = Fake::start().await;
    let vpc =
        |id: &str, name: &str, is_default| Vpc { id: id.into(), name: name.into(), is_default, ..Default::default() };
    let subnet = |name: &str, vpc: &str| Subnet { name: name.into(), vpc: vpc.into(), ..Default::default() };
    let mut state = gateway.state();
    state.vpcs = vec![vpc("v1", "blue", false), vpc("v2", "main", true)];
    state.subnets = vec![subnet("one", "blue"), subnet("two", "main"), subnet("three", "main")];
    drop(state);
    gateway
}

#[tokio::test]
async fn subnets_of_all_vpcs_or_of_one() {
    let gateway = with_two_vpcs().await;
    let names = |ended: crate::support::Ended| -> Vec<String> {
        ended.stdout.lines().skip(1).map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(Run::on(&gateway, "subnet ls").end().await.with(0)), ["one", "two", "three"]);
    assert_eq!(names(Run::on(&gateway, "subnet ls --vpc main").end().await.with(0)), ["two", "three"]);
    Run::on(&gateway, "subnet ls --limit 1").end().await.with(2);
}

#[tokio::test]
async fn a_subnet_goes_into_the_default_vpc() {
    let gateway = with_two_vpcs().await;
    let ended = Run::on(&gateway, "subnet create s --cidr 10.0.1.0/24 -o json").end().await.with(0);
    assert_eq!(ended.json()["vpc"], "main");
    let ended = Run::on(&gateway, "subnet create s --cidr 10.0.1.0/24 --vpc blue -o json").end().await.with(0);
    assert_eq!(ended.json()["vpc"], "blue");
    gateway.state().vpcs.clear();
    let ended = Run::on(&gateway, "subnet create s --cidr 10.0.1.0/24").end().await.with(2);
    assert!(ended.stderr.contains("--vpc"), "{}", ended.stderr);
}
