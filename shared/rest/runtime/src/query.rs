//! Query strings as JSON objects, which the message's own serde then reads.
use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::{
    binding::{QueryField, QueryKind},
    failure::Failure,
};

/// Reads a query string into an object shaped like the request.
pub(crate) fn parse(query: &str, fields: &[QueryField]) -> Result<Map<String, Value>, Failure> {
    let mut object = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, text) = (decode(name)?, decode(text)?);
        let Some(field) = fields.iter().find(|field| field.path == name || field.camel == name) else {
            return Err(unknown(&name, fields));
        };
        insert(&mut object, field, value(field, text.into_owned())?)?;
    }
    Ok(object)
}

fn unknown(name: &str, fields: &[QueryField]) -> Failure {
    if fields.is_empty() {
        return Failure::field(name, "unknown query parameter; this route has none");
    }
    let known: Vec<_> = fields.iter().map(|field| field.path).collect();
    Failure::field(name, format!("unknown query parameter; there are {}", known.join(", ")))
}

/// Decodes `+` and `%xx`.
fn decode(text: &str) -> Result<Cow<'_, str>, Failure> {
    if !text.contains(['+', '%']) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(Cow::Owned(decoded.into_owned())),
        Err(_) => Err(Failure::bad(format!("the query has `{text}`, which is not UTF-8 once decoded"))),
    }
}

fn value(field: &QueryField, text: String) -> Result<Value, Failure> {
    match field.kind {
        QueryKind::Text => Ok(Value::String(text)),
        QueryKind::Bool => match text.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(Failure::field(field.path, format!("invalid value `{text}`, expected true or false"))),
        },
        // Only JSON's own numbers; what is none goes on as text, and the field says what it takes.
        QueryKind::Number => {
            Ok(serde_json::from_str::<serde_json::Number>(&text).map_or(Value::String(text), Value::Number))
        }
    }
}

fn insert(object: &mut Map<String, Value>, field: &QueryField, value: Value) -> Result<(), Failure> {
    let (mut at, mut path) = (object, field.path);
    while let Some((head, rest)) = path.split_once('.') {
        let inner = at.entry(head).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(inner) = inner else {
            return Err(Failure::field(field.path, "set twice"));
        };
        (at, path) = (inner, rest);
    }
    match at.entry(path) {
        serde_json::map::Entry::Vacant(slot) => {
            slot.insert(if field.repeated { Value::Array(vec![value]) } else { value });
        }
        serde_json::map::Entry::Occupied(mut slot) => match slot.get_mut() {
            Value::Array(values) if field.repeated => values.push(value),
            _ => return Err(Failure::field(field.path, "there twice; it takes one value")),
        },
    }
    Ok(())
}
