//! A watch that goes on: whatever breaks it, it is begun again where it was.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::{
    connect::{CALL, Cloud},
    resources::follow::{Begin, Follow, Stream, Told},
};

/// The first pause before it is begun again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What makes a watch begin again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The gateway does not answer.
    Away,
    /// What came after the token is not kept any more: it begins with the current state.
    Anew,
}

/// A watch that goes on.
pub struct Following<'a, R: Follow> {
    cloud: &'a Cloud,
    of: R::Of,
    begin: Begin,
    stream: Option<Stream<R>>,
    pause: Duration,
}

impl<'a, R: Follow> Following<'a, R> {
    /// Begins when it is asked for the first message.
    pub fn new(cloud: &'a Cloud, of: R::Of, begin: Begin) -> Self {
        Self { cloud, of, begin, stream: None, pause: FIRST_PAUSE }
    }

    /// The next message. `trouble` hears what happens meanwhile.
    pub async fn next(&mut self, trouble: impl Fn(Trouble)) -> Result<Told<R>, Status> {
        loop {
            let status = match self.read().await {
                Ok(told) => {
                    self.pause = FIRST_PAUSE;
                    if !told.resume_token.is_empty() {
                        self.begin.resume_token.clone_from(&told.resume_token);
                    }
                    return Ok(told);
                }
                Err(status) => status,
            };
            self.stream = None;
            match status.code() {
                // Told to resume: it is a while since what was told last.
                Code::Aborted if !self.begin.resume_token.is_empty() => {}
                Code::OutOfRange if !self.begin.resume_token.is_empty() => {
                    self.begin.resume_token.clear();
                    trouble(Trouble::Anew);
                }
                _ if is_passing(&status) => {
                    trouble(Trouble::Away);
                    sleep(self.pause).await;
                    self.pause = (self.pause * 5 / 4).min(LONGEST_PAUSE);
                }
                _ => return Err(status),
            }
        }
    }

    async fn read(&mut self) -> Result<Told<R>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let begun = timeout(CALL, R::follow(self.cloud, &self.of, self.begin.clone())).await;
                let late = |_| Status::deadline_exceeded("the gateway does not answer");
                self.stream.insert(begun.map_err(late)??)
            }
        };
        // A stream does not end by itself.
        stream.next().await.unwrap_or_else(|| Err(Status::unavailable("the watch ended")))
    }
}

/// Whether it may go well the next time.
fn is_passing(status: &Status) -> bool {
    // A connection that broke under a call is UNKNOWN or CANCELLED with tonic, depending on how far the call was.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
}
