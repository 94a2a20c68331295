//! Validation: what `field_behavior` and `rules` say of requests, as code, and a wrapper that applies it.
use std::{collections::HashSet, fmt::Write};

use anyhow::{Result, ensure};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use crate::{
    api::{Api, Method, Service},
    json::{has_option, is_set, oneof},
    names::{Names, camel, snake},
    options::{FieldRules, output_only, required},
    schema::masked,
};

/// Generates `Validate` for every message and `Checked` for every service.
///
/// # Errors
/// Rules that cannot be about their field, naming it.
pub fn generate(pool: &DescriptorPool, api: &Api, names: &Names) -> Result<String> {
    let mut out = String::new();
    let messages = pool.all_messages().filter(|message| message.package_name() == names.package);
    let messages: Vec<_> = messages.filter(|message| !message.is_map_entry()).collect();
    let ruled = ruled(&messages);
    for message in &messages {
        write_message(&mut out, message, &ruled, names)?;
    }
    writeln!(
        out,
        "/// A service whose requests are validated before it sees them, over REST and gRPC alike.
        /// A method that is not built is refused by name. A call that repeats an earlier one is answered as that one was.
        pub struct Checked<S>(pub ::std::sync::Arc<S>, pub Option<::std::sync::Arc<dyn ::cloud_rest::Requests>>);
        impl<S> Checked<S> {{
            /// Wraps a service. Request ids are passed on to it as they come.
            pub fn new(service: S) -> Self {{
                Checked(::std::sync::Arc::new(service), None)
            }}

            /// The same with a memory of requests: what has been done under a request id is not done again.
            pub fn with_requests(service: S, requests: ::std::sync::Arc<dyn ::cloud_rest::Requests>) -> Self {{
                Checked(::std::sync::Arc::new(service), Some(requests))
            }}
        }}
        impl<S> Clone for Checked<S> {{
            fn clone(&self) -> Self {{
                Checked(self.0.clone(), self.1.clone())
            }}
        }}"
    )?;
    for service in &api.services {
        write_service(&mut out, service, names)?;
    }
    Ok(out)
}

/// The messages that have something to check, themselves or in a message they hold.
fn ruled(messages: &[MessageDescriptor]) -> HashSet<String> {
    let mut ruled = HashSet::new();
    loop {
        let before = ruled.len();
        for message in messages {
            let any = message.fields().any(|field| {
                let inner = held(&field).is_some_and(|inner| ruled.contains(inner.full_name()));
                let text = field.kind() == Kind::String || field.is_map();
                inner || text || required(&field) || !FieldRules::read(&field).is_empty()
            });
            if any {
                ruled.insert(message.full_name().to_owned());
            }
        }
        if ruled.len() == before {
            return ruled;
        }
    }
}

/// The message that a field holds: itself, in a list, or as a map's value.
fn held(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => match entry.map_entry_value_field().kind() {
            Kind::Message(value) => Some(value),
            _ => None,
        },
        Kind::Message(inner) => Some(inner),
        _ => None,
    }
}

fn write_message(out: &mut String, message: &MessageDescriptor, ruled: &HashSet<String>, names: &Names) -> Result<()> {
    let mut body = String::new();
    // What a field mask leaves out need not be there.
    let masked = masked(message);
    for field in message.fields().filter(|field| !output_only(field)) {
        write_field(&mut body, &field, ruled, masked, names)?;
    }
    writeln!(
        out,
        "impl ::cloud_rest::Validate for {} {{
            #[allow(unused_variables)]
            fn check(&self, up: &::cloud_rest::At<'_>, to: &mut ::cloud_rest::Checker) {{
                {body}
            }}
        }}",
        names.message(message),
    )?;
    Ok(())
}

fn write_field(
    out: &mut String,
    field: &FieldDescriptor,
    ruled: &HashSet<String>,
    masked: bool,
    names: &Names,
) -> Result<()> {
    let (name, rules) = (field.name(), FieldRules::read(field));
    let at = format!("::cloud_rest::At::Field(up, {name:?})");
    let oneof = oneof(field);
    let place = match &oneof {
        Some(oneof) => snake(oneof.name()),
        None => snake(name),
    };
    let set = match &oneof {
        Some(oneof) => format!("matches!(self.{place}, Some({}::{}(_)))", names.oneof(oneof), camel(name)),
        None => is_set(field, &place),
    };
    if required(field) {
        ensure!(
            field.kind() != Kind::Bool || has_option(field),
            "{}: a required bool could only be true",
            field.full_name()
        );
        writeln!(out, "to.required({at}, {set});")?;
    }
    if rules.not_built {
        writeln!(out, "to.not_built({at}, {set});")?;
        return Ok(());
    }
    if field.is_list() || field.is_map() {
        if rules.min_items.is_some() || rules.max_items.is_some() {
            writeln!(
                out,
                "if {set} {{ to.length({at}, \"elements\", self.{place}.len(), {:?}, {:?}); }}",
                rules.min_items, rules.max_items
            )?;
        }
    } else {
        ensure!(
            rules.min_items.is_none() && rules.max_items.is_none(),
            "{} has no elements to count",
            field.full_name()
        );
    }
    write_values(out, field, &rules, ruled, masked, &place, names)
}

/// Checks each value of a field: itself, its elements, its map's values.
fn write_values(
    out: &mut String,
    field: &FieldDescriptor,
    rules: &FieldRules,
    ruled: &HashSet<String>,
    masked: bool,
    place: &str,
    names: &Names,
) -> Result<()> {
    let name = field.name();
    let mut body = String::new();
    match held(field) {
        Some(inner) if ruled.contains(inner.full_name()) => {
            let check = if masked { "to.partial(v, &at)" } else { "::cloud_rest::Validate::check(v, &at, to)" };
            writeln!(body, "{check};")?;
        }
        _ => value_rules(&mut body, field, rules)?,
    }
    if body.is_empty() && !field.is_map() {
        return Ok(());
    }
    if field.is_map() {
        body = format!("to.text(at, k); {body}");
    }
    let each = if field.is_map() {
        format!("for (k, v) in &self.{place} {{ let at = ::cloud_rest::At::Key(up, {name:?}, k); {body} }}")
    } else if field.is_list() {
        format!(
            "for (i, v) in self.{place}.iter().enumerate() {{ let at = ::cloud_rest::At::Item(up, {name:?}, i); {body} }}"
        )
    } else {
        let at = format!("let at = ::cloud_rest::At::Field(up, {name:?});");
        match oneof(field) {
            Some(oneof) => {
                format!("if let Some({}::{}(v)) = &self.{place} {{ {at} {body} }}", names.oneof(&oneof), camel(name))
            }
            None if has_option(field) => format!("if let Some(v) = &self.{place} {{ {at} {body} }}"),
            None => format!("if {} {{ let v = &self.{place}; {at} {body} }}", is_set(field, place)),
        }
    };
    writeln!(out, "{each}")?;
    Ok(())
}

fn value_rules(out: &mut String, field: &FieldDescriptor, rules: &FieldRules) -> Result<()> {
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    let lengths = rules.min_len.is_some() || rules.max_len.is_some();
    let ranges = rules.min.is_some() || rules.max.is_some();
    let whole = matches!(
        kind,
        Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64
    );
    let of = field.full_name();
    ensure!(!ranges || whole, "{of}: min and max are about whole numbers");
    ensure!(!lengths || matches!(kind, Kind::String | Kind::Bytes), "{of}: lengths are about strings and bytes");
    ensure!(rules.pattern.is_empty() || kind == Kind::String, "{of}: patterns are about strings");
    if kind == Kind::String && rules.pattern.is_empty() {
        writeln!(out, "to.text(at, v);")?;
    }
    if ranges {
        writeln!(out, "to.number(at, i128::from(*v), {:?}, {:?});", rules.min, rules.max)?;
    }
    if lengths {
        let (unit, length) =
            if kind == Kind::String { ("characters", "v.chars().count()") } else { ("bytes", "v.len()") };
        writeln!(out, "to.length(at, {unit:?}, {length}, {:?}, {:?});", rules.min_len, rules.max_len)?;
    }
    if !rules.pattern.is_empty() {
        let whole = format!("^(?:{})$", rules.pattern);
        writeln!(
            out,
            "{{
                static REGEX: ::std::sync::LazyLock<Option<::regex::Regex>> = ::std::sync::LazyLock::new(|| ::regex::Regex::new({whole:?}).ok());
                to.pattern(at, v, &REGEX, {:?});
            }}",
            rules.pattern
        )?;
    }
    Ok(())
}

fn write_service(out: &mut String, service: &Service, names: &Names) -> Result<()> {
    let name = service.descriptor.name();
    let path = format!("{}::{}_server::{}", names.module, snake(name), camel(name));
    writeln!(out, "#[::tonic::async_trait]\nimpl<S: {path}> {path} for Checked<S> {{")?;
    for method in &service.methods {
        write_method(out, service, method, names)?;
    }
    writeln!(out, "}}")?;
    Ok(())
}

/// The fields that name what a call is about, the first that there is.
const SUBJECTS: [&str; 4] = ["id", "name", "project", "vpc"];

/// Tells layers what a call is about. A stream says it in its first message, which the service reads.
fn subject(method: &MethodDescriptor) -> String {
    let input = method.input();
    let plain = |field: &FieldDescriptor| {
        field.kind() == Kind::String && !field.is_list() && !has_option(field) && oneof(field).is_none()
    };
    let field = SUBJECTS.iter().find_map(|name| input.get_field_by_name(name)).filter(plain);
    match field {
        Some(field) if !method.is_client_streaming() => {
            format!("::cloud_rest::Subject::tell(&request, &request.get_ref().{});", snake(field.name()))
        }
        _ => String::new(),
    }
}

fn write_method(out: &mut String, service: &Service, method: &Method, names: &Names) -> Result<()> {
    let descriptor = &method.descriptor;
    let (input, output) = (names.message(&descriptor.input()), names.message(&descriptor.output()));
    let input = if descriptor.is_client_streaming() { format!("::tonic::Streaming<{input}>") } else { input };
    let output =
        if descriptor.is_server_streaming() { format!("::tonic::codegen::BoxStream<{output}>") } else { output };
    let call = snake(descriptor.name());
    let body = if method.options.not_built {
        format!("Err(::cloud_rest::not_built({:?}))", descriptor.full_name())
    } else {
        // A stream's messages are the service's own to check, as they come.
        let check = if descriptor.is_client_streaming() { "" } else { "::cloud_rest::check(request.get_ref())?;" };
        let once = once(service, method, names);
        format!("{} {check} {once} self.0.{call}(request).await", subject(descriptor))
    };
    writeln!(
        out,
        "#[allow(unused_variables)]
        async fn {call}(&self, request: ::tonic::Request<{input}>) -> ::std::result::Result<::tonic::Response<{output}>, ::tonic::Status> {{
            {body}
        }}"
    )?;
    Ok(())
}

/// The field that makes a repeated call the same call.
const REQUEST_ID: &str = "request_id";

/// A plain string field of this name.
fn plain(message: &MessageDescriptor, name: &str) -> bool {
    message
        .get_field_by_name(name)
        .is_some_and(|f| f.kind() == Kind::String && !f.is_list() && !has_option(&f) && f.containing_oneof().is_none())
}

/// The detour of a call with a request id: one that was made before is answered as that one was.
fn once(service: &Service, method: &Method, names: &Names) -> String {
    let descriptor = &method.descriptor;
    let (input, output) = (descriptor.input(), descriptor.output());
    if !plain(&input, REQUEST_ID) || descriptor.is_client_streaming() || descriptor.is_server_streaming() {
        return String::new();
    }
    let call = snake(descriptor.name());
    let getter = getter(service, &output);
    // What the answer is about, for a call that found nothing to do.
    let about = match &getter {
        Some((_, key)) => [key.as_str(), "name"].into_iter().find(|name| plain(&output, name)),
        None => None,
    };
    let about = about.map_or_else(|| "\"\"".to_owned(), |name| format!("answer.{}.as_str()", snake(name)));
    let replay = match &getter {
        _ if method.options.replays_itself => format!(
            "|mut request, resource| {{ request.extensions_mut().insert(::cloud_rest::Repeat(resource)); self.0.{call}(request) }}"
        ),
        Some((get, key)) => {
            let (get_call, get_input) = (snake(get.name()), names.message(&get.input()));
            let key = snake(key);
            format!(
                "|request, resource| self.0.{get_call}(request.map(|_| {get_input} {{ {key}: resource, ..Default::default() }}))"
            )
        }
        // Nothing reads it again: a secret, which is shown once.
        None => format!(
            "|_, resource| ::std::future::ready(Err(::cloud_rest::not_replayed({:?}, &resource)))",
            descriptor.full_name()
        ),
    };
    format!(
        "if let Some(requests) = &self.1 {{
            return ::cloud_rest::once(
                requests.as_ref(),
                {:?},
                request,
                |message| ::std::mem::take(&mut message.request_id),
                |answer: &{}| {about},
                |request| self.0.{call}(request),
                {replay},
            ).await;
        }}",
        descriptor.full_name(),
        names.message(&output),
    )
}

/// The method of a service that reads what another one answers with, and the field that names it.
fn getter(service: &Service, output: &MessageDescriptor) -> Option<(prost_reflect::MethodDescriptor, String)> {
    let name = format!("Get{}", output.name());
    let method = service.methods.iter().find(|m| m.descriptor.name() == name && !m.options.not_built)?;
    let get = method.descriptor.clone();
    let input = get.input();
    let strings: Vec<_> = input.fields().filter(|f| plain(&input, f.name())).map(|f| f.name().to_owned()).collect();
    let key = match strings.as_slice() {
        all if all.iter().any(|n| n == "id") => "id".to_owned(),
        [only] => only.clone(),
        _ => return None,
    };
    (get.output().full_name() == output.full_name()).then_some((get, key))
}
