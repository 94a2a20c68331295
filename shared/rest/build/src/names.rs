//! The Rust names that prost and tonic give to protobuf names.
use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{EnumDescriptor, MessageDescriptor, OneofDescriptor};

/// Keywords that prost writes as raw identifiers.
const RAW: &[&str] = &[
    "as", "break", "const", "continue", "else", "enum", "false", "fn", "for", "if", "impl", "in", "let", "loop",
    "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct", "trait", "true", "type", "unsafe",
    "use", "where", "while", "dyn", "abstract", "become", "box", "do", "final", "macro", "override", "priv", "typeof",
    "unsized", "virtual", "yield", "async", "await", "try", "gen",
];
/// Words that cannot be raw identifiers: prost adds an underscore.
const SUFFIXED: &[&str] = &["super", "self", "Self", "extern", "crate"];

fn sanitize(ident: String) -> String {
    if RAW.contains(&ident.as_str()) {
        format!("r#{ident}")
    } else if SUFFIXED.contains(&ident.as_str()) {
        format!("{ident}_")
    } else {
        ident
    }
}

/// A field, method or module.
#[must_use]
pub fn snake(name: &str) -> String {
    sanitize(name.to_snake_case())
}

/// A type or variant.
#[must_use]
pub fn camel(name: &str) -> String {
    sanitize(name.to_upper_camel_case())
}

/// Where the types of one package are.
pub struct Names {
    /// The protobuf package.
    pub package: String,
    /// The Rust module of its prost code.
    pub module: String,
}

impl Names {
    /// Names of a package whose prost code is in `module`.
    #[must_use]
    pub fn new(package: &str, module: &str) -> Self {
        Names { package: package.to_owned(), module: module.to_owned() }
    }

    fn scope(&self, parent: Option<&MessageDescriptor>) -> String {
        match parent {
            None => self.module.clone(),
            Some(parent) => format!("{}::{}", self.scope(parent.parent_message().as_ref()), snake(parent.name())),
        }
    }

    /// The struct of a message.
    #[must_use]
    pub fn message(&self, message: &MessageDescriptor) -> String {
        match message.full_name() {
            "google.protobuf.Empty" => "()".to_owned(),
            name if name.starts_with("google.protobuf.") => format!("::prost_types::{}", camel(message.name())),
            _ => format!("{}::{}", self.scope(message.parent_message().as_ref()), camel(message.name())),
        }
    }

    /// The type of an enum.
    #[must_use]
    pub fn enumeration(&self, descriptor: &EnumDescriptor) -> String {
        format!("{}::{}", self.scope(descriptor.parent_message().as_ref()), camel(descriptor.name()))
    }

    /// The enum of a oneof.
    #[must_use]
    pub fn oneof(&self, oneof: &OneofDescriptor) -> String {
        format!("{}::{}", self.scope(Some(oneof.parent_message())), camel(oneof.name()))
    }
}
