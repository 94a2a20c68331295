//! Lists and their pages.

use cloud_contracts::v1::{Event, instance::Status as State};

use crate::support::{Fake, Run, instance};

async fn with_instances(count: usize) -> Fake {
    let gateway = Fake::start().await;
    gateway.state().listed = (0..count).map(|n| instance(&format!("i-{n}"), State::Running)).collect();
    gateway
}

#[tokio::test]
async fn all_pages_are_fetched() {
    let gateway = with_instances(450).await;
    let ended = Run::on(&gateway, "instance ls -o json").end().await.with(0);
    let list = ended.json();
    assert_eq!(list["instances"].as_array().unwrap().len(), 450);
    assert_eq!(list["instances"][449]["name"], "i-449");
    assert_eq!(list["next_page_token"], "");
    assert_eq!(gateway.calls("list").len(), 3);
}

#[tokio::test]
async fn a_limit_leaves_the_token_of_the_rest() {
    let gateway = with_instances(450).await;
    let ended = Run::on(&gateway, "instance ls --limit 210 -o json").end().await.with(0);
    assert_eq!(ended.json()["instances"].as_array().unwrap().len(), 210);
    let token = ended.json()["next_page_token"].as_str().unwrap().to_owned();
    let rest = Run::on(&gateway, &format!("instance ls --page-token {token} -o json")).end().await.with(0);
    assert_eq!(rest.json()["instances"][0]["name"], "i-210");
    assert_eq!(rest.json()["instances"].as_array().unwrap().len(), 240);
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let gateway = with_instances(0).await;
    let ended = Run::on(&gateway, "instance ls").end().await.with(0);
    assert_eq!(ended.stdout, "NAME  STATUS  TYPE  IP  IMAGE  HOST  AGE  ID\n");
    let ended = Run::on(&gateway, "instance ls --show-deleted -o json").end().await.with(0);
    assert_eq!(ended.json(), serde_json::json!({"instances": [], "next_page_token": ""}));
    assert!(gateway.calls("list")[1].message.contains("show_deleted: true"));
}

#[tokio::test]
async fn events_are_asked_for_by_resource() {
    let gateway = Fake::start().await;
    gateway.state().events = vec![Event { action: "instance.launch".into(), ..Default::default() }];
    let ended = Run::on(&gateway, "event ls --kind instance --resource abc").end().await.with(0);
    assert!(ended.stdout.contains("instance.launch"), "{}", ended.stdout);
    let message = &gateway.calls("list_events")[0].message;
    assert!(message.contains("kind: \"instance\"") && message.contains("resource_id: \"abc\""), "{message}");
}
