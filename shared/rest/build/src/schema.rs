//! JSON Schemas of messages. What comes in and what goes out differ: 64-bit integers, presence, unknown fields.
use std::collections::{BTreeMap, HashSet};

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::{
    comments::Comments,
    json::{has_option, oneof},
    options::{FieldRules, input_only, output_only, required},
};

/// Strings without NUL, which validation refuses.
const NO_NUL: &str = r"^[^\u0000]*$";

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From a client.
    In,
    /// From a client, beside a field mask: nothing is required.
    Patch,
    /// From the server.
    Out,
}

/// The schemas of a document, made as they are needed.
pub struct Schemas<'a> {
    comments: &'a Comments,
    package: String,
    /// Messages that some response carries: as requests they need a schema of another name.
    outputs: HashSet<String>,
    done: BTreeMap<String, Value>,
}

impl<'a> Schemas<'a> {
    /// No schemas yet. `outputs` are the messages that responses carry.
    pub fn new(comments: &'a Comments, package: &str, outputs: impl Iterator<Item = MessageDescriptor>) -> Self {
        let mut reached = HashSet::new();
        outputs.for_each(|message| reach(&message, &mut reached));
        Schemas { comments, package: package.to_owned(), outputs: reached, done: BTreeMap::new() }
    }

    /// Adds a schema that is not of a message.
    pub fn add(&mut self, name: &str, schema: Value) {
        self.done.insert(name.to_owned(), schema);
    }

    /// All of them, by name.
    pub fn finish(self) -> BTreeMap<String, Value> {
        self.done
    }

    fn short(&self, full_name: &str) -> String {
        full_name.strip_prefix(&format!("{}.", self.package)).unwrap_or(full_name).to_owned()
    }

    fn refer(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.done.contains_key(name) {
            // First the name, so that a message within itself ends.
            self.done.insert(name.to_owned(), Value::Null);
            let schema = make(self);
            self.done.insert(name.to_owned(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// A reference to the schema of a message.
    pub fn message(&mut self, message: &MessageDescriptor, way: Way) -> Value {
        let mut name = self.short(message.full_name());
        match way {
            Way::In if self.outputs.contains(message.full_name()) => name += "Input",
            Way::Patch => name += "Patch",
            Way::In | Way::Out => {}
        }
        self.refer(&name, |schemas| schemas.object(message, way, &[]))
    }

    /// A reference to the schema of a body: a request without the fields in its path.
    pub fn body(&mut self, message: &MessageDescriptor, without: &[&str]) -> Value {
        let mut name = self.short(message.full_name());
        let schema = self.object(message, Way::In, without);
        while self.done.get(&name).is_some_and(|other| *other != schema) {
            name += "Body";
        }
        self.refer(&name, |_| schema)
    }

    fn object(&mut self, message: &MessageDescriptor, way: Way, without: &[&str]) -> Value {
        let (mut properties, mut needed) = (Map::new(), Vec::new());
        for field in message.fields().filter(|field| !without.contains(&field.name())) {
            let hidden = match way {
                Way::In | Way::Patch => FieldRules::read(&field).not_built,
                Way::Out => input_only(&field),
            };
            if hidden {
                continue;
            }
            let always = match way {
                Way::In => required(&field),
                Way::Patch => false,
                Way::Out => !has_option(&field) && oneof(&field).is_none(),
            };
            if always {
                needed.push(field.name().to_owned());
            }
            let holds = matches!(field.kind(), Kind::Message(_));
            let inner = if way == Way::In && holds && masked(message) { Way::Patch } else { way };
            properties.insert(field.name().to_owned(), self.field(&field, inner));
        }
        let mut schema = json!({"type": "object", "properties": properties});
        let about = self.comments.of(&message.parent_file(), message.path());
        describe(&mut schema, about);
        if !needed.is_empty() {
            schema["required"] = needed.into();
        }
        if way != Way::Out {
            schema["additionalProperties"] = false.into();
            exclusive(&mut schema, message, without);
        }
        schema
    }

    /// The schema of a field.
    pub fn field(&mut self, field: &FieldDescriptor, way: Way) -> Value {
        let mut schema = self.value(field, way);
        describe(&mut schema, self.comments.of(&field.parent_message().parent_file(), field.path()));
        if way != Way::Out && output_only(field) {
            schema["readOnly"] = true.into();
        }
        schema
    }

    fn value(&mut self, field: &FieldDescriptor, way: Way) -> Value {
        let rules = if way == Way::Out { FieldRules::default() } else { FieldRules::read(field) };
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return json!({"type": "object"}) };
            let value = self.single(&entry.map_entry_value_field().kind(), &rules, way);
            let mut schema = json!({"type": "object", "additionalProperties": value});
            if way != Way::Out {
                schema["propertyNames"] = json!({"pattern": NO_NUL});
            }
            bound(&mut schema, "minProperties", rules.min_items);
            bound(&mut schema, "maxProperties", rules.max_items);
            return schema;
        }
        let single = self.single(&field.kind(), &rules, way);
        if field.is_list() {
            let mut schema = json!({"type": "array", "items": single});
            let least = if way == Way::In && required(field) { rules.min_items.or(Some(1)) } else { None };
            // An empty list is one that is not set; only a required one has a least length.
            bound(&mut schema, "minItems", least);
            bound(&mut schema, "maxItems", rules.max_items);
            return schema;
        }
        match way {
            Way::Out => single,
            Way::In if required(field) => nonzero(single, &field.kind()),
            Way::In | Way::Patch if has_option(field) || oneof(field).is_some() => {
                json!({"anyOf": [single, {"type": "null"}]})
            }
            Way::In | Way::Patch => zero_too(single, &field.kind(), &rules),
        }
    }

    fn single(&mut self, kind: &Kind, rules: &FieldRules, way: Way) -> Value {
        match kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Float | Kind::Double => json!({"type": "number"}),
            Kind::Bytes => {
                let mut schema = json!({"type": "string", "contentEncoding": "base64"});
                if way != Way::Out {
                    schema["pattern"] = base64(rules.max_len).into();
                }
                schema
            }
            Kind::String => {
                let mut schema = json!({"type": "string"});
                bound(&mut schema, "minLength", rules.min_len.filter(|min| *min > 0));
                bound(&mut schema, "maxLength", rules.max_len);
                let pattern = if way == Way::Out || !rules.pattern.is_empty() {
                    &rules.pattern
                } else {
                    &rules.documented_pattern
                };
                match pattern.as_str() {
                    "" if way != Way::Out => schema["pattern"] = NO_NUL.into(),
                    "" => {}
                    pattern => schema["pattern"] = format!("^(?:{pattern})$").into(),
                }
                schema
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                integer("int32", i128::from(i32::MIN), i128::from(i32::MAX), rules)
            }
            Kind::Uint32 | Kind::Fixed32 => integer("uint32", 0, i128::from(u32::MAX), rules),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                long("int64", i128::from(i64::MIN), i128::from(i64::MAX), rules, way)
            }
            Kind::Uint64 | Kind::Fixed64 => long("uint64", 0, i128::from(u64::MAX), rules, way),
            Kind::Enum(descriptor) => self.enumeration(descriptor),
            Kind::Message(message) => match message.full_name() {
                "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
                "google.protobuf.Duration" => json!({"type": "string", "pattern": r"^-?[0-9]{1,11}(\.[0-9]{1,9})?s$"}),
                "google.protobuf.FieldMask" => json!({"type": "string", "pattern": r"^[a-z0-9_.]*(,[a-z0-9_.]+)*$"}),
                "google.protobuf.Empty" => json!({"type": "object", "additionalProperties": false}),
                _ => self.message(message, way),
            },
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Value {
        let name = self.short(descriptor.full_name());
        self.refer(&name, |schemas| {
            let names: Vec<_> = descriptor.values().map(|value| value.name().to_owned()).collect();
            let mut about = schemas.comments.of(&descriptor.parent_file(), descriptor.path()).to_owned();
            for value in descriptor.values() {
                let text = schemas.comments.of(&descriptor.parent_file(), value.path());
                about += &format!("\n- `{}`: {text}", value.name());
            }
            let mut schema = json!({"type": "string", "enum": names});
            describe(&mut schema, &about);
            schema
        })
    }
}

/// Whether a field mask says which fields of a request count.
#[must_use]
pub fn masked(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| match field.kind() {
        Kind::Message(inner) => inner.full_name() == "google.protobuf.FieldMask",
        _ => false,
    })
}

/// The messages that a message holds, itself included.
fn reach(message: &MessageDescriptor, reached: &mut HashSet<String>) {
    if reached.insert(message.full_name().to_owned()) {
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind() {
                reach(&inner, reached);
            }
        }
    }
}

fn describe(schema: &mut Value, about: &str) {
    if !about.is_empty() {
        schema["description"] = about.into();
    }
}

fn bound(schema: &mut Value, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        schema[name] = value.into();
    }
}

fn number(value: i128) -> Value {
    i64::try_from(value).map(Value::from).or_else(|_| u64::try_from(value).map(Value::from)).unwrap_or_default()
}

fn integer(format: &str, least: i128, most: i128, rules: &FieldRules) -> Value {
    let least = rules.min.map_or(least, |min| least.max(min.into()));
    let most = rules.max.map_or(most, |max| most.min(max.into()));
    json!({"type": "integer", "format": format, "minimum": number(least), "maximum": number(most)})
}

/// A 64-bit integer: a string on its way out, either on its way in.
fn long(format: &str, least: i128, most: i128, rules: &FieldRules, way: Way) -> Value {
    if way == Way::Out {
        let sign = if least < 0 { "-?" } else { "" };
        return json!({"type": "string", "format": format, "pattern": format!("^{sign}[0-9]+$")});
    }
    let as_number = integer(format, least, most, rules);
    // As many digits as are in range whatever they are: a pattern says no more.
    let most = rules.max.map_or(most, i128::from).max(10);
    let more = most.to_string().len().saturating_sub(2);
    let floor = if rules.min.is_some_and(|min| min > 0) { "" } else { "0|" };
    if more == 0 {
        return as_number;
    }
    json!({"anyOf": [as_number, {"type": "string", "pattern": format!("^({floor}[1-9][0-9]{{0,{more}}})$")}]})
}

/// The pattern of base64 text of at most so many bytes.
fn base64(max_len: Option<u64>) -> String {
    const CHAR: &str = "[A-Za-z0-9+/]";
    // The last group of four characters, where it is of one or of two bytes.
    let (one, two) = (format!("{CHAR}{{2}}=="), format!("{CHAR}{{3}}="));
    let Some(max) = max_len else { return format!("^({CHAR}{{4}})*({one}|{two})?$") };
    let (groups, tail) = match (max / 3, max % 3) {
        (groups, 0) => (groups, String::new()),
        (groups, 1) => (groups, one.clone()),
        (groups, _) => (groups, format!("{one}|{two}")),
    };
    let last = format!("({CHAR}{{4}}){{{groups}}}({tail})?");
    match groups.checked_sub(1) {
        None => format!("^{last}$"),
        Some(fewer) => format!("^(({CHAR}{{4}}){{0,{fewer}}}({one}|{two})?|{last})$"),
    }
}

/// A required field is not its zero value either.
fn nonzero(mut schema: Value, kind: &Kind) -> Value {
    match kind {
        Kind::String | Kind::Bytes if schema.get("minLength").is_none() => schema["minLength"] = 1.into(),
        Kind::Enum(descriptor) => {
            let names: Vec<_> = descriptor.values().filter(|value| value.number() != 0).collect();
            let names: Vec<_> = names.iter().map(|value| value.name().to_owned()).collect();
            return json!({"allOf": [schema], "enum": names});
        }
        Kind::Float | Kind::Double => schema["not"] = json!({"const": 0}),
        _ if schema["minimum"] == json!(0) => schema["minimum"] = 1.into(),
        _ if schema["minimum"].as_i64().is_some_and(|min| min < 0) => schema["not"] = json!({"const": 0}),
        _ => {}
    }
    schema
}

/// A field without presence takes its zero value as "not set", whatever its rules say.
fn zero_too(schema: Value, kind: &Kind, rules: &FieldRules) -> Value {
    match kind {
        Kind::String if rules.min_len.unwrap_or(0) > 0 || !rules.pattern.is_empty() => {
            json!({"anyOf": [schema, {"type": "string", "maxLength": 0}]})
        }
        Kind::String | Kind::Bytes | Kind::Bool | Kind::Enum(_) | Kind::Message(_) => schema,
        _ if rules.min.unwrap_or(0) > 0 || rules.max.unwrap_or(0) < 0 => {
            json!({"anyOf": [schema, {"type": "integer", "const": 0}]})
        }
        _ => schema,
    }
}

/// Of a oneof, one field at most may be set.
fn exclusive(schema: &mut Value, message: &MessageDescriptor, without: &[&str]) {
    let mut rules = Vec::new();
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let fields: Vec<_> = oneof.fields().filter(|field| !without.contains(&field.name())).collect();
        for (i, field) in fields.iter().enumerate() {
            for other in &fields[i + 1..] {
                let set = |field: &FieldDescriptor| json!({"required": [field.name()], "properties": {field.name(): {"not": {"type": "null"}}}});
                rules.push(json!({"not": {"allOf": [set(field), set(other)]}}));
            }
        }
    }
    if !rules.is_empty() {
        schema["allOf"] = rules.into();
    }
}
