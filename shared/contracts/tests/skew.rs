//! A release and the one before it understand each other: what either sends is read by the other, and nothing that both know is lost.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{fs, path::Path};

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// A value that is not the default one.
fn sample(kind: &Kind, depth: u32) -> Option<Value> {
    Some(match kind {
        Kind::Double => Value::F64(1.5),
        Kind::Float => Value::F32(1.5),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(7),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(7),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(7),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(7),
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String("seven".into()),
        Kind::Bytes => Value::Bytes(vec![7].into()),
        Kind::Enum(of) => Value::EnumNumber(of.values().find(|v| v.number() != 0)?.number()),
        Kind::Message(of) if depth > 0 => Value::Message(filled(of, depth - 1)),
        Kind::Message(_) => return None,
    })
}

fn filled_field(field: &FieldDescriptor, depth: u32) -> Option<Value> {
    let kind = field.kind();
    if field.is_map() {
        let entry = kind.as_message()?.clone();
        let value = sample(&entry.map_entry_value_field().kind(), depth)?;
        assert_eq!(entry.map_entry_key_field().kind(), Kind::String, "all maps here are by text");
        return Some(Value::Map([(MapKey::String("key".into()), value)].into()));
    }
    let value = sample(&kind, depth)?;
    Some(if field.cardinality() == Cardinality::Repeated { Value::List(vec![value.clone(), value]) } else { value })
}

/// A message with every field set.
fn filled(of: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        if let Some(value) = filled_field(&field, depth) {
            message.set_field(&field, value);
        }
    }
    message
}

/// What is sent in one form is read in the other, and what the other knows of it comes back the same.
fn is_read(from: &MessageDescriptor, by: &MessageDescriptor) {
    use prost_reflect::prost::Message as _;
    let sent = filled(from, 3);
    let read = DynamicMessage::decode(by.clone(), sent.encode_to_vec().as_slice());
    let read = read.unwrap_or_else(|error| panic!("{} is not read: {error}", from.full_name()));
    // Of those that exclude each other, one is set.
    let is_sent = |number| from.get_field(number).is_some_and(|field| sent.has_field(&field));
    for field in by.fields().filter(|field| is_sent(field.number())) {
        assert!(read.has_field(&field), "{} lost {}", from.full_name(), field.name());
    }
    // What it does not know it hands on.
    let again = DynamicMessage::decode(from.clone(), read.encode_to_vec().as_slice()).unwrap();
    assert_eq!(again, sent, "{} is not the same after it", from.full_name());
}

#[test]
fn what_either_release_sends_is_read_by_the_other() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/released");
    let now = DescriptorPool::decode(cloud_contracts::DESCRIPTORS).unwrap();
    let mut methods = 0;
    for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|e| e != "binpb") {
            continue;
        }
        let then = DescriptorPool::decode(fs::read(&path).unwrap().as_slice()).unwrap();
        let ours = |package: &str| matches!(package, "cloud.v1" | "cloud.agent.v1");
        for service in then.services().filter(|service| ours(service.package_name())) {
            let present = now.get_service_by_name(service.full_name()).unwrap();
            for old in service.methods() {
                let new = present.methods().find(|method| method.name() == old.name()).unwrap();
                for (a, b) in [(old.input(), new.input()), (old.output(), new.output())] {
                    is_read(&a, &b);
                    is_read(&b, &a);
                }
                methods += 1;
            }
        }
    }
    assert!(methods > 50, "{methods}");
}
