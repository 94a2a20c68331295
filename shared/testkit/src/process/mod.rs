//! The real daemons as child processes: started, watched, killed.

mod daemon;
mod gateway;
mod postgres;
mod s3;

pub use daemon::{DaemonProcess, binary};
pub use gateway::{GatewayConfig, GatewayProcess};
pub use postgres::{PostgresServer, url as postgres_url};
pub use s3::{Objects, S3Server};
