//! Wire to domain and back: one file per resource, none with a rule.
//!
//! Requests come validated ([`cloud_contracts::checked::Checked`] wraps every service), over gRPC and REST alike, with the caller in their
//! extensions.

mod admin;
mod agent_hosts;
mod api_keys;
mod console;
mod error;
mod events;
mod hosts;
mod images;
mod instance_types;
mod instances;
mod peer;
mod ports;
mod projects;
mod quotas;
mod requests;
mod snapshots;
mod subnets;
mod unbuilt;
mod volumes;
mod vpcs;
mod watch;
mod wire;

pub use admin::{Admin, Backups};
pub use agent_hosts::AgentHosts;
pub use api_keys::ApiKeys;
pub use console::{ConsoleLine, Consoles};
pub(crate) use error::{backend, service_error, status};
pub use events::Events;
pub use hosts::Hosts;
pub use images::Images;
pub use instance_types::InstanceTypes;
pub use instances::Instances;
pub(crate) use peer::certified;
pub use ports::Ports;
pub use projects::Projects;
pub use quotas::Quotas;
pub use requests::RequestLog;
pub use snapshots::Snapshots;
pub use subnets::Subnets;
pub use unbuilt::Unbuilt;
pub use volumes::Volumes;
pub use vpcs::Vpcs;
