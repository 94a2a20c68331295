//! How an agent's signs of life go to a gateway.

use std::{future::Future, time::Duration};

use cloud_contracts::agent::{
    HeartbeatRequest, HeartbeatResponse, HeartbeatsRequest, HeartbeatsResponse, host_service_client::HostServiceClient,
};
use futures::{SinkExt as _, channel::mpsc};
use tokio::time;
use tonic::{Code, Request, Status, Streaming};

use crate::{channel::AgentChannel, layers::NoDeadline};

/// How long the gateway may take to answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// One stream of them, so that each is a message without headers and measurements of its own; calls where the gateway is of a release that has no such
/// stream.
pub(super) enum Beats {
    Stream { beats: mpsc::Sender<HeartbeatsRequest>, answers: Streaming<HeartbeatsResponse> },
    Calls(HostServiceClient<AgentChannel>),
}

impl Beats {
    pub(super) async fn open(gateway: &HostServiceClient<AgentChannel>) -> Result<Self, Status> {
        let mut gateway = gateway.clone();
        let (beats, receiver) = mpsc::channel(0);
        let mut request = Request::new(receiver);
        request.extensions_mut().insert(NoDeadline);
        match in_time(gateway.heartbeats(request)).await {
            Ok(answers) => Ok(Self::Stream { beats, answers: answers.into_inner() }),
            Err(status) if status.code() == Code::Unimplemented => Ok(Self::Calls(gateway)),
            Err(status) => Err(status),
        }
    }

    /// Sends one, and waits for its answer. After an error it is to be opened anew.
    pub(super) async fn send(&mut self, beat: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        match self {
            Self::Stream { beats, answers } => {
                // Where the stream has ended, what comes instead of an answer says why.
                let _ended = beats.send(HeartbeatsRequest { heartbeat: Some(beat) }).await;
                let ended = || Status::unavailable("the gateway ended the stream of heartbeats");
                let answer = in_time(answers.message()).await?.ok_or_else(ended)?;
                Ok(answer.heartbeat.unwrap_or_default())
            }
            Self::Calls(gateway) => {
                let mut request = Request::new(beat);
                request.set_timeout(DEADLINE);
                gateway.heartbeat(request).await.map(tonic::Response::into_inner)
            }
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("the gateway did not answer within {DEADLINE:?}"));
    time::timeout(DEADLINE, answer).await.map_err(late)?
}
