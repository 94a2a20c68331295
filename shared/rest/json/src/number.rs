//! Numbers: 64-bit integers go out as strings; `1.0` is an integer, `1.5` is not.
use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

use crate::codec::Codec;

/// A number field.
pub struct Num;

/// What a JSON token may become.
trait Number: Copy + Sized {
    const EXPECTED: &'static str;
    fn from_int(value: i128) -> Option<Self>;
    fn from_float(value: f64) -> Option<Self>;
    fn from_text(text: &str) -> Option<Self>;
}

struct NumVisitor<T>(PhantomData<T>);

impl<T: Number> NumVisitor<T> {
    fn refused<E: Error>(value: impl fmt::Display) -> E {
        E::custom(format_args!("invalid value `{value}`, expected {}", T::EXPECTED))
    }
}

impl<T: Number> Visitor<'_> for NumVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        T::from_int(value.into()).ok_or_else(|| Self::refused(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        T::from_int(value.into()).ok_or_else(|| Self::refused(value))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        T::from_float(value).ok_or_else(|| Self::refused(value))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).ok_or_else(|| Self::refused(text))
    }
}

/// The whole number that a JSON float is, if it is one and exact.
fn whole(value: f64) -> Option<i128> {
    // Beyond 2^53 a float stands for many integers: which one was meant is not known.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i128)
}

macro_rules! integer {
    ($type:ty, $expected:literal, $text:expr, $write:expr) => {
        impl Number for $type {
            const EXPECTED: &'static str = $expected;
            fn from_int(value: i128) -> Option<Self> {
                Self::try_from(value).ok()
            }
            fn from_float(value: f64) -> Option<Self> {
                whole(value).and_then(Self::from_int)
            }
            fn from_text(text: &str) -> Option<Self> {
                let parse: fn(&str) -> Option<Self> = $text;
                parse(text)
            }
        }
        impl Codec<$type> for Num {
            fn write<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type, S) -> Result<S::Ok, S::Error> = $write;
                write(value, serializer)
            }
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                deserializer.deserialize_any(NumVisitor::<$type>(PhantomData))
            }
        }
    };
}

/// The digits of a 64-bit integer in a string: a sign of its own is the only other thing allowed.
fn digits(text: &str) -> Option<&str> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    (!unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

integer!(i32, "a whole number from -2147483648 to 2147483647", |_| None, |v, s| s.serialize_i32(*v));
integer!(u32, "a whole number from 0 to 4294967295", |_| None, |v, s| s.serialize_u32(*v));
integer!(i64, "a whole number of 64 bits, as a number or a string", |text| digits(text)?.parse().ok(), |v, s| s
    .collect_str(v));
integer!(
    u64,
    "a whole number of 64 bits that is not negative, as a number or a string",
    |text| digits(text)?.parse().ok(),
    |v, s| s.collect_str(v)
);

macro_rules! float {
    ($type:ty, $write:ident) => {
        impl Number for $type {
            const EXPECTED: &'static str = "a number";
            #[allow(clippy::cast_precision_loss)]
            fn from_int(value: i128) -> Option<Self> {
                Some(value as $type)
            }
            #[allow(clippy::cast_possible_truncation)]
            fn from_float(value: f64) -> Option<Self> {
                let value = value as $type;
                value.is_finite().then_some(value)
            }
            fn from_text(text: &str) -> Option<Self> {
                match text {
                    "NaN" => Some(<$type>::NAN),
                    "Infinity" => Some(<$type>::INFINITY),
                    "-Infinity" => Some(<$type>::NEG_INFINITY),
                    _ => None,
                }
            }
        }
        impl Codec<$type> for Num {
            fn write<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                if value.is_finite() {
                    return serializer.$write(*value);
                }
                serializer.serialize_str(match () {
                    () if value.is_nan() => "NaN",
                    () if *value > 0.0 => "Infinity",
                    () => "-Infinity",
                })
            }
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                deserializer.deserialize_any(NumVisitor::<$type>(PhantomData))
            }
        }
    };
}

float!(f32, serialize_f32);
float!(f64, serialize_f64);
