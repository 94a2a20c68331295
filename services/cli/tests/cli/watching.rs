//! Watching.

use std::{process::Stdio, time::Duration};

use cloud_contracts::v1::{instance::Status as State, watch_instances_response::Change};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};
use tonic::Code;

use crate::support::{Fake, Run, change, instance, status};

/// The first so many lines of its output; then it is ended.
async fn lines(mut run: Run, count: usize) -> Vec<String> {
    let mut child = run.command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    for _ in 0..count {
        let line = timeout(Duration::from_secs(30), out.next_line()).await.expect("no line comes").unwrap();
        lines.push(line.expect("it ends by itself"));
    }
    lines
}

#[tokio::test]
async fn changes_are_lines_of_one_table() {
    let gateway = Fake::start().await;
    gateway.state().watches.push_back(vec![
        Ok(change(Change::Current, Some(instance("a", State::Running)), "")),
        Ok(change(Change::Current, Some(instance("a-long-name", State::Stopped)), "")),
        Ok(change(Change::Synced, None, "1.5")),
        Ok(change(Change::Created, Some(instance("bb", State::Starting)), "1.6")),
        Ok(change(Change::Deleted, Some(instance("a", State::Deleted)), "1.7")),
    ]);
    let lines = lines(Run::on(&gateway, "instance watch"), 5).await;
    let columns: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(columns[0], ["CHANGE", "NAME", "STATUS"]);
    assert_eq!(columns[1], ["CURRENT", "a", "RUNNING"]);
    assert_eq!(columns[2], ["CURRENT", "a-long-name", "STOPPED"]);
    assert_eq!(columns[3], ["CREATED", "bb", "STARTING"]);
    assert_eq!(columns[4], ["DELETED", "a", "DELETED"]);
    let places: Vec<_> =
        ["STATUS", "RUNNING", "STOPPED", "STARTING"].iter().zip(&lines).map(|(t, l)| l.find(t)).collect();
    assert!(places.iter().all(|place| *place == places[0]), "{lines:#?}");
    assert!(gateway.calls("watch")[0].message.contains("resume_token: \"\""));
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_broken() {
    let gateway = Fake::start().await;
    gateway.state().watches.extend([
        vec![
            Ok(change(Change::Synced, None, "1.5")),
            Ok(change(Change::Created, Some(instance("a", State::Starting)), "1.6")),
            Err(status(Code::Unavailable, "the server is shutting down")),
        ],
        vec![
            Ok(change(Change::Updated, Some(instance("a", State::Running)), "1.7")),
            Err(status(Code::Aborted, "too slow")),
        ],
        vec![Err(status(Code::OutOfRange, "purged"))],
        vec![
            Ok(change(Change::Current, Some(instance("a", State::Stopped)), "")),
            Ok(change(Change::Synced, None, "1.9")),
        ],
    ]);
    let lines = lines(Run::on(&gateway, "instance watch a -o json"), 5).await;
    let told: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = told
        .iter()
        .map(|t| (t["change"].as_str().unwrap(), t["instance"]["status"].as_str(), t["resume_token"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("SYNCED", None, "1.5"),
            ("CREATED", Some("STARTING"), "1.6"),
            ("UPDATED", Some("RUNNING"), "1.7"),
            ("CURRENT", Some("STOPPED"), ""),
            ("SYNCED", None, "1.9")
        ]
    );
    let tokens: Vec<_> = gateway.calls("watch").into_iter().map(|call| call.message).collect();
    for (message, token) in tokens.iter().zip(["", "1.6", "1.7", ""]) {
        assert!(message.contains(&format!("resume_token: {token:?}")) && message.contains("id: \"a\""), "{message}");
    }
}

#[tokio::test]
async fn a_refusal_ends_it() {
    let gateway = Fake::start().await;
    gateway.state().watches.push_back(vec![
        Ok(change(Change::Synced, None, "1.5")),
        Err(status(Code::Unauthenticated, "this API key has ended")),
    ]);
    let ended = Run::on(&gateway, "instance watch").end().await.with(5);
    assert!(ended.stderr.contains("this API key has ended"), "{}", ended.stderr);
    gateway.fail("watch", status(Code::OutOfRange, "the resume token is of epoch 2"));
    let ended = Run::on(&gateway, "instance watch --resume-token 2.5 -o json");
    let lines = lines(ended, 0).await;
    assert!(lines.is_empty());
}
