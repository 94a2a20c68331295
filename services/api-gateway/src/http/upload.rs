//! `POST /images:upload`: an image's bytes as the body, its header as query parameters. The one REST route that is not generated, since
//! its gRPC method streams.

use std::collections::BTreeMap;

use axum::{
    Extension, Json, Router,
    extract::{Query, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use cloud_contracts::v1;
use cloud_core::ports::Store;
use cloud_rest::Subject;
use cloud_service_kit::ServiceError;
use futures::StreamExt;
use http::StatusCode;
use serde_json::{Value, json};
use tonic::{Status, metadata::MetadataMap};

use super::rest_response;
use crate::handlers::Images;

pub(super) const PATH: &str = "/images:upload";

/// The route, under `/v1` too. Without the limit of JSON bodies: the image store has its own.
pub(super) fn router<S: Store>(images: Images<S>) -> Router {
    let route = || post(upload::<S>);
    Router::new().route(PATH, route()).route(&format!("/v1{PATH}"), route()).with_state(images)
}

async fn upload<S: Store>(
    State(images): State<Images<S>>,
    Extension(subject): Extension<Subject>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    let header = match header(query) {
        Ok(header) => header,
        Err(error) => return rest_response(&error.into()),
    };
    subject.set(&header.name);
    let (parts, body) = request.into_parts();
    let header = tonic::Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, header);
    let bytes = body.into_data_stream();
    let bytes = bytes.map(|chunk| {
        chunk.map_err(|error| {
            Status::from(ServiceError::aborted("UPLOAD_BROKEN", format!("the body could not be read: {error}")))
        })
    });
    match images.upload(header, bytes).await {
        Ok(image) => {
            let (metadata, image, _) = image.into_parts();
            (StatusCode::CREATED, metadata.into_headers(), Json(image)).into_response()
        }
        Err(status) => rest_response(&status),
    }
}

fn header(query: BTreeMap<String, String>) -> Result<v1::UploadImageHeader, ServiceError> {
    let mut header = v1::UploadImageHeader::default();
    for (key, value) in query {
        match key.as_str() {
            "name" => header.name = value,
            "sha256" => header.sha256 = value,
            "architecture" => header.architecture = value,
            "request_id" => header.request_id = value,
            "format" => {
                let format = v1::image::Format::from_str_name(&value.to_ascii_uppercase());
                let unknown = || ServiceError::invalid("format", format!("`{value}` is no format: use QCOW2 or RAW"));
                header.format = format.ok_or_else(unknown)?.into();
            }
            "visibility" => {
                let visibility = v1::image::Visibility::from_str_name(&value.to_ascii_uppercase());
                let unknown =
                    || ServiceError::invalid("visibility", format!("`{value}` is none: use PRIVATE or PUBLIC"));
                header.visibility = visibility.ok_or_else(unknown)?.into();
            }
            _ => match key.strip_prefix("labels.") {
                Some(label) => {
                    header.labels.insert(label.to_owned(), value);
                }
                None => {
                    let known = "known are name, format, sha256, visibility, architecture, request_id and labels.<key>";
                    return Err(ServiceError::invalid(key, format!("is no parameter of this; {known}")));
                }
            },
        }
    }
    Ok(header)
}

/// Adds the route to the OpenAPI document.
pub(super) fn describe(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    // Answers as every other creation does.
    let responses = paths.get("/images").and_then(|p| p.pointer("/post/responses")).cloned().unwrap_or(Value::Null);
    let tags = paths.get("/images").and_then(|p| p.pointer("/post/tags")).cloned().unwrap_or(json!([]));
    let parameter = |name: &str, required: bool, schema: Value, description: &str| json!({"name": name, "in": "query", "required": required, "schema": schema, "description": description});
    let operation = json!({
        "operationId": "ImageService_UploadImage",
        "tags": tags,
        "summary": "Imports an image from the bytes sent; answers when it is READY.",
        "parameters": [
            parameter("name", true, json!({"type": "string", "minLength": 1, "maxLength": 63}), "The image's name."),
            parameter("format", false, json!({"type": "string", "enum": ["FORMAT_UNSPECIFIED", "QCOW2", "RAW"]}),
                "What the bytes must be; left out: found out."),
            parameter("sha256", false, json!({"type": "string", "maxLength": 64, "pattern": "^([0-9a-fA-F]{64})?$"}),
                "What their SHA-256 must be, in hex."),
            parameter("architecture", false, json!({"type": "string", "maxLength": 16}),
                "`x86_64` or `aarch64`; left out: the gateway's own."),
            parameter("visibility", false,
                json!({"type": "string", "enum": ["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC"]}), "Who sees it."),
            parameter("request_id", false, json!({"type": "string", "maxLength": 64, "pattern": "^[ -~]*$"}),
                "Makes a repeated upload the same upload: the header Idempotency-Key says the same."),
        ],
        "requestBody": {
            "required": true,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        "responses": responses,
    });
    paths.insert(PATH.to_owned(), json!({"post": operation}));
}
