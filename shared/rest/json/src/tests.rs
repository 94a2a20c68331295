use bytes::Bytes;
use proptest::prelude::*;
use prost_types::{Duration, FieldMask, Timestamp};
use serde_json::{Value, json};

use crate::{As, Base64, Codec, List, Mask, Nullable, Num, Seed, Span, Table, Time};
use serde::de::DeserializeSeed;

fn write<C: Codec<T>, T>(value: &T) -> Value {
    serde_json::to_value(As::<C, T>::new(value)).unwrap()
}

fn read<C: Codec<T>, T>(text: &str) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed::<C, T>::default().deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[test]
fn long_integers_go_out_as_strings_and_come_in_as_either() {
    assert_eq!(write::<Num, i64>(&-5), json!("-5"));
    assert_eq!(write::<Num, u64>(&u64::MAX), json!("18446744073709551615"));
    assert_eq!(read::<Num, i64>("-5"), Ok(-5));
    assert_eq!(read::<Num, i64>("\"-5\""), Ok(-5));
    assert_eq!(read::<Num, u64>("\"18446744073709551615\""), Ok(u64::MAX));
    for wrong in
        ["\"18446744073709551616\"", "-1", "\"+1\"", "\"\"", "\"-\"", "\"1.5\"", "\" 1\"", "1e30", "true", "null", "[]"]
    {
        assert!(read::<Num, u64>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn short_integers_are_numbers_and_whole() {
    assert_eq!(write::<Num, i32>(&-5), json!(-5));
    assert_eq!(read::<Num, i32>("1.0"), Ok(1));
    assert_eq!(read::<Num, u32>("4e2"), Ok(400));
    for wrong in ["\"5\"", "1.5", "2147483648", "null", "{}"] {
        assert!(read::<Num, i32>(wrong).is_err(), "{wrong}");
    }
    let error = read::<Num, i32>("1.5").unwrap_err();
    assert!(error.starts_with("invalid value `1.5`, expected a whole number"), "{error}");
}

#[test]
fn floats_that_json_has_no_number_for_are_words() {
    assert_eq!(write::<Num, f64>(&f64::NEG_INFINITY), json!("-Infinity"));
    assert!(read::<Num, f64>("\"NaN\"").unwrap().is_nan());
    assert_eq!(read::<Num, f64>("2"), Ok(2.0));
    assert!(read::<Num, f32>("1e300").is_err(), "more than a float holds");
    assert!(read::<Num, f64>("\"1.5\"").is_err());
}

#[test]
fn bytes_come_in_standard_and_url_safe() {
    let bytes = Bytes::from_static(&[0xfb, 0xff, 0x01]);
    assert_eq!(write::<Base64, Bytes>(&bytes), json!("+/8B"));
    for text in ["\"+/8B\"", "\"-_8B\""] {
        assert_eq!(read::<Base64, Bytes>(text), Ok(bytes.clone()));
    }
    assert_eq!(read::<Base64, Bytes>("\"AA\""), Ok(Bytes::from_static(&[0])));
    assert!(read::<Base64, Bytes>("\"&\"").unwrap_err().starts_with("not base64"));
}

#[test]
fn times_are_rfc_3339() {
    let time = Timestamp { seconds: 1_769_860_800, nanos: 0 };
    assert_eq!(write::<Time, Timestamp>(&time), json!("2026-01-31T12:00:00Z"));
    assert_eq!(write::<Time, Timestamp>(&Timestamp { nanos: 1_000, ..time }), json!("2026-01-31T12:00:00.000001Z"));
    for text in
        ["2026-01-31T12:00:00Z", "2026-01-31t12:00:00z", "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00.000Z"]
    {
        assert_eq!(read::<Time, Timestamp>(&format!("{text:?}")), Ok(time), "{text}");
    }
    let out_of_range = "9999-12-31T23:59:59-23:59";
    for text in [
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-02-31T12:00:00Z",
        "yesterday",
        "",
        out_of_range,
        "ü-----------------",
    ] {
        assert!(read::<Time, Timestamp>(&format!("{text:?}")).is_err(), "{text}");
    }
}

#[test]
fn spans_are_seconds() {
    let span = Duration { seconds: -1, nanos: -500_000_000 };
    assert_eq!(write::<Span, Duration>(&span), json!("-1.500s"));
    assert_eq!(read::<Span, Duration>("\"-1.5s\""), Ok(span));
    assert_eq!(read::<Span, Duration>("\"90s\""), Ok(Duration { seconds: 90, nanos: 0 }));
    for wrong in ["90", "1.s", ".5s", "1.0000000001s", "s", "1 s", "315576000001s", "+1s"] {
        assert!(read::<Span, Duration>(&format!("{wrong:?}")).is_err(), "{wrong}");
    }
}

#[test]
fn masks_are_one_string_under_proto_names() {
    let mask = FieldMask { paths: vec!["display_name".into(), "spec.size_gib".into()] };
    assert_eq!(write::<Mask, FieldMask>(&mask), json!("display_name,spec.size_gib"));
    assert_eq!(read::<Mask, FieldMask>("\"displayName, spec.sizeGib\""), Ok(mask));
    assert_eq!(read::<Mask, FieldMask>("\"\""), Ok(FieldMask::default()));
    assert!(read::<Mask, FieldMask>("\"a b\"").is_err());
}

#[test]
fn null_is_absent_only_where_there_is_presence() {
    assert_eq!(read::<Nullable<Num>, Option<i32>>("null"), Ok(None));
    assert_eq!(read::<Nullable<Num>, Option<i32>>("0"), Ok(Some(0)));
    assert!(read::<List<Num>, Vec<i32>>("null").is_err());
    assert!(read::<List<Num>, Vec<i32>>("[null]").is_err());
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    let error = read::<Table<Num>, std::collections::BTreeMap<String, i64>>("{\"a\":1,\"a\":2}").unwrap_err();
    assert!(error.contains("`a` is there twice"), "{error}");
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        long in any::<i64>(),
        short in any::<u32>(),
        bytes in any::<Vec<u8>>(),
        float in prop::num::f64::NORMAL,
    ) {
        prop_assert_eq!(read::<Num, i64>(&write::<Num, i64>(&long).to_string()), Ok(long));
        prop_assert_eq!(read::<Num, u32>(&write::<Num, u32>(&short).to_string()), Ok(short));
        let bytes = Bytes::from(bytes);
        prop_assert_eq!(read::<Base64, Bytes>(&write::<Base64, Bytes>(&bytes).to_string()), Ok(bytes));
        let back = read::<Num, f64>(&write::<Num, f64>(&float).to_string()).unwrap();
        // serde_json without `float_roundtrip` may miss by the last bits.
        prop_assert!((back - float).abs() <= float.abs() * 1e-14, "{} {}", back, float);
    }

    #[test]
    fn times_and_spans_survive(seconds in -62_135_596_800i64..=253_402_300_799, nanos in 0i32..1_000_000_000) {
        let time = Timestamp { seconds, nanos };
        prop_assert_eq!(read::<Time, Timestamp>(&write::<Time, Timestamp>(&time).to_string()), Ok(time));
        let span = Duration { seconds: seconds.abs(), nanos };
        prop_assert_eq!(read::<Span, Duration>(&write::<Span, Duration>(&span).to_string()), Ok(span));
    }
}
