//! A gRPC server on a unix socket that can die as a killed process does: all of its tasks are owned, and end together.

use std::{fs, future::Future, io, path::Path};

use http::{HeaderMap, Request};
use hyper::{body::Incoming, rt::Executor};
use hyper_util::{rt::TokioIo, server::conn::auto, service::TowerToHyperService};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tower::util::MapRequest;

/// Tasks that end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    tasks: Tasks,
}

#[derive(Debug, Clone, Default)]
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Owned {
    /// Cancelled when the tasks must end.
    pub fn token(&self) -> CancellationToken {
        self.tasks.stop.clone()
    }

    /// Runs `task` until it ends or this is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.tasks.stop.cancel();
    }
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            // None: cancelled, which is how these tasks end.
            let _cancelled = stop.run_until_cancelled(task).await;
        });
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.spawn(async move {
            task.await;
        });
    }
}

/// Serves `routes` on a new socket at `path`, and shows `note` the path and the headers of each call.
pub(crate) fn unix(owned: &Owned, path: &Path, routes: Routes, note: impl Note) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let tasks = owned.tasks.clone();
    owned.spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => tasks.spawn(connection(tasks.clone(), stream, routes.clone(), note.clone())),
                Err(error) => {
                    tracing::warn!(%error, "a simulated agent cannot accept");
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    Ok(())
}

/// Sees the path and the headers of a call.
pub(crate) trait Note: Fn(&str, &HeaderMap) + Clone + Send + 'static {}

impl<F: Fn(&str, &HeaderMap) + Clone + Send + 'static> Note for F {}

async fn connection(tasks: Tasks, stream: UnixStream, routes: Routes, note: impl Note) {
    let noted = MapRequest::new(routes, move |request: Request<Incoming>| {
        note(request.uri().path(), request.headers());
        request
    });
    let server = auto::Builder::new(tasks).http2_only();
    let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(noted)).await;
    if let Err(error) = served {
        // The caller went away: a gateway that was killed, say.
        tracing::debug!(error, "a connection to a simulated agent ended");
    }
}
