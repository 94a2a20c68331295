//! Who may join, and by what hosts are known: join tokens, certificates, authorities.

use cloud_domain::HostId;
use serde::{Deserialize, Serialize};

use super::{AgentRole, Meta, Timestamp, Value, meta::resource};

/// Lets hosts join. Its secret is not kept, only the hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// What every row has. Its name is its id.
    pub meta: Meta,
    /// BLAKE3 of the secret, in hex. The secret has 256 random bits, so a fast hash is enough.
    pub hash: String,
    /// How many times it may be used.
    pub uses: u32,
    /// How many times it was.
    pub used: u32,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The only host that may use it.
    pub host: Option<HostId>,
    /// That host's name.
    pub host_name: String,
}

resource!(JoinToken, JoinToken, "join_tokens", |row| {});

/// A certificate that was issued to a daemon of a host, for as long as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCertificate {
    /// What every row has. Its name is its serial number.
    pub meta: Meta,
    /// Whose.
    pub host: HostId,
    /// Which of its daemons'.
    pub role: AgentRole,
    /// Its serial number, in hex.
    pub serial: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

resource!(HostCertificate, Certificate, "host_certificates", |row| {
    "host_id": Value::Text(row.host.to_string()),
    "serial": Value::Text(row.serial.clone()),
    "revoked": Value::Int(row.revoked_at.is_some().into()),
});

/// An authority that certificates come from. Its key is sealed by the operator's master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// What every row has. Its name is `ca-` and its number.
    pub meta: Meta,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Its key in PEM, sealed; in hex.
    pub sealed_key: String,
    /// From when gateways show certificates of it: all hosts know it by then. Hosts get theirs from it at once.
    pub active_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

resource!(Authority, Authority, "authorities", |row| {});

impl Authority {
    /// Which one it is: they are counted from 1.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.meta.name.strip_prefix("ca-")?.parse().ok()
    }
}
