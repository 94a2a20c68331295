//! `cloud instance console`: the guest's serial console, both ways.
//!
//! Two loops run side by side, stdin to the guest and the guest to stdout, so that neither can hold up the other. On a terminal it
//! is raw, and Ctrl-] ends the session. Elsewhere the end of stdin does, once the guest has been silent for a while: what a script
//! sent has then been answered.

use std::{cell::Cell, io::IsTerminal, time::Duration};

use clap::Args;
use cloud_contracts::v1::{StreamConsoleRequest, StreamConsoleResponse, stream_console_request::Message};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{self, Sender},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    args::{Connection, OutputArgs, duration},
    connect::CALL,
    context::Context,
    error::Error,
    terminal::RawMode,
};

/// Ctrl-].
const ESCAPE: u8 = 0x1d;
/// A guest that never falls silent is left after this.
const LONGEST_DRAIN: Duration = Duration::from_secs(30);

/// Its arguments.
#[derive(Debug, Args)]
pub struct Console {
    /// The instance, by name or id
    name: String,
    /// When stdin is no terminal: how long the guest must be silent after its end
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = duration)]
    drain: Duration,
}

/// Why stdin ended.
enum InputEnd {
    Eof,
    Escape,
}

/// Connects stdin and stdout to the guest.
pub async fn run(connection: Connection, args: Console) -> Result<(), Error> {
    let context = Context::new(connection, OutputArgs::default()).await?;
    let subject = format!("instance {}", args.name);
    let (to_guest, requests) = mpsc::channel(64);
    to_guest.send(message(Message::Id(args.name.clone()))).await.map_err(|_| closed(&subject))?;
    let mut client = context.cloud.instances();
    let opening = client.stream_console(ReceiverStream::new(requests));
    // The session may last for days; only its beginning has a deadline.
    let from_guest = timeout(CALL, opening).await.unwrap_or_else(|_| Err(late())).map_err(Error::refused(&*subject))?;
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprintln!("Connected to {}. Ctrl-] leaves; Enter shows the prompt.", args.name);
    }
    let raw = RawMode::enter().map_err(|source| Error::Terminal { doing: "setting up the terminal", source })?;
    let end = session(to_guest, from_guest.into_inner(), &subject, args.drain).await;
    drop(raw);
    if terminal {
        eprintln!("\nLeft {}.", args.name);
    }
    end
}

async fn session(
    to_guest: Sender<StreamConsoleRequest>,
    from_guest: Streaming<StreamConsoleResponse>,
    subject: &str,
    drain: Duration,
) -> Result<(), Error> {
    let signals = |source| Error::Terminal { doing: "listening for signals", source };
    let mut terminated = signal(SignalKind::terminate()).map_err(signals)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(signals)?;
    let last_heard = Cell::new(Instant::now());
    let mut output = std::pin::pin!(show(from_guest, subject, &last_heard));
    {
        let mut input = std::pin::pin!(type_in(&to_guest));
        tokio::select! {
            end = &mut output => return end,
            end = &mut input => if matches!(end?, InputEnd::Escape) { return Ok(()) },
            () = either(&mut terminated, &mut hung_up) => return Err(Error::Signal),
        }
    }
    // `to_guest` stays: closing it would end the session before the guest has answered.
    let begun = Instant::now();
    last_heard.set(begun);
    loop {
        let quiet_at = (last_heard.get() + drain).min(begun + LONGEST_DRAIN);
        if quiet_at <= Instant::now() {
            return Ok(());
        }
        tokio::select! {
            end = &mut output => return end,
            () = sleep_until(quiet_at) => {}
            () = either(&mut terminated, &mut hung_up) => return Err(Error::Signal),
        }
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// stdin to the guest.
async fn type_in(to_guest: &Sender<StreamConsoleRequest>) -> Result<InputEnd, Error> {
    let escapes = std::io::stdin().is_terminal();
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 4096];
    loop {
        let reading = |source| Error::Terminal { doing: "reading stdin", source };
        let count = stdin.read(&mut buffer).await.map_err(reading)?;
        let typed = &buffer[..count];
        let (data, end) = match typed.iter().position(|byte| escapes && *byte == ESCAPE) {
            Some(at) => (&typed[..at], Some(InputEnd::Escape)),
            None => (typed, (count == 0).then_some(InputEnd::Eof)),
        };
        if !data.is_empty() && to_guest.send(message(Message::Data(data.to_vec().into()))).await.is_err() {
            // The call is over; the other direction knows why.
            std::future::pending::<()>().await;
        }
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

/// The guest to stdout, until the gateway ends the session.
async fn show(mut from: Streaming<StreamConsoleResponse>, subject: &str, heard: &Cell<Instant>) -> Result<(), Error> {
    let mut stdout = tokio::io::stdout();
    while let Some(response) = from.message().await.map_err(Error::refused(subject))? {
        heard.set(Instant::now());
        stdout.write_all(&response.data).await.map_err(Error::output)?;
        stdout.flush().await.map_err(Error::output)?;
    }
    Ok(())
}

fn message(message: Message) -> StreamConsoleRequest {
    StreamConsoleRequest { message: Some(message) }
}

fn late() -> Status {
    Status::deadline_exceeded("the gateway did not open the console in time")
}

fn closed(subject: &str) -> Error {
    Error::refused(subject)(Status::unavailable("the session ended before it began"))
}
