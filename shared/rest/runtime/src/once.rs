//! Calls that are made once, however often they are sent: request ids.
//!
//! # Theory of operation
//!
//! A client that hears nothing does not know whether its call was carried out. It may send the call again under the same id of its own (the
//! field `request_id`, or the header `Idempotency-Key`), and what was done is not done again.
//!
//! [`once`] stands before every method that changes something, over gRPC and REST alike; the generated `Checked` calls it. What has been
//! done is remembered by the service's own [`Requests`]: **the transaction that carries a call out writes the id down**, so there is no
//! moment at which one of both is true. Of two calls at a time with one id, both may begin; only one can commit, and the other is answered
//! as the repetition that it is, whatever the first one's work made it run into. A refused call has no transaction, so it is not remembered:
//! sent again, it is tried again.
//!
//! A repetition is answered with the resource as it is now: by the service's Get method, or by the method itself where it waits. An answer
//! that nothing can read again holds a secret, and is not given twice.
use std::{collections::HashMap, future::Future};

use prost::Message;
use tonic::{
    Code, Extensions, Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    failure::ERROR_DOMAIN,
    validate::{Violation, invalid},
};

/// The header, and the gRPC metadata, that carries an id.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Set to `true` on the answer of a repetition.
pub const REPLAYED: &str = "idempotency-replayed";
/// The longest id.
const MAX_LEN: usize = 64;

/// A call with a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The caller's id of it.
    pub id: String,
    /// The method's full name.
    pub method: &'static str,
    /// The request without its id, encoded: fields in the order of their numbers, maps in that of their keys.
    pub body: Vec<u8>,
}

/// What is known of a call before it is made.
pub enum Begun {
    /// It was carried out before, on this resource.
    Seen(String),
    /// It was not. What carries it out finds the id in the request's extensions, and writes it down in its transaction.
    New(Box<dyn Pending>),
}

/// The memory of calls.
#[tonic::async_trait]
pub trait Requests: Send + Sync + 'static {
    /// Looks a call up.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` where the id was another call's.
    async fn begin(&self, call: Call, extensions: &mut Extensions) -> Result<Begun, Status>;
}

/// A call that is being made.
#[tonic::async_trait]
pub trait Pending: Send {
    /// It ended well. Where no transaction wrote it down there was nothing to do, and it is written down now. The resource, where another
    /// call with the id was faster.
    async fn succeeded(self: Box<Self>, resource: &str) -> Result<Option<String>, Status>;

    /// It failed. The resource, where that is because another call with the id carried it out.
    async fn failed(self: Box<Self>) -> Result<Option<String>, Status>;
}

/// In the extensions of a request that repeats an earlier one, for a method that answers it itself: the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat(pub String);

/// Makes a call, unless it was made before.
///
/// `take` takes the id out of the message, `about` says which resource an answer is about, `call` makes the call, and `replay` answers a
/// repetition.
///
/// # Errors
/// An id that is not one; what the call or the replay ends in.
pub async fn once<M, R, F, Fut, G, Gut>(
    requests: &dyn Requests,
    method: &'static str,
    mut request: Request<M>,
    take: fn(&mut M) -> String,
    about: fn(&R) -> &str,
    call: F,
    replay: G,
) -> Result<Response<R>, Status>
where
    M: Message + Clone,
    F: FnOnce(Request<M>) -> Fut,
    Fut: Future<Output = Result<Response<R>, Status>>,
    G: FnOnce(Request<M>, String) -> Gut,
    Gut: Future<Output = Result<Response<R>, Status>>,
{
    let field = take(request.get_mut());
    let Some(id) = id(&field, request.metadata())? else { return call(request).await };
    let (metadata, mut extensions, message) = request.into_parts();
    let made = Call { id, method, body: message.encode_to_vec() };
    let pending = match requests.begin(made, &mut extensions).await? {
        Begun::Seen(resource) => {
            return replay(Request::from_parts(metadata, extensions, message), resource).await.map(replayed);
        }
        Begun::New(pending) => pending,
    };
    let again = Request::from_parts(metadata.clone(), extensions.clone(), message.clone());
    let answer = call(Request::from_parts(metadata, extensions, message)).await;
    let faster = match &answer {
        Ok(response) => pending.succeeded(about(response.get_ref())).await?,
        Err(_) => pending.failed().await?,
    };
    match faster {
        Some(resource) => replay(again, resource).await.map(replayed),
        None => answer,
    }
}

/// The error of a repetition whose answer held a secret.
#[must_use]
pub fn not_replayed(method: &str, resource: &str) -> Status {
    let of = if resource.is_empty() { String::new() } else { format!(" (on `{resource}`)") };
    let message = format!(
        "this call was carried out before{of}, and what it answered is not shown a second time: nothing reads it again, since it held a \
         secret or is about what is gone. If you did not receive a secret, make a new one under another request id"
    );
    let info = HashMap::from([("method".to_owned(), method.to_owned()), ("resource".to_owned(), resource.to_owned())]);
    let details = ErrorDetails::with_error_info("NOT_REPLAYED", ERROR_DOMAIN, info);
    Status::with_error_details(Code::AlreadyExists, message, details)
}

fn replayed<R>(mut response: Response<R>) -> Response<R> {
    response.metadata_mut().insert(REPLAYED, MetadataValue::from_static("true"));
    response
}

/// The id of a call, from its field or its header.
#[allow(clippy::result_large_err)] // tonic's own convention
fn id(field: &str, metadata: &MetadataMap) -> Result<Option<String>, Status> {
    let wrong =
        |field: &str, why: &str| Err(invalid(vec![Violation { field: field.to_owned(), description: why.to_owned() }]));
    let header = match metadata.get(IDEMPOTENCY_KEY) {
        None => None,
        Some(value) => match value.to_str() {
            Ok(text) if fits(text) => Some(text),
            _ => return wrong("Idempotency-Key", "must have 1 to 64 printable ASCII characters"),
        },
    };
    match (field, header) {
        ("", None) => Ok(None),
        ("", Some(header)) => Ok(Some(header.to_owned())),
        (field, _) if !fits(field) => wrong("request_id", "must have 1 to 64 printable ASCII characters"),
        (field, Some(header)) if field != header => {
            wrong("request_id", "is not what the header Idempotency-Key says: send one of them")
        }
        (field, _) => Ok(Some(field.to_owned())),
    }
}

fn fits(text: &str) -> bool {
    (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

#[cfg(test)]
mod tests;
