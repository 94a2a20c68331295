//! Consoles of guests, by the compute-agents.

use async_trait::async_trait;
use bytes::Bytes;
use cloud_contracts::agent::{ConsoleKind, OpenConsole, StreamConsoleRequest, stream_console_request::Message};
use cloud_core::{
    model::AgentRole,
    ports::{BackendError, ComputeBackend},
};
use cloud_domain::{HostId, InstanceId};
use cloud_service_kit::layers::NoDeadline;
use futures::StreamExt;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{Agents, clients::DEADLINE, compute::client};
use crate::handlers::{ConsoleLine, Consoles};

/// Messages of keystrokes that may wait for the guest.
const QUEUE: usize = 64;

#[async_trait]
impl Consoles for Agents {
    async fn log(&self, host: HostId, id: InstanceId, max_bytes: u32) -> Result<Vec<u8>, BackendError> {
        self.console_log(host, id, max_bytes).await
    }

    async fn open(&self, host: HostId, id: InstanceId) -> Result<ConsoleLine, BackendError> {
        let found = self.find(host, AgentRole::Compute)?;
        let (input, queue) = mpsc::channel::<Bytes>(QUEUE);
        let open = OpenConsole { id: id.to_string(), kind: ConsoleKind::Serial.into() };
        let open = StreamConsoleRequest { message: Some(Message::Open(open)) };
        let data = ReceiverStream::new(queue).map(|data| StreamConsoleRequest { message: Some(Message::Data(data)) });
        // It lasts as long as somebody looks at it, so it takes none of the host's places and has no deadline but for its beginning.
        let mut request = Request::new(futures::stream::once(std::future::ready(open)).chain(data));
        request.extensions_mut().insert(NoDeadline);
        let stream = match timeout(DEADLINE, client(&found).stream_console(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(found.error(&status)),
            Err(_) => return Err(found.silent("does not open the console")),
        };
        let output = stream.map(move |message| message.map(|m| m.data).map_err(|status| found.error(&status)));
        Ok(ConsoleLine { input, output: output.boxed() })
    }
}
