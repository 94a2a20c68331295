//! Hands files to hosts: by HTTP, which is fifty times as fast as the guest agent.

use std::path::{Path, PathBuf};

use axum::{
    Router,
    extract::{Path as Name, State},
    routing::get,
};
use http::StatusCode;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::site::Site;

/// Serves the files of a directory on the management network until it is dropped.
#[derive(Debug)]
pub struct Courier {
    url: String,
    task: JoinHandle<()>,
}

impl Courier {
    /// Serves a directory.
    ///
    /// # Errors
    /// The lab's network is not there.
    pub async fn start(site: &Site, directory: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((site.machine(), 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().route("/{name}", get(file)).with_state(directory.to_path_buf());
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                eprintln!("files are not served to the lab any more: {error}");
            }
        });
        Ok(Self { url, task })
    }

    /// The shell command by which a host fetches a file.
    #[must_use]
    pub fn fetch(&self, name: &str, to: &str) -> String {
        format!("curl -sSf --max-time 500 -o '{to}' '{}/{name}'", self.url)
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn file(State(directory): State<PathBuf>, Name(name): Name<String>) -> Result<Vec<u8>, StatusCode> {
    // One name: nothing of another directory.
    if name.contains('/') || name == ".." {
        return Err(StatusCode::NOT_FOUND);
    }
    tokio::fs::read(directory.join(name)).await.map_err(|_| StatusCode::NOT_FOUND)
}
