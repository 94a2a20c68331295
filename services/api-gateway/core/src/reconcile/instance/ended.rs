//! A guest that ended without having been asked to: what the instance's restart policy makes of it.

use std::time::Duration;

use cloud_domain::InstanceStatus;

use crate::{
    model::{Desired, Instance, RestartPolicy, Timestamp},
    ports::{Guest, GuestReason},
};

/// A guest that ran at least this long did not end quickly: what comes after it begins anew.
const LASTED: Duration = Duration::from_secs(60);
/// The wait before the second start in a row, doubled for each that follows, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Whether the policy starts a guest again that ended so.
pub(super) fn restarts(policy: RestartPolicy, reason: GuestReason) -> bool {
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure => reason == GuestReason::Crashed,
        RestartPolicy::Always => {
            matches!(reason, GuestReason::Crashed | GuestReason::GuestShutdown | GuestReason::Destroyed)
        }
    }
}

/// Writes into the row that its guest ended: it is STOPPED, for good or until it is started again.
pub(super) fn note(row: &mut Instance, guest: &Guest, why: &str, now: Timestamp) {
    let began = guest.started_at.or(row.started_at);
    row.started_at = None;
    row.restart_at = None;
    why.clone_into(&mut row.status_reason);
    if !restarts(row.restart_policy, guest.reason) {
        row.desired = Desired::Stopped;
        row.quick_ends = 0;
        return;
    }
    let quick = began.is_some_and(|at| now.since(at) < LASTED);
    row.quick_ends = if quick { row.quick_ends.saturating_add(1) } else { 0 };
    let wait = wait(row.quick_ends);
    row.restart_at = Some(now.plus(wait));
    if !wait.is_zero() {
        row.status_reason =
            format!("{why}, {} times in a row: it is started again after {} s", row.quick_ends, wait.as_secs());
    }
}

/// How long to wait before a guest is started that ended quickly so often.
fn wait(quick_ends: u32) -> Duration {
    let (first, longest) = BACKOFF;
    match quick_ends.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => first.saturating_mul(1 << doublings.min(16)).min(longest),
    }
}

/// How long until the instance is started again, where it waits for that.
pub(super) fn remaining(row: &Instance, now: Timestamp) -> Option<Duration> {
    let waits = row.status == InstanceStatus::Stopped && row.desired == Desired::Running;
    row.restart_at.filter(|_| waits).map(|at| at.since(now))
}

/// How its guest ended, of an instance that waits to be started again.
pub(super) fn why(row: &Instance) -> &str {
    row.status_reason.split(": ").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_takes_its_ends() {
        use GuestReason::{Crashed, Destroyed, GuestShutdown};
        use RestartPolicy::{Always, Never, OnFailure};
        let all = [Crashed, GuestShutdown, Destroyed];
        assert_eq!(all.map(|end| restarts(Never, end)), [false, false, false]);
        assert_eq!(all.map(|end| restarts(OnFailure, end)), [true, false, false]);
        assert_eq!(all.map(|end| restarts(Always, end)), [true, true, true]);
    }

    #[test]
    fn waits_grow_and_are_bounded() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 4, 10, 11, 1000].into_iter().map(|ends| wait(ends).as_secs()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 256, 300, 300]);
    }
}
