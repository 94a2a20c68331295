//! Objects: what generated messages implement, and the loop over keys that all of them share.
use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::codec::{As, Codec, Nullable, Seed};

/// A protobuf message as generated code describes it to [`deserialize`].
pub trait Message: Default {
    /// The full protobuf name.
    const NAME: &'static str;
    /// The proto names of the fields, by index.
    const FIELDS: &'static [&'static str];
    /// The index of a field, by its proto or its camel-case name.
    fn index(name: &str) -> Option<usize>;
    /// Reads the value of the field that `index` names from a map and stores it.
    ///
    /// # Errors
    /// Those of the map, and values that the field cannot take.
    fn read<'de, A: MapAccess<'de>>(&mut self, index: usize, map: &mut A) -> Result<(), A::Error>;
}

/// Reads a message: the body of every generated `Deserialize`.
///
/// # Errors
/// Those of the deserializer, unknown and repeated keys, values that a field cannot take.
pub fn deserialize<'de, M: Message, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
    deserializer.deserialize_map(MessageVisitor::<M>(PhantomData))
}

/// Writes a field by its codec.
///
/// # Errors
/// Those of the serializer.
pub fn put<C: Codec<T>, T, M: SerializeMap>(map: &mut M, name: &'static str, value: &T) -> Result<(), M::Error> {
    map.serialize_entry(name, &As::<C, T>::new(value))
}

/// Reads a field by its codec.
///
/// # Errors
/// Those of the map, and values that the codec refuses.
pub fn take<'de, C: Codec<T>, T, A: MapAccess<'de>>(map: &mut A) -> Result<T, A::Error> {
    map.next_value_seed(Seed::<C, T>::default())
}

/// Reads a field of a oneof into `slot`, if it is not null.
///
/// # Errors
/// As [`take`], and when another field of the oneof is set already.
pub fn take_oneof<'de, C: Codec<T>, T, A: MapAccess<'de>, O>(
    map: &mut A,
    slot: &mut Option<O>,
    wrap: fn(T) -> O,
    fields: &'static str,
) -> Result<(), A::Error> {
    if let Some(value) = take::<Nullable<C>, Option<T>, A>(map)? {
        if slot.is_some() {
            return Err(A::Error::custom(format_args!("only one of {fields} may be set")));
        }
        *slot = Some(wrap(value));
    }
    Ok(())
}

struct Key<M>(PhantomData<M>);

impl<'de, M: Message> DeserializeSeed<'de> for Key<M> {
    type Value = usize;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<M: Message> Visitor<'_> for Key<M> {
    type Value = usize;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a field of {}", M::NAME)
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        M::index(name).ok_or_else(|| match M::FIELDS {
            [] => E::custom(format_args!("unknown field `{name}`; {} has no fields", M::NAME)),
            fields => E::custom(format_args!("unknown field `{name}`; the fields are {}", fields.join(", "))),
        })
    }
}

struct MessageVisitor<M>(PhantomData<M>);

impl<'de, M: Message> Visitor<'de> for MessageVisitor<M> {
    type Value = M;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", M::NAME)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<M, A::Error> {
        let mut message = M::default();
        // Messages are narrow: 128 fields in two words; a lint of the contracts keeps them so.
        let mut seen = 0u128;
        while let Some(index) = map.next_key_seed(Key::<M>(PhantomData))? {
            let bit = 1u128.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
            if seen & bit != 0 {
                let name = M::FIELDS.get(index).copied().unwrap_or_default();
                return Err(A::Error::custom(format_args!("the field `{name}` is there twice")));
            }
            seen |= bit;
            message.read(index, &mut map)?;
        }
        Ok(message)
    }
}
