//! Waits until a resource is what it shall become, by watching it.
//!
//! A gateway that is away for a moment (restarted, say) ends no wait: what was asked is written down there and goes on.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::{
    connect::Cloud,
    error::Error,
    following::Following,
    progress::Line,
    resources::{
        Fetch, Watched,
        follow::{Begin, Follow},
    },
};

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

/// Watches `seen` until `goal`, or `deadline`. Answers with what was seen last.
pub async fn until<R, J>(
    cloud: &Cloud,
    scope: &<R as Fetch>::Scope,
    seen: R,
    name: &str,
    goal: Goal<J>,
    (timeout, deadline): (Duration, Instant),
    line: &Line,
) -> Result<R, Error>
where
    R: Watched + Follow<Of = <R as Fetch>::Scope>,
    J: Fn(&R) -> Verdict,
{
    let subject = format!("{} {name}", R::KIND);
    let begin = Begin { id: seen.id().to_owned(), ..Begin::default() };
    let mut following = Following::<R>::new(cloud, scope.clone(), begin);
    let mut seen = seen;
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
        let away = |_| line.status("the gateway does not answer; trying again");
        match timeout_at(deadline, following.next(away)).await {
            Err(_) => {
                let (status, reason) = (seen.status_name(), seen.status_reason().to_owned());
                return Err(Error::Late { subject, status, reason, waited: timeout });
            }
            Ok(Ok(told)) => seen = told.item.unwrap_or(seen),
            Ok(Err(status)) if status.code() == Code::NotFound && goal.or_gone => return Ok(seen),
            Ok(Err(status)) => return Err(Error::refused(subject)(status)),
        }
    }
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
