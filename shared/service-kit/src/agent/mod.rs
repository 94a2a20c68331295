//! The life of an agent, the same for all three: who it is (`identity`), how the gateway learns of it (`registration`), which calls it
//! accepts (`fence`), its certificate (`renewal`), and its bootstrap (`runtime`).

mod args;
mod beats;
mod fence;
mod gateways;
mod identity;
mod registration;
mod renewal;
mod runtime;

pub use args::{AgentArgs, AgentTlsArgs};
pub use cloud_contracts::agent::{AgentRole, CallContext, Capacity};
pub use cloud_domain::{CloudId, HostId, HostName, SessionId};
pub use fence::{Admission, Caller, Fence};
pub use gateways::Gateways;
pub use identity::{HostIdentity, IdentityError, host_identity};
pub use registration::{CapacitySource, Registration, run_registration};
pub use runtime::{AgentError, AgentRuntime, serve_agent};
