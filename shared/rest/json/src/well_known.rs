//! The well-known types that have a JSON of their own, on the types of `prost-types`.
use std::fmt;

use prost_types::{Duration, FieldMask, Timestamp};
use serde::{
    Deserializer, Serializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::codec::Codec;

/// `google.protobuf.Timestamp`: RFC 3339 with `Z`; any offset comes in.
pub struct Time;

/// `google.protobuf.Duration`: seconds with an `s`, such as `1.5s`.
pub struct Span;

/// `google.protobuf.FieldMask`: paths with commas between; proto names out, snake and camel case in.
pub struct Mask;

/// `google.protobuf.Empty`: an empty object.
pub struct Empty;

/// Reads a string and parses it.
struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::custom(format_args!("invalid value `{text}`, expected {}", self.expected)))
    }
}

/// RFC 3339's first and last second: 0001-01-01T00:00:00Z, 9999-12-31T23:59:59Z.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

fn parse_time(text: &str) -> Option<Timestamp> {
    // The parser of prost-types also takes dates without a time or an offset; RFC 3339 has both.
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let zoned = time.ends_with(['Z', 'z']) || time.get(8..)?.contains(['+', '-']);
    if date.len() != 10 || !zoned {
        return None;
    }
    text.to_ascii_uppercase().parse().ok().filter(|t: &Timestamp| SECONDS.contains(&t.seconds))
}

impl Codec<Timestamp> for Time {
    fn write<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let expected = "a time such as 2026-01-31T12:00:00Z (RFC 3339)";
        deserializer.deserialize_str(Text { expected, parse: parse_time })
    }
}

/// The most seconds of a Duration: about 10,000 years.
const SPAN: i64 = 315_576_000_000;

fn parse_span(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: i64 = whole.parse().ok().filter(|s| *s <= SPAN)?;
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    let sign = if negative { -1 } else { 1 };
    Some(Duration { seconds: seconds * i64::from(sign), nanos: nanos * sign })
}

impl Codec<Duration> for Span {
    fn write<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let expected = "seconds such as 90s or 1.5s";
        deserializer.deserialize_str(Text { expected, parse: parse_span })
    }
}

fn snake(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn parse_mask(text: &str) -> Option<FieldMask> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '*');
    let paths: Vec<&str> = text.split(',').map(str::trim).filter(|path| !path.is_empty()).collect();
    if paths.iter().any(|path| !path.chars().all(allowed)) {
        return None;
    }
    Some(FieldMask { paths: paths.into_iter().map(snake).collect() })
}

impl Codec<FieldMask> for Mask {
    fn write<S: Serializer>(value: &FieldMask, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.paths.join(","))
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FieldMask, D::Error> {
        let expected = "field paths with commas between, such as name,labels";
        deserializer.deserialize_str(Text { expected, parse: parse_mask })
    }
}

struct EmptyVisitor;

impl<'de> Visitor<'de> for EmptyVisitor {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an empty object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match map.next_entry::<String, IgnoredAny>()? {
            None => Ok(()),
            Some((name, _)) => Err(A::Error::custom(format_args!("unknown field `{name}`; the object is empty"))),
        }
    }
}

impl Codec<()> for Empty {
    fn write<S: Serializer>((): &(), serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(EmptyVisitor)
    }
}
