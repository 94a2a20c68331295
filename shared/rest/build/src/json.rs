//! serde for messages and enums: one codec of `cloud-json` per field.
use std::fmt::Write;

use anyhow::{Result, bail, ensure};
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::{
    names::{Names, camel, snake},
    options::input_only,
};

/// Generates serde for every message and enum of the package.
///
/// # Errors
/// Types that have no codec, naming the field.
pub fn generate(pool: &DescriptorPool, names: &Names) -> Result<String> {
    let mut out = String::new();
    let messages = pool.all_messages().filter(|message| message.package_name() == names.package);
    for message in messages.filter(|message| !message.is_map_entry()) {
        write_message(&mut out, &message, names)?;
    }
    for descriptor in pool.all_enums().filter(|descriptor| descriptor.package_name() == names.package) {
        write_enum(&mut out, &descriptor, names)?;
    }
    Ok(out)
}

/// The codec of a single value of a field's type.
fn scalar(kind: &Kind, names: &Names, field: &FieldDescriptor) -> Result<String> {
    Ok(match kind {
        Kind::Bool | Kind::String => "::cloud_json::Plain".to_owned(),
        Kind::Bytes => "::cloud_json::Base64".to_owned(),
        Kind::Enum(descriptor) => format!("::cloud_json::Enum<{}>", names.enumeration(descriptor)),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => "::cloud_json::Time".to_owned(),
            "google.protobuf.Duration" => "::cloud_json::Span".to_owned(),
            "google.protobuf.FieldMask" => "::cloud_json::Mask".to_owned(),
            "google.protobuf.Empty" => "::cloud_json::Empty".to_owned(),
            _ if message.package_name() == names.package => "::cloud_json::Plain".to_owned(),
            other => bail!("{}: {other} has no JSON codec", field.full_name()),
        },
        _ => "::cloud_json::Num".to_owned(),
    })
}

/// The codec of a field.
fn codec(field: &FieldDescriptor, names: &Names) -> Result<String> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { bail!("{} is a map without entries", field.full_name()) };
        let string_keys = entry.map_entry_key_field().kind() == Kind::String;
        ensure!(string_keys, "{} has keys that are not strings", field.full_name());
        let value = scalar(&entry.map_entry_value_field().kind(), names, field)?;
        return Ok(format!("::cloud_json::Table<{value}>"));
    }
    let scalar = scalar(&field.kind(), names, field)?;
    Ok(if field.is_list() {
        format!("::cloud_json::List<{scalar}>")
    } else if has_option(field) {
        format!("::cloud_json::Nullable<{scalar}>")
    } else {
        scalar
    })
}

/// The oneof that a field is part of, the synthetic ones of `optional` left out.
#[must_use]
pub fn oneof(field: &FieldDescriptor) -> Option<prost_reflect::OneofDescriptor> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
}

/// Whether prost keeps the field as an `Option` of its own.
#[must_use]
pub fn has_option(field: &FieldDescriptor) -> bool {
    field.supports_presence() && oneof(field).is_none()
}

/// Whether a field is set, as an expression.
#[must_use]
pub fn is_set(field: &FieldDescriptor, place: &str) -> String {
    match field.kind() {
        _ if field.is_list() || field.is_map() => format!("!self.{place}.is_empty()"),
        _ if has_option(field) => format!("self.{place}.is_some()"),
        Kind::String | Kind::Bytes => format!("!self.{place}.is_empty()"),
        Kind::Bool => format!("self.{place}"),
        Kind::Float | Kind::Double => format!("self.{place} != 0.0"),
        _ => format!("self.{place} != 0"),
    }
}

fn write_message(out: &mut String, message: &MessageDescriptor, names: &Names) -> Result<()> {
    let path = names.message(message);
    let fields: Vec<_> = message.fields().collect();
    let mut write = String::new();
    let (mut read, mut index, mut list) = (String::new(), String::new(), String::new());
    for (i, field) in fields.iter().enumerate() {
        let (name, rust, codec) = (field.name(), snake(field.name()), codec(field, names)?);
        match oneof(field) {
            Some(oneof) => {
                let (slot, variant) = (snake(oneof.name()), format!("{}::{}", names.oneof(&oneof), camel(name)));
                writeln!(
                    write,
                    "if let Some({variant}(v)) = &self.{slot} {{ ::cloud_json::put::<{codec}, _, _>(&mut map, {name:?}, v)?; }}"
                )?;
                let others: Vec<_> = oneof.fields().map(|field| field.name().to_owned()).collect();
                let others = others.join(", ");
                writeln!(
                    read,
                    "{i} => ::cloud_json::take_oneof::<{codec}, _, _, _>(map, &mut self.{slot}, {variant}, {others:?})?,"
                )?;
            }
            None => {
                // A secret that only comes in is not even named on its way out.
                let guard = match has_option(field) || input_only(field) {
                    true => format!("if {} ", is_set(field, &rust)),
                    false => String::new(),
                };
                writeln!(write, "{guard}{{ ::cloud_json::put::<{codec}, _, _>(&mut map, {name:?}, &self.{rust})?; }}")?;
                writeln!(read, "{i} => self.{rust} = ::cloud_json::take::<{codec}, _, _>(map)?,")?;
            }
        }
        let json = field.json_name();
        let camel = if json == name { String::new() } else { format!(" | {json:?}") };
        writeln!(index, "{name:?}{camel} => {i},")?;
        write!(list, "{name:?}, ")?;
    }
    writeln!(
        out,
        "impl ::serde::Serialize for {path} {{
            #[allow(unused_mut)]
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {{
                let mut map = ::serde::Serializer::serialize_map(serializer, None)?;
                {write}
                ::serde::ser::SerializeMap::end(map)
            }}
        }}
        impl<'de> ::serde::Deserialize<'de> for {path} {{
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {{
                ::cloud_json::deserialize(deserializer)
            }}
        }}
        impl ::cloud_json::Message for {path} {{
            const NAME: &'static str = {full_name:?};
            const FIELDS: &'static [&'static str] = &[{list}];
            #[allow(unreachable_code)]
            fn index(name: &str) -> ::std::option::Option<usize> {{
                ::std::option::Option::Some(match name {{ {index} _ => return ::std::option::Option::None }})
            }}
            #[allow(unused_variables)]
            fn read<'de, A: ::serde::de::MapAccess<'de>>(&mut self, index: usize, map: &mut A) -> ::std::result::Result<(), A::Error> {{
                match index {{ {read} _ => {{}} }}
                ::std::result::Result::Ok(())
            }}
        }}",
        full_name = message.full_name(),
    )?;
    Ok(())
}

fn write_enum(out: &mut String, descriptor: &EnumDescriptor, names: &Names) -> Result<()> {
    let path = names.enumeration(descriptor);
    let list: String = descriptor.values().map(|value| format!("{:?}, ", value.name())).collect();
    writeln!(
        out,
        "impl ::cloud_json::EnumNames for {path} {{
            const NAMES: &'static [&'static str] = &[{list}];
            fn name(number: i32) -> ::std::option::Option<&'static str> {{
                Self::try_from(number).ok().map(|value| value.as_str_name())
            }}
            fn number(name: &str) -> ::std::option::Option<i32> {{
                Self::from_str_name(name).map(|value| value as i32)
            }}
        }}"
    )?;
    Ok(())
}
