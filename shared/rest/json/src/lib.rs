//! The JSON of protobuf messages.
//!
//! Generated code names one [`Codec`] per field: what a protobuf type looks like in JSON is said here, once,
//! and the generated code stays three lines per field. The rules are those of the protobuf JSON mapping with these
//! choices:
//!
//! - fields go out under their proto names (`created_at`), and come in as snake or camel case;
//! - fields without presence always go out, zero values too; absent messages and `optional` fields do not;
//! - enums are their names, and only names come in; a number without a name (a newer peer's) goes out as the number;
//! - 64-bit integers go out as strings and come in as numbers or strings; 32-bit ones are numbers only, `1.0` included;
//! - `null` means absent where a field has presence, and is refused elsewhere;
//! - unknown and repeated keys are refused; of a oneof, one field may be set.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bytes_;
mod codec;
mod enums;
mod message;
mod number;
mod well_known;

pub use bytes_::Base64;
pub use codec::{As, Codec, List, Nullable, Plain, Seed, Table};
pub use enums::{Enum, EnumNames};
pub use message::{Message, deserialize, put, take, take_oneof};
pub use number::Num;
pub use well_known::{Empty, Mask, Span, Time};

#[cfg(test)]
mod tests;
