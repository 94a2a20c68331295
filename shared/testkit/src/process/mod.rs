//! The real daemons as child processes: started, watched, killed.

mod daemon;
mod gateway;
mod postgres;

pub use daemon::{DaemonProcess, binary};
pub use gateway::{GatewayConfig, GatewayProcess};
pub use postgres::{PostgresServer, url as postgres_url};
