//! The rules of a contract as it is.
use std::collections::HashMap;

use cloud_rest_build::{comments::Comments, options};
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use crate::{
    names::{is_camel, is_shouty, is_snake, zero_value},
    routes,
};

/// Which rules a package is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Names and comments.
    Internal,
    /// Those, and everything that REST, JSON and clients need.
    Public,
}

/// What is wrong in a package, each with the full name of what it is about.
#[must_use]
pub fn lint(pool: &DescriptorPool, package: &str, rules: Rules) -> Vec<String> {
    let mut lint = Lint { comments: Comments::read(pool.files()), problems: Vec::new(), rules };
    for message in pool.all_messages().filter(|m| m.package_name() == package && !m.is_map_entry()) {
        lint.message(&message);
    }
    for descriptor in pool.all_enums().filter(|e| e.package_name() == package) {
        lint.enumeration(&descriptor);
    }
    let mut requests = HashMap::new();
    for service in pool.services().filter(|s| s.package_name() == package) {
        let name = service.full_name();
        lint.comment(name, &service.parent_file(), service.path());
        lint.rule(service.name().ends_with("Service") && is_camel(service.name()), name, "is not called …Service");
        for method in service.methods() {
            lint.method(&method);
            if let Some(other) = requests.insert(method.input().full_name().to_owned(), method.full_name().to_owned()) {
                lint.add(method.full_name(), &format!("shares its request with {other}"));
            }
        }
    }
    if rules == Rules::Public {
        lint.problems.extend(routes::lint(pool, package));
    }
    lint.problems
}

struct Lint {
    comments: Comments,
    problems: Vec<String>,
    rules: Rules,
}

impl Lint {
    fn add(&mut self, name: &str, problem: &str) {
        self.problems.push(format!("{name} {problem}"));
    }

    fn rule(&mut self, holds: bool, name: &str, problem: &str) {
        if !holds {
            self.add(name, problem);
        }
    }

    fn comment(&mut self, name: &str, file: &prost_reflect::FileDescriptor, path: &[i32]) {
        let missing = self.comments.of(file, path).is_empty();
        self.rule(!missing, name, "has no comment");
    }

    fn message(&mut self, message: &MessageDescriptor) {
        let name = message.full_name();
        self.comment(name, &message.parent_file(), message.path());
        self.rule(is_camel(message.name()), name, "is not UpperCamel");
        self.rule(message.fields().count() <= 128, name, "has more than 128 fields");
        for field in message.fields() {
            self.field(&field);
        }
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            self.comment(oneof.full_name(), &message.parent_file(), oneof.path());
            self.rule(is_snake(oneof.name()), oneof.full_name(), "is not lower_snake");
        }
    }

    fn field(&mut self, field: &FieldDescriptor) {
        let name = field.full_name();
        self.comment(name, &field.parent_message().parent_file(), field.path());
        self.rule(is_snake(field.name()), name, "is not lower_snake");
        if self.rules == Rules::Internal {
            return;
        }
        let rules = options::FieldRules::read(field);
        let required = options::required(field);
        self.rule(!(required && rules.not_built), name, "is required and not built");
        self.rule(!(required && options::output_only(field)), name, "is required and output only");
        self.rule(ordered(rules.min, rules.max), name, "has a min above its max");
        self.rule(ordered(rules.min_len, rules.max_len), name, "has a min_len above its max_len");
        self.rule(ordered(rules.min_items, rules.max_items), name, "has a min_items above its max_items");
        self.rule(regex::Regex::new(&rules.pattern).is_ok(), name, "has a pattern that is not a regular expression");
        if let Kind::Message(message) = field.kind() {
            let keyed = field.is_map() && message.map_entry_key_field().kind() != Kind::String;
            self.rule(!keyed, name, "has keys that are not strings");
            let time = message.full_name() == "google.protobuf.Timestamp";
            self.rule(!time || field.name().ends_with("_at"), name, "is a time whose name does not end in _at");
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) {
        let name = descriptor.full_name();
        self.comment(name, &descriptor.parent_file(), descriptor.path());
        self.rule(is_camel(descriptor.name()), name, "is not UpperCamel");
        let nested = descriptor.parent_message().is_some();
        self.rule(
            nested || self.rules == Rules::Internal,
            name,
            "is not nested in a message, so its names need prefixes",
        );
        let zero = descriptor.get_value(0).map(|value| value.name().to_owned()).unwrap_or_default();
        let expected = zero_value(descriptor.name());
        self.rule(zero == expected, name, &format!("has `{zero}` for zero instead of `{expected}`"));
        for value in descriptor.values() {
            self.comment(value.full_name(), &descriptor.parent_file(), value.path());
            self.rule(is_shouty(value.name()), value.full_name(), "is not UPPER_SNAKE");
        }
    }

    fn method(&mut self, method: &MethodDescriptor) {
        let (name, short) = (method.full_name(), method.name());
        self.comment(name, &method.parent_service().parent_file(), method.path());
        self.rule(is_camel(short), name, "is not UpperCamel");
        let (input, output) = (method.input(), method.output());
        let request = format!("{short}Request");
        self.rule(input.name() == request, name, &format!("takes {} instead of {request}", input.name()));
        let response = format!("{short}Response");
        let other = output.name().ends_with("Request") || output.name().ends_with("Response");
        self.rule(
            output.name() == response || !other,
            name,
            &format!("answers with {} instead of {response} or a resource", output.name()),
        );
        if short.starts_with("List") && self.rules == Rules::Public {
            for field in ["page_size", "page_token"] {
                self.rule(input.get_field_by_name(field).is_some(), name, &format!("lists without {field}"));
            }
            self.rule(output.get_field_by_name("next_page_token").is_some(), name, "lists without next_page_token");
        }
    }
}

fn ordered<T: PartialOrd>(min: Option<T>, max: Option<T>) -> bool {
    !matches!((min, max), (Some(min), Some(max)) if min > max)
}
