//! What a contract may not change once it is released: whatever a client of the released one, over gRPC or REST,
//! would notice. Adding is free; a method or field that was not built may still be built differently over REST, as
//! nobody could use it.
use std::collections::HashSet;

use cloud_rest_build::{
    json::{has_option, oneof},
    options::{FieldRules, HttpRule, MethodOptions, http_rules, output_only, required},
};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor,
};

/// What `new` breaks of the packages of `old`, each with the full name of what it is about.
#[must_use]
pub fn breaking(old: &DescriptorPool, new: &DescriptorPool, packages: &[&str]) -> Vec<String> {
    // Nobody could send the request of a method that was not built.
    let methods = old.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let unsent = methods.filter(|method| MethodOptions::read(method).not_built);
    let unsent = unsent.map(|method| method.input().full_name().to_owned()).collect();
    let mut broken = Broken { problems: Vec::new(), unsent };
    for message in old.all_messages().filter(|m| packages.contains(&m.package_name()) && !m.is_map_entry()) {
        match new.get_message_by_name(message.full_name()) {
            Some(now) => broken.message(&message, &now),
            None => broken.add(message.full_name(), "was removed"),
        }
    }
    for descriptor in old.all_enums().filter(|e| packages.contains(&e.package_name())) {
        match new.get_enum_by_name(descriptor.full_name()) {
            Some(now) => broken.enumeration(&descriptor, &now),
            None => broken.add(descriptor.full_name(), "was removed"),
        }
    }
    for service in old.services().filter(|s| packages.contains(&s.package_name())) {
        match new.get_service_by_name(service.full_name()) {
            Some(now) => broken.service(&service, &now),
            None => broken.add(service.full_name(), "was removed"),
        }
    }
    broken.problems
}

struct Broken {
    problems: Vec<String>,
    /// Requests of methods that were not built.
    unsent: HashSet<String>,
}

impl Broken {
    fn add(&mut self, name: &str, what: impl AsRef<str>) {
        self.problems.push(format!("{name} {}", what.as_ref()));
    }

    fn changed(&mut self, name: &str, what: &str, old: &str, new: &str) {
        if old != new {
            self.add(name, format!("changed its {what} from {old} to {new}"));
        }
    }

    fn message(&mut self, old: &MessageDescriptor, new: &MessageDescriptor) {
        for field in old.fields() {
            if let Some(now) = new.get_field(field.number()) {
                self.changed(field.full_name(), "name", field.name(), now.name());
                self.field(&field, &now);
            } else if let Some(now) = new.get_field_by_name(field.name()) {
                self.add(field.full_name(), format!("changed its number from {} to {}", field.number(), now.number()));
            } else {
                self.add(field.full_name(), "was removed");
            }
        }
        for field in new.fields().filter(|field| old.get_field(field.number()).is_none() && required(field)) {
            self.add(field.full_name(), "is new and required");
        }
    }

    fn field(&mut self, old: &FieldDescriptor, new: &FieldDescriptor) {
        let name = old.full_name();
        self.changed(name, "type", &type_name(old), &type_name(new));
        self.changed(name, "JSON name", old.json_name(), new.json_name());
        self.changed(name, "presence", presence(old), presence(new));
        let of = |field: &FieldDescriptor| oneof(field).map_or("none".to_owned(), |oneof| oneof.name().to_owned());
        self.changed(name, "oneof", &of(old), &of(new));
        let unsent = self.unsent.contains(old.parent_message().full_name());
        if required(new) && !required(old) && !unsent {
            self.add(name, "became required");
        }
        if output_only(new) && !output_only(old) {
            self.add(name, "became output only");
        }
        let (before, now) = (FieldRules::read(old), FieldRules::read(new));
        // What nobody could set may be ruled anew.
        if before.not_built || unsent {
            return;
        }
        if now.not_built {
            self.add(name, "is no longer built");
        }
        let narrower = lower(before.max, now.max)
            || lower(before.max_len, now.max_len)
            || lower(before.max_items, now.max_items)
            || higher(before.min, now.min)
            || higher(before.min_len, now.min_len)
            || higher(before.min_items, now.min_items);
        if narrower {
            self.add(name, "takes less than before");
        }
        if now.pattern != before.pattern && !now.pattern.is_empty() {
            self.changed(name, "pattern", &before.pattern, &now.pattern);
        }
    }

    fn enumeration(&mut self, old: &EnumDescriptor, new: &EnumDescriptor) {
        for value in old.values() {
            if let Some(now) = new.get_value_by_name(value.name()) {
                let (before, now) = (value.number().to_string(), now.number().to_string());
                self.changed(value.full_name(), "number", &before, &now);
            } else if let Some(now) = new.get_value(value.number()) {
                self.changed(value.full_name(), "name", value.name(), now.name());
            } else {
                self.add(value.full_name(), "was removed");
            }
        }
    }

    fn service(&mut self, old: &ServiceDescriptor, new: &ServiceDescriptor) {
        for method in old.methods() {
            match new.methods().find(|now| now.name() == method.name()) {
                Some(now) => self.method(&method, &now),
                None => self.add(method.full_name(), "was removed"),
            }
        }
    }

    fn method(&mut self, old: &MethodDescriptor, new: &MethodDescriptor) {
        let name = old.full_name();
        self.changed(name, "request", old.input().full_name(), new.input().full_name());
        self.changed(name, "response", old.output().full_name(), new.output().full_name());
        self.changed(name, "streaming", streaming(old), streaming(new));
        let (before, now) = (MethodOptions::read(old), MethodOptions::read(new));
        if before.not_built {
            return;
        }
        if now.not_built {
            self.add(name, "is no longer built");
        }
        let code = |options: &MethodOptions| if options.success_code == 0 { 200 } else { options.success_code };
        self.changed(name, "success code", &code(&before).to_string(), &code(&now).to_string());
        self.changed(name, "resume_field", &before.resume_field, &now.resume_field);
        if before.unauthenticated && !now.unauthenticated {
            self.add(name, "needs credentials now");
        }
        let bindings = http_rules(new);
        for rule in http_rules(old).into_iter().filter(|rule| !bindings.contains(rule)) {
            self.add(name, format!("lost the route {}", route(&rule)));
        }
    }
}

fn lower<T: PartialOrd>(old: Option<T>, new: Option<T>) -> bool {
    new.is_some_and(|new| old.is_none_or(|old| new < old))
}

fn higher<T: PartialOrd>(old: Option<T>, new: Option<T>) -> bool {
    new.is_some_and(|new| old.is_none_or(|old| new > old))
}

fn route(rule: &HttpRule) -> String {
    let body = if rule.body.is_empty() { String::new() } else { format!(" (body {})", rule.body) };
    format!("{} {}{body}", rule.verb.to_uppercase(), rule.path)
}

fn streaming(method: &MethodDescriptor) -> &'static str {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "none",
        (true, false) => "the client's",
        (false, true) => "the server's",
        (true, true) => "both",
    }
}

fn presence(field: &FieldDescriptor) -> &'static str {
    if has_option(field) { "explicit" } else { "implicit" }
}

fn type_name(field: &FieldDescriptor) -> String {
    let single = |kind: Kind| match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(descriptor) => descriptor.full_name().to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            format!(
                "map<{}, {}>",
                single(entry.map_entry_key_field().kind()),
                single(entry.map_entry_value_field().kind())
            )
        }
        kind if field.is_list() => format!("repeated {}", single(kind)),
        kind => single(kind),
    }
}
