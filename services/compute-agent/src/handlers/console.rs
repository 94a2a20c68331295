//! `StreamConsole`: a guest's console as a pair of streams.

use std::time::Duration;

use cloud_contracts::agent::{
    ConsoleKind, OpenConsole, StreamConsoleRequest, StreamConsoleResponse, stream_console_request::Message,
};
use cloud_domain::CloudId;
use cloud_service_kit::ServiceError;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::{io::ReaderStream, task::AbortOnDropHandle};
use tonic::{Status, Streaming};

use super::{compute::invalid, wire};
use crate::core::{ByteStream, Compute};

/// How long a caller may take to say which console it wants.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Of one message to the caller.
const PIECE: usize = 16 * 1024;

/// Opens the console that the first message names. The guest's bytes are the answer's; the caller's go to the guest for as long as somebody
/// reads the answer.
pub async fn open(
    compute: &Compute,
    cloud: CloudId,
    mut input: Streaming<StreamConsoleRequest>,
) -> Result<impl Stream<Item = Result<StreamConsoleResponse, Status>> + Send + use<>, Status> {
    let first = tokio::time::timeout(OPEN_LIMIT, input.message())
        .await
        .map_err(|_| ServiceError::deadline_exceeded("no first message came that opens a console"))??;
    let Some(Message::Open(OpenConsole { id, kind })) = first.and_then(|request| request.message) else {
        return Err(ServiceError::invalid("open", "must be in the first message").into());
    };
    let id = wire::instance_id("open.id", &id).map_err(invalid)?;
    let console = match ConsoleKind::try_from(kind) {
        Ok(ConsoleKind::Serial) => compute.open_serial(cloud, id).await,
        Ok(ConsoleKind::Vnc) => compute.open_screen(cloud, id).await,
        Ok(ConsoleKind::Unspecified) | Err(_) => {
            let problem = format!("must be CONSOLE_KIND_SERIAL or CONSOLE_KIND_VNC, is {kind}");
            return Err(ServiceError::invalid("open.kind", problem).into());
        }
    };
    let (reader, writer) = tokio::io::split(console.map_err(ServiceError::from)?);
    Ok(output(reader, AbortOnDropHandle::new(tokio::spawn(feed(input, writer)))))
}

fn output(
    reader: ReadHalf<Box<dyn ByteStream>>,
    feeding: AbortOnDropHandle<()>,
) -> impl Stream<Item = Result<StreamConsoleResponse, Status>> + Send {
    ReaderStream::with_capacity(reader, PIECE).map(move |piece| {
        // Owned by this stream: dropped, and so ended, with it.
        let _ = &feeding;
        piece.map(|data| StreamConsoleResponse { data }).map_err(|error| {
            Status::from(ServiceError::unavailable("CONSOLE_LOST", format!("the console was lost: {error}")))
        })
    })
}

/// Ends with the caller's messages or with the console. A caller who only watches may end its side at once.
async fn feed(mut input: Streaming<StreamConsoleRequest>, mut console: WriteHalf<Box<dyn ByteStream>>) {
    loop {
        match input.message().await {
            Ok(Some(StreamConsoleRequest { message: Some(Message::Data(data)) })) => {
                if let Err(error) = console.write_all(&data).await {
                    return tracing::debug!(%error, "a console takes no more input");
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(status) => return tracing::debug!(%status, "the viewer of a console went away"),
        }
    }
}
