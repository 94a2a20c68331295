//! Ids: UUIDs that cannot be mistaken for one another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a UUID")]
pub struct IdError {
    value: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random id (UUID v4).
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id as a UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                // Only the hyphenated form: one id has one spelling.
                match Uuid::try_parse(text) {
                    Ok(id) if text.len() == 36 => Ok(Self(id)),
                    _ => Err(IdError { value: text.chars().take(80).collect() }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    )*};
}

ids! {
    /// A cloud: one gateway database and everything it owns.
    CloudId;
    /// A project: the tenant that every resource belongs to.
    ProjectId;
    /// An API key.
    ApiKeyId;
    /// A host.
    HostId;
    /// One run of an agent process.
    SessionId;
    /// An instance.
    InstanceId;
    /// One start of an instance on a host.
    Incarnation;
    /// A volume.
    VolumeId;
    /// A snapshot of a volume.
    SnapshotId;
    /// An image.
    ImageId;
    /// A virtual private cloud: an isolated network.
    VpcId;
    /// A subnet of a VPC.
    SubnetId;
    /// A port: a NIC's switch port.
    PortId;
    /// A security group.
    SecurityGroupId;
    /// An event of the audit log.
    EventId;
}

impl PortId {
    /// The tap device of this port on its host: `tap` and the id's first eleven hex digits, fourteen characters in all
    /// (Linux allows fifteen: `IFNAMSIZ` in netdevice(7)).
    #[must_use]
    pub fn tap_device(&self) -> String {
        let hex = self.0.simple().to_string();
        format!("tap{}", &hex[..11])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_device_fits_the_kernels_limit_and_is_stable() {
        let port: PortId = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        assert_eq!(port.tap_device(), "tap550e8400e29");
        assert!(port.tap_device().len() <= 15);
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        for bad in ["", "x", "550e8400e29b41d4a716446655440000", "{550e8400-e29b-41d4-a716-446655440000}"] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad}");
        }
        let id = VolumeId::random();
        assert_eq!(id.to_string().parse::<VolumeId>().unwrap(), id);
    }
}
