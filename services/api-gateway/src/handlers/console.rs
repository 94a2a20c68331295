//! Consoles: between a caller's stream and the one to the agent of the instance's host.

use std::future::ready;

use async_trait::async_trait;
use bytes::Bytes;
use cloud_contracts::v1::{self, stream_console_request::Message};
use cloud_core::{
    model::Caller,
    ports::{BackendError, Store},
    services::Services,
};
use cloud_domain::{HostId, InstanceId};
use cloud_service_kit::ServiceError;
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc;
use tonic::{Response, Status, Streaming};

use super::error;

/// An open serial line. Dropping it closes it.
pub struct ConsoleLine {
    /// Bytes to the guest.
    pub input: mpsc::Sender<Bytes>,
    /// Bytes from the guest; ends with the guest.
    pub output: BoxStream<'static, Result<Bytes, BackendError>>,
}

/// The consoles of the guests on all hosts.
#[async_trait]
pub trait Consoles: Send + Sync {
    /// The end of a guest's console log; 0 bytes: the agent's default.
    async fn log(&self, host: HostId, id: InstanceId, max_bytes: u32) -> Result<Vec<u8>, BackendError>;
    /// Opens a guest's serial line.
    async fn open(&self, host: HostId, id: InstanceId) -> Result<ConsoleLine, BackendError>;
}

/// `StreamConsole`: the first message opens, the others carry bytes.
pub(super) async fn stream<S: Store>(
    services: &Services<S>,
    consoles: &dyn Consoles,
    caller: &Caller,
    mut requests: Streaming<v1::StreamConsoleRequest>,
) -> Result<Response<tonic::codegen::BoxStream<v1::StreamConsoleResponse>>, Status> {
    let first = requests.message().await?.and_then(|m| m.message);
    let Some(Message::Id(id)) = first else {
        return Err(ServiceError::invalid("id", "the first message names the instance").into());
    };
    let instance = services.console.open(caller, &id).await.map_err(error::status)?;
    let line = consoles.open(instance.host, instance.id()).await.map_err(error::backend)?;
    let ConsoleLine { input, output } = line;
    // Feeds the guest for as long as the caller reads: it is polled with the answer, and dropped with it.
    let feed = async move {
        while let Some(Ok(message)) = requests.next().await {
            let Some(Message::Data(data)) = message.message else { continue };
            if input.send(data).await.is_err() {
                break;
            }
        }
        // The caller has no more to say, but may still listen.
        std::future::pending::<()>().await;
    };
    let output = output.map(|data| data.map(|data| v1::StreamConsoleResponse { data }).map_err(error::backend));
    // `feed` never ends by itself, so the end of the guest's side is marked.
    let output = output.map(Some).chain(futures::stream::once(ready(None)));
    let feed = futures::stream::once(feed).filter_map(|()| ready(None));
    let both = futures::stream::select(output, feed).take_while(|m| ready(m.is_some())).filter_map(ready);
    Ok(Response::new(both.boxed()))
}
