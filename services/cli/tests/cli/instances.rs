//! Launching, changing and waiting.

use std::time::Instant;

use cloud_contracts::v1::{Instance, instance::Status as State};
use tonic::Code;

use crate::support::{Fake, Run, instance, status};

fn wanting(desired: State, seen: Instance) -> Instance {
    Instance { desired_status: desired.into(), ..seen }
}

#[tokio::test]
async fn launch_answers_while_it_starts() {
    let gateway = Fake::start().await;
    gateway.script([instance("db-01", State::Starting)]);
    let ended = Run::on(&gateway, "instance launch --name db-01 --image tiny").end().await.with(0);
    assert!(ended.stdout.starts_with("NAME   STATUS    TYPE "), "{}", ended.stdout);
    assert!(ended.stdout.contains("\ndb-01  STARTING  small"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "");
    assert!(gateway.calls("watch").is_empty(), "nothing was to be waited for");
}

#[tokio::test]
async fn launch_sends_what_was_asked() {
    let gateway = Fake::start().await;
    gateway.script([instance("db-01", State::Starting)]);
    let line = "--project blue instance launch db-01 --image tiny --type large --vpc v --subnet s --volume a --volume b \
                --ssh-key ssh-x --label tier=db --root-disk 20 --user-data @data";
    let run = Run::on(&gateway, line);
    std::fs::write(run.home.path().join("data"), "#!/bin/sh\n").unwrap();
    run.end().await.with(0);
    let calls = gateway.calls("launch");
    assert_eq!((calls.len(), &*calls[0].authorization, &*calls[0].project), (1, "Bearer the-key", "blue"));
    insta::assert_snapshot!(calls[0].message);
}

#[tokio::test]
async fn launch_waits_until_it_runs() {
    let gateway = Fake::start().await;
    let starting = || instance("db-01", State::Starting);
    gateway.script([starting(), starting(), starting(), instance("db-01", State::Running)]);
    let ended = Run::on(&gateway, "instance launch db-01 --image tiny --wait -o json").end().await.with(0);
    assert_eq!(ended.json()["status"], "RUNNING");
    assert_eq!(ended.stderr, "instance db-01: STARTING\ninstance db-01: RUNNING\n");
    assert_eq!(gateway.calls("watch").len(), 1, "it is told, and does not ask");
    assert!(gateway.calls("get").is_empty());
}

#[tokio::test]
async fn launch_ends_with_the_reason_of_an_error() {
    let gateway = Fake::start().await;
    let failed = Instance { status_reason: "the image is damaged".into(), ..instance("db-01", State::Error) };
    gateway.script([instance("db-01", State::Starting), failed]);
    let ended = Run::on(&gateway, "instance launch db-01 --image tiny --wait").end().await.with(1);
    assert_eq!(ended.stdout, "");
    assert!(
        ended.stderr.ends_with("error: instance db-01 is ERROR, not RUNNING: the image is damaged\n"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn launch_gives_up_after_its_timeout() {
    let gateway = Fake::start().await;
    gateway.script([instance("db-01", State::Starting)]);
    let begun = Instant::now();
    let ended = Run::on(&gateway, "instance launch db-01 --image tiny --wait --timeout 700ms").end().await.with(7);
    assert!(begun.elapsed().as_millis() >= 700);
    assert!(ended.stderr.contains("instance db-01 is still STARTING after 700 ms"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_wait_outlives_a_gateway_that_is_away() {
    let gateway = Fake::start().await;
    gateway.script([instance("db-01", State::Starting), instance("db-01", State::Running)]);
    gateway.fail("watch", status(Code::Unavailable, "restarting"));
    gateway.fail("watch", status(Code::Unknown, "transport error"));
    Run::on(&gateway, "instance launch db-01 --image tiny --wait").end().await.with(0);
    assert_eq!(gateway.calls("watch").len(), 3);
}

#[tokio::test]
async fn a_wait_ends_when_it_cannot_come_true() {
    for (seen, desired) in [(State::Deleting, State::Deleted), (State::Stopped, State::Stopped)] {
        let gateway = Fake::start().await;
        gateway.script([instance("db-01", State::Starting), wanting(desired, instance("db-01", seen))]);
        let ended = Run::on(&gateway, "instance start db-01 --wait").end().await.with(1);
        assert!(ended.stderr.contains("not RUNNING"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn stop_takes_several_and_tells_of_each() {
    let gateway = Fake::start().await;
    gateway.script([instance("a", State::Stopped)]);
    gateway.script([instance("ccc", State::Stopped)]);
    let ended = Run::on(&gateway, "instance stop a bb ccc a").end().await.with(3);
    let names: Vec<&str> = ended.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "a", "ccc"]);
    assert!(ended.stderr.starts_with("error: instance `bb` not found\n"), "{}", ended.stderr);
    assert_eq!(gateway.calls("stop").len(), 3, "a name given twice is one name");
}

#[tokio::test]
async fn of_several_failures_the_first_gives_the_code() {
    let gateway = Fake::start().await;
    gateway.script([instance("a", State::Stopped)]);
    let ended = Run::on(&gateway, "instance show x a yy").end().await.with(3);
    assert!(ended.stderr.contains("`x` not found") && ended.stderr.contains("`yy` not found"), "{}", ended.stderr);
    assert!(ended.stdout.starts_with("Name:"), "{}", ended.stdout);
}

#[tokio::test]
async fn stop_that_takes_too_long_is_a_timeout_or_waits_on() {
    let gateway = Fake::start().await;
    let stopping = || wanting(State::Stopped, instance("a", State::Stopping));
    let late = || status(Code::DeadlineExceeded, "instance `a` is still STOPPING");
    gateway.script([stopping()]);
    gateway.fail("stop", late());
    let ended = Run::on(&gateway, "instance stop a").end().await.with(7);
    assert!(ended.stderr.contains("--wait"), "{}", ended.stderr);

    gateway.script([stopping(), stopping(), wanting(State::Stopped, instance("a", State::Stopped))]);
    gateway.fail("stop", late());
    let ended = Run::on(&gateway, "instance stop a --wait").end().await.with(0);
    assert_eq!(ended.stderr, "instance a: STOPPING\ninstance a: STOPPED\n");
}

#[tokio::test]
async fn rm_waits_until_it_is_gone() {
    let gateway = Fake::start().await;
    let deleting = || instance("a", State::Deleting);
    gateway.script([deleting(), deleting(), instance("a", State::Deleted)]);
    let ended = Run::on(&gateway, "instance rm a --wait").end().await.with(0);
    assert!(ended.stdout.contains("DELETED"), "{}", ended.stdout);

    gateway.script([deleting()]);
    gateway.fail("watch", status(Code::NotFound, "instance `a` not found"));
    Run::on(&gateway, "instance rm a --wait").end().await.with(0);
}

#[tokio::test]
async fn reboot_waits_for_the_next_version() {
    let gateway = Fake::start().await;
    let version = |etag: &str| Instance { etag: etag.into(), ..instance("a", State::Running) };
    gateway.script([version("2"), version("2"), version("2"), version("3")]);
    let ended = Run::on(&gateway, "instance reboot a --wait -o json").end().await.with(0);
    assert_eq!(ended.json()["etag"], "3");
    assert_eq!(gateway.calls("watch").len(), 1);
}

#[tokio::test]
async fn several_documents_are_one_stream() {
    let gateway = Fake::start().await;
    gateway.script([instance("a", State::Running)]);
    gateway.script([instance("bb", State::Stopped)]);
    let json = Run::on(&gateway, "instance show a bb -o json").end().await.with(0);
    let names: Vec<String> = serde_json::Deserializer::from_str(&json.stdout)
        .into_iter::<serde_json::Value>()
        .map(|document| document.unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["a", "bb"]);
    let yaml = Run::on(&gateway, "instance show a bb -o yaml").end().await.with(0);
    assert_eq!(yaml.stdout.matches("\n---\n").count(), 1);
}

#[tokio::test]
async fn url_is_the_url_alone() {
    let gateway = Fake::start().await;
    let ended = Run::on(&gateway, "instance url a").end().await.with(0);
    assert_eq!(ended.stdout, "http://127.0.0.1:1/console?token=t\n");
    let ended = Run::on(&gateway, "instance url a -o json").end().await.with(0);
    assert_eq!(ended.json()["expires_at"], "2027-01-15T08:00:00Z");
}
