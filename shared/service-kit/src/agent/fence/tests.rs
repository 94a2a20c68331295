use std::sync::Arc;

use tonic::Code;

use super::*;

struct Setup {
    fence: Arc<Fence>,
    cloud: CloudId,
    session: SessionId,
    registered: watch::Sender<Option<CloudId>>,
}

fn setup() -> Setup {
    let (cloud, session) = (CloudId::random(), SessionId::random());
    let (registered, seen) = watch::channel(Some(cloud));
    Setup { fence: Arc::new(Fence::new(session, seen)), cloud, session, registered }
}

impl Setup {
    fn call(&self, epoch: u64, version: u64) -> CallContext {
        CallContext {
            cloud_id: self.cloud.to_string(),
            session_id: self.session.to_string(),
            epoch,
            version,
            incarnation: String::new(),
        }
    }
}

fn refused(result: Result<Caller, ServiceError>) -> (Code, String) {
    let error = result.unwrap_err();
    (error.code, error.reason.to_string())
}

#[test]
fn each_refusal_has_its_reason() {
    let setup = setup();
    let id = Uuid::new_v4();
    let fence = &setup.fence;
    assert_eq!(refused(fence.check(None, &id)).0, Code::InvalidArgument);
    let foreign = CallContext { cloud_id: CloudId::random().to_string(), ..setup.call(1, 1) };
    assert_eq!(refused(fence.check(Some(&foreign), &id)), (Code::FailedPrecondition, "WRONG_CLOUD".into()));
    for session in [SessionId::random().to_string(), String::new()] {
        let other = CallContext { session_id: session, ..setup.call(1, 1) };
        assert_eq!(refused(fence.check(Some(&other), &id)), (Code::FailedPrecondition, "WRONG_SESSION".into()));
    }
    let odd = CallContext { incarnation: "x".into(), ..setup.call(1, 1) };
    assert_eq!(refused(fence.check(Some(&odd), &id)).0, Code::InvalidArgument);
    setup.registered.send_replace(None);
    let early = fence.check(Some(&setup.call(1, 1)), &id);
    assert_eq!(refused(early), (Code::Unavailable, "NOT_REGISTERED".into()));
}

#[test]
fn older_calls_are_stale_for_their_resource_only_and_after_removal_too() {
    let setup = setup();
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    let check = |id, epoch, version| setup.fence.check(Some(&setup.call(epoch, version)), id);
    assert_eq!(check(&id, 1, 5).unwrap().version, 5);
    check(&id, 1, 5).unwrap();
    assert_eq!(refused(check(&id, 1, 4)), (Code::FailedPrecondition, "STALE_CALL".into()));
    check(&other, 1, 4).unwrap();
    setup.fence.removed(&id);
    assert_eq!(refused(check(&id, 1, 4)).1, "STALE_CALL");
    check(&id, 2, 1).unwrap();
    assert_eq!(refused(check(&id, 1, 100)).1, "STALE_CALL");
}

#[test]
fn a_refused_call_leaves_no_trace() {
    let setup = setup();
    let id = Uuid::new_v4();
    let foreign = CallContext { cloud_id: CloudId::random().to_string(), ..setup.call(9, 9) };
    setup.fence.check(Some(&foreign), &id).unwrap_err();
    setup.fence.check(Some(&setup.call(1, 1)), &id).unwrap();
}

#[tokio::test]
async fn an_old_call_that_waits_its_turn_is_stale_when_the_newer_one_ends() {
    let setup = setup();
    let id = Uuid::new_v4();
    let newer = setup.fence.admit(Some(&setup.call(1, 2)), &id).await.unwrap();
    let (fence, call) = (setup.fence.clone(), setup.call(1, 1));
    let older = tokio::spawn(async move { fence.admit(Some(&call), &id).await.map(|a| *a) });
    // Another resource does not wait.
    setup.fence.admit(Some(&setup.call(1, 1)), &Uuid::new_v4()).await.unwrap();
    assert!(!older.is_finished());
    drop(newer);
    assert_eq!(refused(older.await.unwrap()).1, "STALE_CALL");
}

#[tokio::test]
async fn turns_of_calls_that_ended_are_swept() {
    let setup = setup();
    for _ in 0..10_000 {
        setup.fence.admit(Some(&setup.call(1, 1)), &Uuid::new_v4()).await.unwrap();
    }
    assert!(lock(&setup.fence.turns).len() < 1000);
}
