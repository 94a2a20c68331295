//! `bytes` as base64, standard or URL-safe, padded or not.
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use bytes::Bytes;
use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};
use std::fmt;

use crate::codec::Codec;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A bytes field.
pub struct Base64;

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base64 string")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        let engine = if text.contains(['-', '_']) { &URL_LENIENT } else { &STANDARD_LENIENT };
        match engine.decode(text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(E::custom(format_args!("not base64: {error}"))),
        }
    }
}

impl Codec<Bytes> for Base64 {
    fn write<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(value))
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_str(BytesVisitor)
    }
}
