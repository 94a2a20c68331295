//! The calls that a simulated host answers, as names that faults and counters use.

use std::fmt;

/// The three daemons of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// compute-agent.
    Compute,
    /// storage-agent.
    Storage,
    /// network-agent.
    Network,
}

impl Role {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Compute, Self::Storage, Self::Network];

    /// As in file names: `compute`, `storage`, `network`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Storage => "storage",
            Self::Network => "network",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! methods {
    ($($role:ident $kind:ident { $($name:ident),* $(,)? })*) => {
        /// A method of the agent contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the contract documents them")]
        pub enum Method { $($($name,)*)* }

        impl Method {
            /// Every method.
            pub const ALL: &[Self] = &[$($(Self::$name,)*)*];

            /// Whose method it is.
            #[must_use]
            pub const fn role(self) -> Role {
                match self { $($(Self::$name)|* => Role::$role,)* }
            }

            /// Whether it may change the host.
            #[must_use]
            pub const fn is_mutation(self) -> bool {
                match self { $($(Self::$name)|* => methods!(@ $kind),)* }
            }

            /// As in the contract, such as `EnsureInstance`; the network-agent's `ListVpcs` and the like are unique across the three.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$name => stringify!($name),)*)* }
            }
        }
    };
    (@ mutation) => { true };
    (@ reading) => { false };
}

methods! {
    Compute mutation { EnsureInstance, StopInstance, RemoveInstance, ResizeDisk, AttachDisk, DetachDisk }
    Compute reading { GetInstance, ListInstances, WatchInstances, GetConsoleLog, StreamConsole }
    Storage mutation { PutImage, RemoveImage, EnsureVolume, RemoveVolume, ResizeVolume, EnsureSnapshot, RemoveSnapshot }
    Storage reading { GetImage, ListImages, ListVolumes, ListSnapshots }
    Network mutation { ApplyVpc, RemoveVpc }
    Network reading { ListVpcs }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
