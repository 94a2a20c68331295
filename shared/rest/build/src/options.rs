//! The options that the generator reads: `google.api.http`, `google.api.field_behavior` and our own.
use prost_reflect::{DynamicMessage, FieldDescriptor, MethodDescriptor, ReflectMessage, Value};

/// An option of a descriptor, if it is set and its definition is in the pool.
fn extension(options: &DynamicMessage, name: &str) -> Option<Value> {
    let extension = options.descriptor().parent_pool().get_extension_by_name(name)?;
    options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
}

fn set<'a>(message: &'a DynamicMessage, field: &str) -> Option<std::borrow::Cow<'a, Value>> {
    message.has_field_by_name(field).then(|| message.get_field_by_name(field)).flatten()
}

fn text(message: &DynamicMessage, field: &str) -> String {
    set(message, field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `cloud.options.v1.method`.
#[derive(Debug, Clone, Default)]
pub struct MethodOptions {
    /// The HTTP status of success; 0 when none is given.
    pub success_code: u32,
    /// No route, no OpenAPI entry.
    pub not_built: bool,
    /// The request field that `Last-Event-ID` sets.
    pub resume_field: String,
    /// The response field that is an event's id.
    pub event_id_field: String,
    /// The response field that is an event's type.
    pub event_type_field: String,
    /// Needs no credentials.
    pub unauthenticated: bool,
    /// Answers calls that repeat an earlier one itself.
    pub replays_itself: bool,
}

impl MethodOptions {
    /// Reads the options of a method.
    #[must_use]
    pub fn read(method: &MethodDescriptor) -> Self {
        let options = method.options();
        let Some(Value::Message(message)) = extension(&options, "cloud.options.v1.method") else {
            return Self::default();
        };
        let flag = |field: &str| set(&message, field).and_then(|value| value.as_bool()).unwrap_or_default();
        MethodOptions {
            success_code: set(&message, "success_code").and_then(|value| value.as_u32()).unwrap_or_default(),
            not_built: flag("not_built"),
            resume_field: text(&message, "resume_field"),
            event_id_field: text(&message, "event_id_field"),
            event_type_field: text(&message, "event_type_field"),
            unauthenticated: flag("unauthenticated"),
            replays_itself: flag("replays_itself"),
        }
    }
}

/// `cloud.options.v1.rules`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldRules {
    /// The smallest number.
    pub min: Option<i64>,
    /// The largest number.
    pub max: Option<i64>,
    /// The fewest characters or bytes.
    pub min_len: Option<u64>,
    /// The most characters or bytes.
    pub max_len: Option<u64>,
    /// What the whole string matches; empty: anything.
    pub pattern: String,
    /// What the service itself sees that the whole string matches; empty: anything.
    pub documented_pattern: String,
    /// The fewest elements.
    pub min_items: Option<u64>,
    /// The most elements.
    pub max_items: Option<u64>,
    /// Refused when set.
    pub not_built: bool,
}

impl FieldRules {
    /// Reads the rules of a field.
    #[must_use]
    pub fn read(field: &FieldDescriptor) -> Self {
        let options = field.options();
        let Some(Value::Message(message)) = extension(&options, "cloud.options.v1.rules") else {
            return Self::default();
        };
        let signed = |field: &str| set(&message, field).and_then(|value| value.as_i64());
        let unsigned = |field: &str| set(&message, field).and_then(|value| value.as_u64());
        FieldRules {
            min: signed("min"),
            max: signed("max"),
            min_len: unsigned("min_len"),
            max_len: unsigned("max_len"),
            pattern: text(&message, "pattern"),
            documented_pattern: text(&message, "documented_pattern"),
            min_items: unsigned("min_items"),
            max_items: unsigned("max_items"),
            not_built: set(&message, "not_built").and_then(|value| value.as_bool()).unwrap_or_default(),
        }
    }

    /// Whether nothing is ruled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a field has a `google.api.field_behavior`, by its number there.
fn behaves(field: &FieldDescriptor, behavior: i32) -> bool {
    match extension(&field.options(), "google.api.field_behavior") {
        Some(Value::List(values)) => values.iter().any(|value| value.as_enum_number() == Some(behavior)),
        _ => false,
    }
}

/// Whether requests must set the field.
#[must_use]
pub fn required(field: &FieldDescriptor) -> bool {
    behaves(field, 2)
}

/// Whether only the server sets the field.
#[must_use]
pub fn output_only(field: &FieldDescriptor) -> bool {
    behaves(field, 3)
}

/// Whether responses never carry the field.
#[must_use]
pub fn input_only(field: &FieldDescriptor) -> bool {
    behaves(field, 4)
}

/// One binding of `google.api.http`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    /// `get`, `put`, `post`, `delete` or `patch`; or what `custom` says.
    pub verb: String,
    /// The path template.
    pub path: String,
    /// `*`, a field, or empty.
    pub body: String,
    /// A response field, or empty.
    pub response_body: String,
}

/// The bindings of a method, the additional ones last.
#[must_use]
pub fn http_rules(method: &MethodDescriptor) -> Vec<HttpRule> {
    let Some(Value::Message(message)) = extension(&method.options(), "google.api.http") else { return Vec::new() };
    let mut rules = vec![rule(&message)];
    if let Some(more) = set(&message, "additional_bindings") {
        let more = more.as_list().unwrap_or_default().iter().filter_map(|value| value.as_message().map(rule));
        rules.extend(more);
    }
    rules
}

fn rule(message: &DynamicMessage) -> HttpRule {
    let verb = ["get", "put", "post", "delete", "patch"].into_iter().find(|verb| message.has_field_by_name(verb));
    let (verb, path) = match verb {
        Some(verb) => (verb.to_owned(), text(message, verb)),
        None => match set(message, "custom").as_deref() {
            Some(Value::Message(custom)) => (text(custom, "kind").to_lowercase(), text(custom, "path")),
            _ => Default::default(),
        },
    };
    HttpRule { verb, path, body: text(message, "body"), response_body: text(message, "response_body") }
}
