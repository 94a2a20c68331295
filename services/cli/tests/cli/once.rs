//! Changes are made once: each has a request id, and is sent again under it where the gateway was away.

use std::time::{Duration, Instant};

use cloud_contracts::v1::instance::Status as State;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::support::{Fake, Run, instance, status};

async fn with_a() -> Fake {
    let gateway = Fake::start().await;
    gateway.script([instance("a", State::Starting)]);
    gateway
}

fn ids(gateway: &Fake, method: &str) -> Vec<String> {
    gateway.calls(method).into_iter().map(|call| call.once).collect()
}

#[tokio::test]
async fn every_change_has_an_id_of_its_own_and_no_look_has_one() {
    let gateway = with_a().await;
    for command in ["launch a --image tiny", "start a", "stop a", "reboot a", "rm a", "show a", "ls"] {
        Run::on(&gateway, &format!("instance {command}")).end().await.with(0);
    }
    let mut all = Vec::new();
    for method in ["launch", "start", "stop", "reboot", "delete"] {
        let ids = ids(&gateway, method);
        assert_eq!((ids.len(), ids[0].len()), (1, 36), "{method}: {ids:?}");
        all.extend(ids);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
    assert_eq!((ids(&gateway, "get"), ids(&gateway, "list")), (vec![String::new()], vec![String::new()]));
}

#[tokio::test]
async fn a_gateway_that_is_away_for_a_moment_is_asked_again_under_the_same_id() {
    let gateway = with_a().await;
    for _ in 0..2 {
        gateway.fail("launch", status(Code::Unavailable, "restarting"));
    }
    let ended = Run::on(&gateway, "instance launch a --image tiny -o json").end().await.with(0);
    assert_eq!(ended.json()["name"], "a", "{}", ended.stdout);
    let sent = ids(&gateway, "launch");
    assert!(sent.len() == 3 && sent.iter().all(|id| *id == sent[0] && !id.is_empty()), "{sent:?}");
    let messages: Vec<_> = gateway.calls("launch").into_iter().map(|call| call.message).collect();
    assert!(messages.iter().all(|m| *m == messages[0] && m.contains("\"tiny\"")), "{messages:?}");
}

#[tokio::test]
async fn it_waits_as_long_as_the_gateway_says_and_gives_up_in_the_end() {
    let gateway = with_a().await;
    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(700)));
    gateway.fail("start", Status::with_error_details(Code::Unavailable, "busy", details));
    let began = Instant::now();
    Run::on(&gateway, "instance start a").end().await.with(0);
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    for _ in 0..9 {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1)));
        gateway.fail("reboot", Status::with_error_details(Code::Unavailable, "busy", details));
    }
    Run::on(&gateway, "instance reboot a").end().await.with(6);
    assert_eq!(gateway.calls("reboot").len(), 5);
}

#[tokio::test]
async fn what_was_refused_is_not_sent_again() {
    let gateway = with_a().await;
    for (code, exit) in [(Code::AlreadyExists, 4), (Code::DeadlineExceeded, 7), (Code::Internal, 1)] {
        gateway.fail("stop", status(code, "no"));
        Run::on(&gateway, "instance stop a").end().await.with(exit);
    }
    assert_eq!(gateway.calls("stop").len(), 3);
}

#[tokio::test]
async fn an_id_that_was_given_is_sent_and_for_one_change_only() {
    let gateway = with_a().await;
    Run::on(&gateway, "instance start a --request-id mine").end().await.with(0);
    assert_eq!(ids(&gateway, "start"), ["mine"]);
    let ended = Run::on(&gateway, "instance rm a b --request-id mine").end().await.with(2);
    assert!(ended.stderr.contains("--request-id is for one change"), "{}", ended.stderr);
    assert_eq!(ids(&gateway, "delete"), ["mine"]);
    let ended = Run::on(&gateway, "instance ls --request-id mine").end().await.with(0);
    assert!(ended.stderr.contains("--request-id has no effect"), "{}", ended.stderr);
    let long = "x".repeat(65);
    Run::on(&gateway, &format!("instance start a --request-id {long}")).end().await.with(2);
}

#[tokio::test]
async fn lists_are_filtered_and_ordered_by_the_gateway() {
    let gateway = with_a().await;
    Run::on(&gateway, "instance ls --filter status=RUNNING --order-by name").end().await.with(0);
    let message = &gateway.calls("list")[0].message;
    assert!(message.contains("filter: \"status=RUNNING\"") && message.contains("order_by: \"name\""), "{message}");
    Run::on(&gateway, "subnet ls --order-by name").end().await.with(2);
    Run::on(&gateway, "event ls --filter actor=admin").end().await.with(0);
    assert!(gateway.calls("list_events")[0].message.contains("filter: \"actor=admin\""));
}
