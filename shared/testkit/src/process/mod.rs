//! The real daemons as child processes: started, watched, killed.

mod daemon;
mod gateway;

pub use daemon::{DaemonProcess, binary};
pub use gateway::{GatewayConfig, GatewayProcess};
