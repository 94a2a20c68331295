//! Waits until a resource is what it shall become, by looking at it again and again.
//!
//! A gateway that is away for a moment (restarted, say) ends no wait: what was asked is written down there and goes on.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Status};

use crate::{connect::Cloud, error::Error, progress::Line, resources::Watched};

/// The first pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a look at the resource says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was wanted.
    Done,
    /// It may become so.
    Pending,
    /// It will not become so by itself.
    Never,
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Goal<J> {
    /// Its name, for messages.
    pub wanted: &'static str,
    /// Whether a resource that cannot be found any more is what was wanted.
    pub or_gone: bool,
    /// Judges a look.
    pub judge: J,
}

/// Looks at `seen` again until `goal`, or `deadline`. Answers with the last look.
pub async fn until<R, J>(
    cloud: &Cloud,
    scope: &R::Scope,
    seen: R,
    name: &str,
    goal: Goal<J>,
    (timeout, deadline): (Duration, Instant),
    line: &Line,
) -> Result<R, Error>
where
    R: Watched,
    J: Fn(&R) -> Verdict,
{
    let subject = format!("{} {name}", R::KIND);
    let id = seen.id().to_owned();
    let mut seen = seen;
    let mut pause = FIRST_PAUSE;
    loop {
        line.status(&seen.status_name());
        match (goal.judge)(&seen) {
            Verdict::Done => return Ok(seen),
            Verdict::Never => {
                let (status, reason) = (seen.status_name(), seen.status_reason().to_owned());
                return Err(Error::Failed { subject, status, wanted: goal.wanted, reason });
            }
            Verdict::Pending => {}
        }
        let late = |seen: &R| Error::Late {
            subject: subject.clone(),
            status: seen.status_name(),
            reason: seen.status_reason().to_owned(),
            waited: timeout,
        };
        let next = Instant::now() + pause;
        if next >= deadline {
            sleep_until(deadline).await;
            return Err(late(&seen));
        }
        sleep_until(next).await;
        pause = (pause * 5 / 4).min(LONGEST_PAUSE);
        match timeout_at(deadline, R::fetch(cloud, scope, &id)).await {
            Err(_) => return Err(late(&seen)),
            Ok(Ok(now)) => seen = now,
            Ok(Err(status)) if status.code() == Code::NotFound && goal.or_gone => return Ok(seen),
            Ok(Err(status)) if is_passing(&status) => line.status("the gateway does not answer; trying again"),
            Ok(Err(status)) => return Err(Error::refused(subject)(status)),
        }
    }
}

/// Whether it may go well the next time.
fn is_passing(status: &Status) -> bool {
    // A connection that broke under a call is UNKNOWN or CANCELLED with tonic, depending on how far the call was.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
}

/// A goal that is over as soon as the resource is in ERROR.
pub fn goal<R: Watched>(wanted: &'static str, judge: impl Fn(&R) -> Verdict) -> Goal<impl Fn(&R) -> Verdict> {
    let judge = move |seen: &R| if seen.is_error() { Verdict::Never } else { judge(seen) };
    Goal { wanted, or_gone: false, judge }
}

/// The goal of a deletion.
pub fn deleted<R: Watched>() -> Goal<impl Fn(&R) -> Verdict> {
    let judge = |seen: &R| if seen.is_deleted() { Verdict::Done } else { Verdict::Pending };
    Goal { wanted: "DELETED", or_gone: true, judge }
}
