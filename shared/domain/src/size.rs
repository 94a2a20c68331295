//! Sizes with their unit in the type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {min} to {max}, is {value}")]
pub struct SizeError {
    value: u64,
    min: u64,
    max: u64,
}

/// Gibibytes, 1 to 65,536.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Gib(u32);

/// Mebibytes, 1 to 67,108,864 (64 TiB).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Mib(u32);

macro_rules! sizes {
    ($($name:ident, $max:literal, $shift:literal, $unit:literal;)*) => {$(
        impl $name {
            /// The number of units.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The size in bytes.
            #[must_use]
            pub const fn bytes(self) -> u64 {
                (self.0 as u64) << $shift
            }

            /// The smallest size that holds this many bytes.
            ///
            /// # Errors
            /// Where that is more than the largest size.
            pub fn holding(bytes: u64) -> Result<Self, SizeError> {
                bytes.div_ceil(1 << $shift).max(1).try_into()
            }
        }

        impl TryFrom<u64> for $name {
            type Error = SizeError;

            fn try_from(value: u64) -> Result<Self, SizeError> {
                match u32::try_from(value) {
                    Ok(n) if (1..=$max).contains(&n) => Ok(Self(n)),
                    _ => Err(SizeError { value, min: 1, max: $max }),
                }
            }
        }

        impl From<$name> for u64 {
            fn from(size: $name) -> u64 {
                size.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{} ", $unit), self.0)
            }
        }
    )*};
}

sizes! {
    Gib, 65_536, 30, "GiB";
    Mib, 67_108_864, 20, "MiB";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_holds_its_bytes() {
        assert_eq!(Gib::holding(1).unwrap().bytes(), 1 << 30);
        assert_eq!(Gib::holding((1 << 30) + 1).unwrap().get(), 2);
        assert!(Gib::holding(u64::MAX).is_err());
        assert!(Gib::try_from(0).is_err());
        assert_eq!(Mib::try_from(128).unwrap().to_string(), "128 MiB");
    }
}
