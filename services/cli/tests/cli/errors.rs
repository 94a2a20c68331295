//! Refusals: words and exit codes.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::support::{Fake, Run, status};

#[tokio::test]
async fn exit_codes_follow_the_status() {
    let gateway = Fake::start().await;
    for (code, exit) in [
        (Code::InvalidArgument, 2),
        (Code::NotFound, 3),
        (Code::AlreadyExists, 4),
        (Code::FailedPrecondition, 4),
        (Code::Aborted, 4),
        (Code::Unauthenticated, 5),
        (Code::PermissionDenied, 5),
        (Code::Unavailable, 6),
        (Code::DeadlineExceeded, 7),
        (Code::Internal, 1),
        (Code::ResourceExhausted, 1),
        (Code::Unimplemented, 1),
    ] {
        gateway.fail("get", status(code, "as it is"));
        let ended = Run::on(&gateway, "instance show a").end().await.with(exit);
        assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("as it is"), "{}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_option() {
    let gateway = Fake::start().await;
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("name", "must start with a letter, is `1st`");
    details.add_bad_request_violation("root_disk_gib", "must be at most 65536, is 99999");
    gateway.fail("launch", Status::with_error_details(Code::InvalidArgument, "the request has 2 errors", details));
    let ended = Run::on(&gateway, "instance launch 1st --image tiny --root-disk 99999").end().await.with(2);
    assert_eq!(
        ended.stderr,
        "error: instance 1st: the request has 2 errors\n  --name: must start with a letter, is `1st`\n  \
         --root-disk: must be at most 65536, is 99999\n"
    );
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told() {
    let gateway = Fake::start().await;
    let ended = Run::on(&gateway, "volume ls").end().await.with(1);
    assert!(ended.stderr.contains("does not offer it"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_command_line_is_checked_before_anything_is_sent() {
    let gateway = Fake::start().await;
    Run::on(&gateway, "instance launch --image tiny").end().await.with(2);
    Run::on(&gateway, "instance frobnicate").end().await.with(2);
    let ended = Run::on(&gateway, "instance launch a --image tiny --ssh-key @nowhere.pub").end().await.with(2);
    assert!(ended.stderr.contains("cannot read nowhere.pub"), "{}", ended.stderr);
    assert!(gateway.state().calls.is_empty());
}
