//! Who a certificate speaks for: a URI such as `cloud://<cloud id>/host/<host id>/storage-agent`.

use std::{fmt, str::FromStr};

use crate::{CloudId, HostId};

/// One of the three daemons of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Daemon {
    /// compute-agent.
    Compute,
    /// storage-agent.
    Storage,
    /// network-agent.
    Network,
}

impl Daemon {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Compute, Self::Storage, Self::Network];

    /// `compute`, `storage` or `network`.
    #[must_use]
    pub const fn role(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Storage => "storage",
            Self::Network => "network",
        }
    }

    /// The daemon's name, such as `storage-agent`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute-agent",
            Self::Storage => "storage-agent",
            Self::Network => "network-agent",
        }
    }
}

/// Whom a certificate speaks for. A host is known by its id, so a new host of an old name is somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A gateway of a cloud: `cloud://<cloud id>/gateway`.
    Gateway {
        /// The cloud.
        cloud: CloudId,
    },
    /// A daemon of a host: `cloud://<cloud id>/host/<host id>/<daemon>`.
    Agent {
        /// The cloud.
        cloud: CloudId,
        /// The host.
        host: HostId,
        /// Which of its daemons.
        daemon: Daemon,
    },
}

impl Identity {
    /// The cloud that it is part of.
    #[must_use]
    pub const fn cloud(&self) -> CloudId {
        match self {
            Self::Gateway { cloud } | Self::Agent { cloud, .. } => *cloud,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway { cloud } => write!(f, "cloud://{cloud}/gateway"),
            Self::Agent { cloud, host, daemon } => write!(f, "cloud://{cloud}/host/{host}/{}", daemon.as_str()),
        }
    }
}

/// A text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no identity: it is written cloud://<cloud id>/gateway or cloud://<cloud id>/host/<host id>/<daemon>")]
pub struct IdentityError(String);

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let parsed = || {
            let mut parts = text.strip_prefix("cloud://")?.split('/');
            let cloud = parts.next()?.parse().ok()?;
            let identity = match (parts.next()?, parts.next(), parts.next()) {
                ("gateway", None, None) => Self::Gateway { cloud },
                ("host", Some(host), Some(daemon)) => {
                    let daemon = Daemon::ALL.into_iter().find(|d| d.as_str() == daemon)?;
                    Self::Agent { cloud, host: host.parse().ok()?, daemon }
                }
                _ => return None,
            };
            // One way of writing it only, so that what is compared as text is the same too.
            (parts.next().is_none() && identity.to_string() == text).then_some(identity)
        };
        parsed().ok_or_else(|| IdentityError(text.chars().take(120).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_written() {
        let (cloud, host) = (CloudId::random(), HostId::random());
        let agents = Daemon::ALL.map(|daemon| Identity::Agent { cloud, host, daemon });
        for identity in agents.into_iter().chain([Identity::Gateway { cloud }]) {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
        let upper = Identity::Gateway { cloud }.to_string().replace("cloud://", "CLOUD://");
        for wrong in [
            upper,
            format!("cloud://{cloud}"),
            format!("cloud://{cloud}/gateway/"),
            format!("cloud://{cloud}/host/{host}"),
            format!("cloud://{cloud}/host/{host}/gateway"),
            format!("cloud://{cloud}/host/{host}/compute-agent/x"),
            format!("cloud://{}/gateway", cloud.to_string().to_uppercase()),
        ] {
            assert!(wrong.parse::<Identity>().is_err(), "{wrong}");
        }
    }
}
