//! JSON-RPC 1.0 over a unix socket, as ovsdb-server speaks it (RFC 7047, section 4).
//!
//! One task owns the connection, answers the server's probes, and connects anew when a request finds it gone. A request whose
//! connection breaks fails: whether it was carried out is for the caller to find out.

use std::{collections::HashMap, io, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
};
use tokio_util::task::AbortOnDropHandle;

/// The longest message that is accepted.
const MAX_FRAME: usize = 64 << 20;
const QUEUE: usize = 64;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody listens.
    #[error("cannot connect to {path}: is ovsdb-server running?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke before the answer came.
    #[error("the connection to ovsdb-server broke")]
    Lost(#[source] Option<io::Error>),
    /// No answer in time.
    #[error("ovsdb-server did not answer within {0:?}")]
    Deadline(Duration),
    /// The server refused.
    #[error("ovsdb-server answered: {0}")]
    Remote(String),
}

struct Request {
    method: &'static str,
    params: Value,
    reply: oneshot::Sender<Result<Value, RpcError>>,
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    _task: AbortOnDropHandle<()>,
}

impl Client {
    /// A client of the server at `path`. Connects at the first call.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        Self { requests, _task: AbortOnDropHandle::new(tokio::spawn(serve(path, queue))) }
    }

    /// Calls a method and waits for its result.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn call(&self, method: &'static str, params: Value, deadline: Duration) -> Result<Value, RpcError> {
        let (reply, answer) = oneshot::channel();
        let call = async {
            let request = Request { method, params, reply };
            self.requests.send(request).await.map_err(|_| RpcError::Lost(None))?;
            answer.await.map_err(|_| RpcError::Lost(None))?
        };
        tokio::time::timeout(deadline, call).await.map_err(|_| RpcError::Deadline(deadline))?
    }
}

async fn serve(path: PathBuf, mut queue: mpsc::Receiver<Request>) {
    while let Some(request) = queue.recv().await {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                let mut connection = Connection { stream, frames: Frames::default(), pending: HashMap::new(), last: 0 };
                if let Err(error) = connection.run(request, &mut queue).await {
                    connection.fail(&error);
                }
            }
            Err(source) => {
                let _ = request.reply.send(Err(RpcError::Connect { path: path.clone(), source }));
            }
        }
    }
}

struct Connection {
    stream: UnixStream,
    frames: Frames,
    pending: HashMap<u64, oneshot::Sender<Result<Value, RpcError>>>,
    last: u64,
}

impl Connection {
    /// Until the connection breaks, or nobody asks any more.
    async fn run(&mut self, first: Request, queue: &mut mpsc::Receiver<Request>) -> io::Result<()> {
        self.send(first).await?;
        let mut buffer = vec![0; 16 << 10];
        loop {
            tokio::select! {
                read = self.stream.read(&mut buffer) => {
                    let length = read?;
                    if length == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    for message in self.frames.push(&buffer[..length])? {
                        self.receive(message).await?;
                    }
                }
                request = queue.recv() => match request {
                    Some(request) => self.send(request).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn send(&mut self, request: Request) -> io::Result<()> {
        self.last += 1;
        let message = json!({"id": self.last, "method": request.method, "params": request.params});
        // Callers that gave up leave their entries behind; they end here.
        self.pending.retain(|_, reply| !reply.is_closed());
        self.pending.insert(self.last, request.reply);
        self.stream.write_all(message.to_string().as_bytes()).await
    }

    async fn receive(&mut self, mut message: Value) -> io::Result<()> {
        let id = message["id"].take();
        if message["method"] == "echo" {
            let answer = json!({"id": id, "result": message["params"], "error": null});
            return self.stream.write_all(answer.to_string().as_bytes()).await;
        }
        if let Some(reply) = id.as_u64().and_then(|id| self.pending.remove(&id)) {
            let error = message["error"].take();
            let result =
                if error.is_null() { Ok(message["result"].take()) } else { Err(RpcError::Remote(error.to_string())) };
            let _ = reply.send(result);
        }
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::debug!(%error, "the connection to ovsdb-server broke");
        for (_, reply) in self.pending.drain() {
            let _ = reply.send(Err(RpcError::Lost(Some(error.kind().into()))));
        }
    }
}

/// Finds where one JSON object of a stream ends and the next begins: nothing stands between them.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<Value>> {
        self.bytes.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while self.seen < self.bytes.len() {
            let byte = self.bytes[self.seen];
            self.seen += 1;
            if self.ends_with(byte) {
                let frame: Vec<u8> = self.bytes.drain(..self.seen).collect();
                self.seen = 0;
                messages.push(serde_json::from_slice(&frame)?);
            }
        }
        if self.bytes.len() > MAX_FRAME {
            return Err(io::Error::other("a message of more than 64 MiB"));
        }
        Ok(messages)
    }

    /// Takes one more byte; whether it ends an object.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.depth += 1,
            b'}' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let text = br#"{"a":"}{\"\\"}{"b":{"c":[1]}} {"d":null}"#;
        for cut in 0..text.len() {
            let mut frames = Frames::default();
            let mut found = frames.push(&text[..cut]).unwrap();
            found.extend(frames.push(&text[cut..]).unwrap());
            assert_eq!(found, [json!({"a": "}{\"\\"}), json!({"b": {"c": [1]}}), json!({"d": null})], "cut at {cut}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Frames::default().push(b"{nonsense}").is_err());
    }

    #[tokio::test]
    async fn a_broken_connection_fails_the_call_and_the_next_connects_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.sock");
        let client = Client::new(path.clone());
        let second = Duration::from_secs(5);
        let call = || client.call("list_dbs", json!([]), second);
        assert!(matches!(call().await, Err(RpcError::Connect { .. })));

        let listener = UnixListener::bind(&path).unwrap();
        let breaking = async { drop(listener.accept().await.unwrap()) };
        assert!(matches!(tokio::join!(call(), breaking).0, Err(RpcError::Lost(_))));

        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(br#"{"id":"echo","method":"echo","params":[]}"#).await.unwrap();
            let mut buffer = vec![0; 4096];
            let mut frames = Frames::default();
            let mut got = Vec::new();
            while got.len() < 2 {
                let n = stream.read(&mut buffer).await.unwrap();
                got.extend(frames.push(&buffer[..n]).unwrap());
            }
            let id = got.iter().find(|m| m["method"] == "list_dbs").unwrap()["id"].clone();
            assert!(got.contains(&json!({"id": "echo", "result": [], "error": null})), "{got:?}");
            let answer = json!({"id": id, "result": ["Open_vSwitch"], "error": null});
            stream.write_all(answer.to_string().as_bytes()).await.unwrap();
            stream
        };
        let (result, _stream) = tokio::join!(call(), answering);
        assert_eq!(result.unwrap(), json!(["Open_vSwitch"]));
    }
}
