//! A private PostgreSQL server on a Unix socket, made and removed by the test.

use cloud_testkit::PostgresServer;

/// A PostgreSQL server in a directory of its own.
pub struct Server(PostgresServer);

impl Server {
    /// Makes and starts one.
    pub fn start() -> Self {
        Self(PostgresServer::start().unwrap())
    }

    pub fn url(&self) -> String {
        self.0.url()
    }
}
