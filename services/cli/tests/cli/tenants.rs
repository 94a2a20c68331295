//! Projects, API keys and quotas.

use tonic::Code;

use crate::support::{Fake, Run, status};

#[tokio::test]
async fn a_secret_is_alone_on_stdout_and_in_json_beside_its_key() {
    let gateway = Fake::start().await;
    let ended = Run::on(&gateway, "api-key create ci --role admin --project blue").end().await.with(0);
    assert_eq!(ended.stdout, "tck_one\n");
    assert!(
        ended.stderr.contains("ci (ADMIN) of project blue") && ended.stderr.contains("this once"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("tck_one"), "{}", ended.stderr);
    let call = &gateway.calls("create_api_key")[0];
    assert_eq!(call.project, "blue");
    assert!(call.message.contains("role: Admin") && call.message.contains("expires_at: None"), "{}", call.message);
    let ended = Run::on(&gateway, "api-key create ci --role viewer --expires 90d -o json").end().await.with(0);
    assert_eq!((&ended.json()["secret"], &ended.json()["api_key"]["name"]), (&"tck_one".into(), &"ci".into()));
    assert!(gateway.calls("create_api_key")[1].message.contains("expires_at: Some"));
}

#[tokio::test]
async fn a_key_is_rotated_with_an_overlap_and_revoked() {
    let gateway = Fake::start().await;
    let ended = Run::on(&gateway, "api-key rotate ci --overlap 12h").end().await.with(0);
    assert_eq!(ended.stdout, "tck_two\n");
    assert!(ended.stderr.contains("720 min"), "{}", ended.stderr);
    assert!(gateway.calls("rotate_api_key")[0].message.contains("overlap_seconds: 43200"));
    let ended = Run::on(&gateway, "api-key rotate ci").end().await.with(0);
    assert!(!ended.stderr.contains("old secret"), "{}", ended.stderr);
    Run::on(&gateway, "api-key revoke ci cd").end().await.with(0);
    assert_eq!(gateway.calls("revoke_api_key").len(), 2);
    gateway.fail("revoke_api_key", status(Code::FailedPrecondition, "it is the last operator's key"));
    Run::on(&gateway, "api-key revoke admin").end().await.with(4);
}

#[tokio::test]
async fn projects_and_quotas() {
    let gateway = Fake::start().await;
    let ended = Run::on(&gateway, "project create blue --label a=b -o json").end().await.with(0);
    assert_eq!((&ended.json()["name"], &ended.json()["labels"]["a"]), (&"blue".into(), &"b".into()));
    Run::on(&gateway, "project rm blue").end().await.with(0);
    let ended = Run::on(&gateway, "quota show blue").end().await.with(0);
    assert!(ended.stdout.contains("3/10") && ended.stdout.contains("0/none"), "{}", ended.stdout);
    Run::on(&gateway, "quota set blue instances=20 vcpus=none").end().await.with(0);
    let message = &gateway.calls("update_quota")[0].message;
    assert!(message.contains("\"instances\": 20") && message.contains("\"vcpus\": 9223372036854775807"), "{message}");
}
