//! One line of JSON each way over a unix socket, as QEMU's monitor and its guest agent speak (qemu-qmp-ref(7), qemu-ga-ref(7)).

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// How long an answer may take. A machine that is busy with other things gives a host no time at all for minutes.
const ANSWER: Duration = Duration::from_secs(600);
/// The byte that resets the guest agent's parser.
const RESET: u8 = 0xff;

/// A connection.
#[derive(Debug)]
pub struct Channel {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Channel {
    async fn connect(path: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(path).await.with_context(|| format!("cannot connect to {}", path.display()))?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer })
    }

    /// QEMU's monitor.
    pub async fn monitor(path: &Path) -> anyhow::Result<Self> {
        let mut channel = Self::connect(path).await?;
        timeout(ANSWER, channel.line()).await.context("QEMU does not greet")??;
        channel.call("qmp_capabilities", json!({})).await?;
        Ok(channel)
    }

    /// The guest agent, which answers only once the guest has booted so far: within `patience`, or not.
    pub async fn agent(path: &Path, patience: Duration) -> anyhow::Result<Self> {
        let synchronized = async {
            let mut channel = Self::connect(path).await?;
            let token = json!(rand_token());
            channel.writer.write_all(&[RESET]).await?;
            channel.send("guest-sync", &json!({"id": token})).await?;
            // Answers to somebody before us may come first.
            while channel.line().await?.get("return") != Some(&token) {}
            anyhow::Ok(channel)
        };
        timeout(patience, synchronized).await.context("the guest agent does not answer")?
    }

    /// Calls, and returns what is returned.
    pub async fn call(&mut self, name: &str, arguments: Value) -> anyhow::Result<Value> {
        let answered = async {
            self.send(name, &arguments).await?;
            loop {
                let mut answer = self.line().await?;
                if let Some(error) = answer.get("error") {
                    anyhow::bail!("{name}: {}", error["desc"].as_str().unwrap_or_default());
                }
                // Everything else is an event.
                if let Some(value) = answer.get_mut("return") {
                    return Ok(value.take());
                }
            }
        };
        timeout(ANSWER, answered).await.with_context(|| format!("{name}: no answer"))?
    }

    async fn send(&mut self, name: &str, arguments: &Value) -> anyhow::Result<()> {
        let empty = arguments.as_object().is_some_and(serde_json::Map::is_empty);
        let message = if empty { json!({"execute": name}) } else { json!({"execute": name, "arguments": arguments}) };
        self.writer.write_all(format!("{message}\n").as_bytes()).await?;
        Ok(())
    }

    async fn line(&mut self) -> anyhow::Result<Value> {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line).await?;
        anyhow::ensure!(read > 0, "the connection was closed");
        let text = line.strip_prefix(&[RESET]).unwrap_or(&line);
        serde_json::from_slice(text).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(text)))
    }
}

/// A number that nobody used before us.
fn rand_token() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos()
}
