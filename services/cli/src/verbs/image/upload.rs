//! The bytes of an image, from a file here to the gateway.
//!
//! A stream that ends is an image that is complete, so one that cannot be read to its end must not end: it stops, and the call is
//! dropped. The SHA-256 of what was sent is compared with that of what arrived.

use std::{
    fs::{self, File},
    io::Read,
    path::PathBuf,
    time::Duration,
};

use cloud_contracts::v1::{Image, UploadImageHeader, UploadImageRequest, upload_image_request::Message};
use futures::{Stream, StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::{connect::within, context::Context, error::Error, progress::Bytes};

/// How much goes into a message: well under the 4 MiB that gRPC takes.
const CHUNK: usize = 1 << 20;

/// The longest that an upload may take.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// A file that is about to be sent.
pub struct Source {
    path: PathBuf,
    file: File,
    size: u64,
}

/// How the sending ended: the SHA-256 of all bytes, or what went wrong.
type Sent = Result<String, Error>;

impl Source {
    /// Opens it; only a regular file is an image.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.clone(), source };
        let meta = fs::metadata(&path).map_err(read)?;
        if !meta.is_file() {
            return Err(Error::usage(format!("{} is not a regular file", path.display())));
        }
        let file = File::open(&path).map_err(read)?;
        Ok(Self { file, size: meta.len(), path })
    }

    /// The next bytes; none at the end. A file that grows or shrinks while it is read is no image.
    fn next(&mut self, sent: u64) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::with_capacity(CHUNK);
        let read = (&self.file).take(CHUNK as u64).read_to_end(&mut buffer);
        let count = read.map_err(|source| Error::Read { path: self.path.clone(), source })? as u64;
        let end = count == 0;
        if sent + count > self.size || (end && sent != self.size) {
            return Err(Error::Corrupt(format!("{} changed while it was read", self.path.display())));
        }
        Ok(buffer)
    }
}

/// What the stream of messages carries along.
struct Sending {
    source: Source,
    progress: Bytes,
    hash: Sha256,
    sent: u64,
    tell: Option<oneshot::Sender<Sent>>,
}

/// Uploads, and answers with the image.
pub async fn run(context: &Context, source: Source, header: UploadImageHeader) -> Result<Image, Error> {
    let subject = format!("image {}", header.name);
    let progress = context.progress.bytes(&subject, source.size);
    let (tell, told) = oneshot::channel();
    let sending = Sending { source, progress, hash: Sha256::new(), sent: 0, tell: Some(tell) };
    let first = UploadImageRequest { message: Some(Message::Header(header)) };
    let messages = stream::iter([first]).chain(data(sending));
    let mut client = context.cloud.images();
    let mut call = std::pin::pin!(client.upload_image(within(DEADLINE, messages)));
    let (answer, sha256) = tokio::select! {
        answer = &mut call => (answer, None),
        Ok(sent) = told => {
            let sha256 = sent?;
            (call.await, Some(sha256))
        }
    };
    let image = answer.map_err(Error::refused(&*subject))?.into_inner();
    match sha256 {
        Some(sha256) if !image.sha256.is_empty() && image.sha256 != sha256 => Err(Error::Corrupt(format!(
            "{subject} arrived damaged: its SHA-256 is {}, that of the file {sha256}; delete it and import again",
            image.sha256
        ))),
        _ => Ok(image),
    }
}

fn data(sending: Sending) -> impl Stream<Item = UploadImageRequest> + Send {
    stream::unfold(sending, |mut state| async move {
        let (source, sent) = (&mut state.source, state.sent);
        // A megabyte from a local file; this command has nothing else to do meanwhile.
        match source.next(sent) {
            Ok(bytes) if bytes.is_empty() => {
                let sha256 = hex::encode(std::mem::take(&mut state.hash).finalize());
                state.tell(Ok(sha256));
                None
            }
            Ok(bytes) => {
                state.hash.update(&bytes);
                state.sent += bytes.len() as u64;
                state.progress.add(bytes.len() as u64);
                let message = UploadImageRequest { message: Some(Message::Data(bytes.into())) };
                Some((message, state))
            }
            Err(error) => {
                state.tell(Err(error));
                std::future::pending().await
            }
        }
    })
}

impl Sending {
    fn tell(&mut self, sent: Sent) {
        if let Some(tell) = self.tell.take() {
            // Nobody listens any more when the gateway has answered already.
            drop(tell.send(sent));
        }
    }
}
