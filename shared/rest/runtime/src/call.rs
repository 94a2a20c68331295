//! One call: read the request, call the service, write the answer.
use std::{future::Future, sync::Arc};

use axum::{extract::Request as HttpRequest, response::Response as HttpResponse};
use futures::Stream;
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    binding::Binding,
    config::Config,
    decode, respond,
    sse::{self, EventFields},
};

async fn request<M>(config: &Config, binding: &Binding<M>, request: HttpRequest) -> Result<Request<M>, HttpResponse>
where
    M: Default + DeserializeOwned,
{
    let (mut parts, body) = request.into_parts();
    match decode::message(config, binding, &mut parts, body).await {
        Ok(message) => {
            let metadata = MetadataMap::from_headers(parts.headers);
            Ok(Request::from_parts(metadata, parts.extensions, message))
        }
        Err(failure) => {
            let response = respond::failure(config, &failure.status, failure.code);
            Err(respond::tagged(response, binding.method))
        }
    }
}

/// Serves a route whose method answers once.
pub async fn unary<M, R, F, Fut>(
    config: Arc<Config>,
    binding: &'static Binding<M>,
    http: HttpRequest,
    call: F,
) -> HttpResponse
where
    M: Default + DeserializeOwned,
    R: Serialize,
    F: FnOnce(Request<M>) -> Fut,
    Fut: Future<Output = Result<Response<R>, Status>>,
{
    let request = match request(&config, binding, http).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let response = match call(request).await {
        Ok(response) => respond::message(&config, binding.success, response),
        Err(status) => respond::failure(&config, &status, None),
    };
    respond::tagged(response, binding.method)
}

/// Serves a route whose method answers with a stream: as Server-Sent Events, whose ids and types are read from messages.
pub async fn server_stream<M, R, S, F, Fut>(
    config: Arc<Config>,
    binding: &'static Binding<M>,
    http: HttpRequest,
    fields: EventFields<R>,
    call: F,
) -> HttpResponse
where
    M: Default + DeserializeOwned,
    R: Serialize + 'static,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
    F: FnOnce(Request<M>) -> Fut,
    Fut: Future<Output = Result<Response<S>, Status>>,
{
    let request = match request(&config, binding, http).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let response = match call(request).await {
        Ok(response) => sse::stream(config, response, fields),
        Err(status) => respond::failure(&config, &status, None),
    };
    respond::tagged(response, binding.method)
}
