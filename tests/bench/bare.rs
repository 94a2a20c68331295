//! Reference servers: the least that can be done to answer the same bytes after the same database read, and plain echoes.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use bytes::Bytes;
use clap::ValueEnum;
use cloud_contracts::v1;
use cloud_testkit::DaemonProcess;
use http::header;
use prost::Message as _;
use sqlx::{
    Row as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

mod service;

/// How many connections for reading; as many as the gateway's own default is of the same order and the cores are few.
const READERS: u32 = 8;

/// Which reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// axum: one read, the bytes.
    Axum,
    /// axum: the bytes.
    AxumEcho,
    /// tonic: one read, the message.
    Tonic,
    /// tonic: the message.
    TonicEcho,
}

/// How a reference server is started.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    kind: Kind,
    #[arg(long)]
    listen: SocketAddr,
    /// The gateway's SQLite file.
    #[arg(long)]
    database: PathBuf,
    /// The instance to read.
    #[arg(long)]
    instance: String,
    /// What to answer: JSON, or the encoded message.
    #[arg(long)]
    answer: PathBuf,
}

/// The database read that GetInstance takes: one row by its primary key.
#[derive(Debug, Clone)]
pub struct Read {
    pool: Option<SqlitePool>,
    instance: Arc<str>,
}

impl Read {
    async fn open(args: &Args) -> anyhow::Result<Self> {
        let pool = if matches!(args.kind, Kind::Axum | Kind::Tonic) {
            let options = SqliteConnectOptions::new().filename(&args.database).read_only(true);
            Some(
                SqlitePoolOptions::new()
                    .max_connections(READERS)
                    .min_connections(READERS)
                    .connect_with(options)
                    .await?,
            )
        } else {
            None
        };
        Ok(Self { pool, instance: args.instance.as_str().into() })
    }

    /// Reads the row, if this server reads at all; returns how long its body is.
    pub async fn once(&self) -> Result<usize, sqlx::Error> {
        let Some(pool) = &self.pool else { return Ok(0) };
        let row = sqlx::query(
            "SELECT id, project_id, name, version, created_at, updated_at, deleted_at, body FROM instances WHERE id = $1",
        )
        .bind(&*self.instance)
        .fetch_one(pool)
        .await?;
        Ok(row.try_get::<&str, _>("body")?.len())
    }
}

/// Serves until the process is killed.
pub async fn serve(args: Args) -> anyhow::Result<()> {
    let read = Read::open(&args).await?;
    let answer = Bytes::from(std::fs::read(&args.answer)?);
    let listener = TcpListener::bind(args.listen).await?;
    match args.kind {
        Kind::Axum | Kind::AxumEcho => {
            let router = Router::new().route("/instances/{id}", get(get_instance)).with_state((read, answer));
            axum::serve(tcp_nodelay(listener), router).await?;
        }
        Kind::Tonic | Kind::TonicEcho => {
            let instance = v1::Instance::decode(answer)?;
            let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
            tonic::transport::Server::builder()
                .add_service(service::Bare { read, instance })
                .serve_with_incoming(incoming)
                .await?;
        }
    }
    Ok(())
}

fn tcp_nodelay(listener: TcpListener) -> impl axum::serve::Listener<Io = TcpStream, Addr = SocketAddr> {
    use axum::serve::ListenerExt as _;
    listener.tap_io(|stream: &mut TcpStream| {
        // Only slower without.
        let _slower = stream.set_nodelay(true);
    })
}

async fn get_instance(State((read, answer)): State<(Read, Bytes)>) -> impl IntoResponse {
    match read.once().await {
        Ok(_) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A reference server as a process of its own.
#[derive(Debug)]
pub struct BareProcess {
    /// Where it listens.
    pub port: u16,
    _process: DaemonProcess,
}

impl BareProcess {
    /// Starts one and waits until it accepts connections.
    pub async fn start(
        dir: &TempDir,
        kind: Kind,
        database: &std::path::Path,
        instance: &str,
        answer: &[u8],
    ) -> anyhow::Result<Self> {
        let name = kind.to_possible_value().context("a kind has a name")?.get_name().to_owned();
        let file = dir.path().join(format!("{name}.answer"));
        std::fs::write(&file, answer)?;
        let port = cloud_testkit::free_port()?;
        let args = [
            "bare".to_owned(),
            format!("--kind={name}"),
            format!("--listen=127.0.0.1:{port}"),
            format!("--database={}", database.display()),
            format!("--instance={instance}"),
            format!("--answer={}", file.display()),
        ];
        let log = dir.path().join(format!("{name}.log"));
        let process = DaemonProcess::spawn(&std::env::current_exe()?, &args, &[], &log)?;
        cloud_testkit::until(&format!("the reference server {name}"), cloud_testkit::wait::PATIENCE, || async {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.map(|_| ()))
        })
        .await
        .map_err(|error| error.context(process.log_tail()))?;
        Ok(Self { port, _process: process })
    }
}
