//! A request's message: from the body or the query, then the path, then headers.
use axum::{
    body::Body as HttpBody,
    extract::{FromRequestParts, RawPathParams},
};
use bytes::Bytes;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, error::Category};

use crate::{
    binding::{Binding, Body},
    body,
    config::Config,
    failure::Failure,
    query,
};

/// Reads the message of a request.
pub(crate) async fn message<M>(
    config: &Config,
    binding: &Binding<M>,
    parts: &mut Parts,
    http_body: HttpBody,
) -> Result<M, Failure>
where
    M: Default + DeserializeOwned,
{
    let query = parts.uri.query().unwrap_or_default();
    let mut message = match binding.body {
        Body::None if query.is_empty() => M::default(),
        Body::None => from_object(query::parse(query, binding.query)?)?,
        Body::Whole => {
            query::parse(query, binding.query)?;
            let bytes = body::read(config, http_body).await?;
            if bytes.is_empty() {
                M::default()
            } else {
                body::require_json(&parts.headers)?;
                from_bytes(&bytes)?
            }
        }
        Body::Field(name) => {
            let mut object = query::parse(query, binding.query)?;
            let bytes = body::read(config, http_body).await?;
            if !bytes.is_empty() {
                body::require_json(&parts.headers)?;
                object.insert(name.to_owned(), from_bytes::<Value>(&bytes)?);
            }
            from_object(object)?
        }
    };
    set_params(binding, parts, &mut message).await?;
    set_headers(binding, parts, &mut message)?;
    Ok(message)
}

fn from_bytes<M: DeserializeOwned>(bytes: &Bytes) -> Result<M, Failure> {
    let error = match serde_json::from_slice(bytes) {
        Ok(message) => return Ok(message),
        Err(error) => error,
    };
    if error.classify() != Category::Data {
        return Err(Failure::bad(format!("the body is not valid JSON: {error}")));
    }
    // Only now, when something is wrong, is it worth knowing where.
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Err(match serde_path_to_error::deserialize::<_, M>(&mut deserializer) {
        Err(error) => named(&error),
        Ok(_) => Failure::bad(error.to_string()),
    })
}

fn from_object<M: DeserializeOwned>(object: Map<String, Value>) -> Result<M, Failure> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| named(&error))
}

fn named(error: &serde_path_to_error::Error<serde_json::Error>) -> Failure {
    let text = error.inner().to_string();
    // The position says nothing that the path does not.
    let description = text.rsplit_once(" at line ").map_or(text.as_str(), |(description, _)| description);
    match error.path().to_string().as_str() {
        "." => Failure::bad(format!("the request is wrong: {description}")),
        path => Failure::field(path, description),
    }
}

async fn set_params<M>(binding: &Binding<M>, parts: &mut Parts, message: &mut M) -> Result<(), Failure> {
    if binding.params.is_empty() {
        return Ok(());
    }
    let found = RawPathParams::from_request_parts(parts, &()).await;
    let found = found.map_err(|error| Failure::bad(format!("the path is wrong: {error}")))?;
    for (param, (_, value)) in binding.params.iter().zip(&found) {
        let slot = (param.slot)(message);
        if !slot.is_empty() && slot != value {
            return Err(Failure::field(param.name, format!("`{slot}` in the body, but `{value}` in the path")));
        }
        value.clone_into(slot);
    }
    Ok(())
}

fn set_headers<M>(binding: &Binding<M>, parts: &Parts, message: &mut M) -> Result<(), Failure> {
    for field in binding.headers {
        let Some(value) = parts.headers.get(field.header) else { continue };
        let Ok(value) = value.to_str() else {
            return Err(Failure::field(field.name, format!("the header {} is not ASCII", field.header)));
        };
        let slot = (field.slot)(message);
        if slot.is_empty() {
            value.clone_into(slot);
        }
    }
    Ok(())
}
