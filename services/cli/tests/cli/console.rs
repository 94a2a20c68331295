//! The serial console, piped and on a terminal, and its log.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::termios::{LocalModes, tcgetattr};
use tokio::{io::AsyncReadExt, time::timeout};
use tonic::Code;

use crate::support::{Fake, Run, status, terminal};

const PATIENCE: Duration = Duration::from_secs(30);

async fn guest() -> Fake {
    let gateway = Fake::start().await;
    gateway.state().console_greeting = b"login: ".to_vec();
    gateway.state().console_echoes = true;
    gateway
}

#[tokio::test]
async fn a_script_talks_to_the_guest() {
    let gateway = guest().await;
    // 0x1d is only a byte here.
    let ended = Run::on(&gateway, "instance console a --drain 3s").input(b"root\n\x1d\0").end().await.with(0);
    assert_eq!(ended.stdout, "login: ROOT\n\u{1d}\0");
    assert_eq!(ended.stderr, "");
}

#[tokio::test]
async fn much_input_goes_through_whole() {
    let gateway = guest().await;
    let typed = "abcdefgh\n".repeat(20_000);
    let ended = Run::on(&gateway, "instance console a --drain 3s").input(typed.as_bytes()).end().await.with(0);
    assert!(ended.stdout == format!("login: {}", typed.to_ascii_uppercase()), "{} bytes", ended.stdout.len());
}

#[tokio::test]
async fn the_session_ends_with_the_guest() {
    let gateway = guest().await;
    gateway.state().console_echoes = false;
    let mut run = Run::on(&gateway, "instance console a");
    // stdin stays open: it is not its end that ends the session.
    let child = run.command.stdin(Stdio::piped()).spawn().unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("the session goes on").unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"login: ".as_slice()));
}

#[tokio::test]
async fn a_refusal_has_its_exit_code() {
    let gateway = guest().await;
    gateway.fail("console", status(Code::FailedPrecondition, "instance `a` is STOPPED"));
    let ended = Run::on(&gateway, "instance console a").end().await.with(4);
    assert!(ended.stderr.contains("is STOPPED"), "{}", ended.stderr);
}

/// Waits until the terminal is raw, or no longer.
async fn until_raw(terminal: &OwnedFd, raw: bool) {
    let begun = Instant::now();
    while tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON) == raw {
        assert!(begun.elapsed() < PATIENCE, "the terminal is not as it shall be");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads from the terminal until it has said `text`.
fn read_until(ours: &mut File, text: &str) {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(text) {
        let mut buffer = [0; 256];
        let count = ours.read(&mut buffer).unwrap();
        said.extend_from_slice(&buffer[..count]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_every_key_is_the_guests_but_one() {
    let gateway = guest().await;
    let (mut ours, theirs) = terminal();
    let mut run = Run::on(&gateway, "instance console a");
    run.command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
    let mut child = run.command.spawn().unwrap();
    until_raw(&theirs, true).await;
    let mut ours = tokio::task::spawn_blocking(move || {
        read_until(&mut ours, "login: ");
        // Ctrl-C goes to the guest, which answers with it.
        ours.write_all(b"root\x03x").unwrap();
        read_until(&mut ours, "ROOT\u{3}X");
        ours
    })
    .await
    .unwrap();
    ours.write_all(b"\x1d").unwrap();
    let ended = timeout(PATIENCE, child.wait()).await.expect("Ctrl-] does not leave").unwrap();
    assert_eq!(ended.code(), Some(0));
    until_raw(&theirs, false).await;
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
    assert!(stderr.contains("Ctrl-] leaves") && stderr.contains("Left a."), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_is_restored_when_the_session_breaks() {
    let gateway = guest().await;
    let (_ours, theirs) = terminal();
    let mut run = Run::on(&gateway, "instance console a");
    run.command.stdin(theirs.try_clone().unwrap());
    let mut child = run.command.spawn().unwrap();
    until_raw(&theirs, true).await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = timeout(PATIENCE, child.wait()).await.expect("it does not end").unwrap();
    assert_eq!(ended.code(), Some(1));
    until_raw(&theirs, false).await;
}

#[tokio::test]
async fn the_log_is_printed_as_it_is() {
    let gateway = Fake::start().await;
    gateway.state().logs = ["boot\r\n\u{1b}[1mlogin:".to_owned()].into();
    let ended = Run::on(&gateway, "instance log a --bytes 100").end().await.with(0);
    assert_eq!(ended.stdout, "boot\r\n\u{1b}[1mlogin:");
    assert!(gateway.calls("log")[0].message.contains("max_bytes: 100"));
}

#[tokio::test]
async fn a_log_that_is_followed_shows_what_is_new() {
    let gateway = Fake::start().await;
    gateway.state().logs = ["one\n".to_owned(), "one\ntwo\u{fffd}".to_owned(), "one\ntwoé\nthree\n".to_owned()].into();
    let mut run = Run::on(&gateway, "instance log a --follow");
    let mut child = run.command.stdin(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = vec![0; "one\ntwoé\nthree\n".len()];
    timeout(PATIENCE, stdout.read_exact(&mut seen)).await.expect("nothing new comes").unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), "one\ntwoé\nthree\n");
    child.kill().await.unwrap();
}
