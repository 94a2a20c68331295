//! Enums as their names.
use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

use crate::codec::Codec;

/// The names of an enum's values; implemented by generated code.
pub trait EnumNames {
    /// Every name, as written in the proto.
    const NAMES: &'static [&'static str];
    /// The name of a number.
    fn name(number: i32) -> Option<&'static str>;
    /// The number of a name.
    fn number(name: &str) -> Option<i32>;
}

/// An enum field, which prost keeps as `i32`.
pub struct Enum<E>(PhantomData<E>);

struct EnumVisitor<E>(PhantomData<E>);

impl<N: EnumNames> Visitor<'_> for EnumVisitor<N> {
    type Value = i32;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", N::NAMES.join(", "))
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<i32, E> {
        N::number(name)
            .ok_or_else(|| E::custom(format_args!("unknown value `{name}`, expected one of {}", N::NAMES.join(", "))))
    }
}

impl<N: EnumNames> Codec<i32> for Enum<N> {
    fn write<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        match N::name(*number) {
            Some(name) => serializer.serialize_str(name),
            // A newer peer's value: failing here would take a whole list with it.
            None => serializer.serialize_i32(*number),
        }
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        deserializer.deserialize_str(EnumVisitor::<N>(PhantomData))
    }
}
