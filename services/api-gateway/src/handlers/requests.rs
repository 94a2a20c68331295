//! Request ids of both protocols: [`cloud_rest::once`] over the core's memory of calls.

use cloud_core::{
    CoreError,
    model::{Caller, RequestKey},
    ports::Store,
    services::{Known, RequestService},
};
use cloud_rest::{Begun, Call, Pending, Requests};
use tonic::{Extensions, Status};

use super::{error, wire::unknown_caller};

/// The memory of calls.
pub struct RequestLog<S>(pub RequestService<S>);

#[tonic::async_trait]
impl<S: Store> Requests for RequestLog<S> {
    async fn begin(&self, call: Call, extensions: &mut Extensions) -> Result<Begun, Status> {
        let caller = extensions.get_mut::<Caller>().ok_or_else(unknown_caller)?;
        match self.0.begin(caller, call.id, call.method, &call.body).await.map_err(error::status)? {
            Known::Done(resource) => Ok(Begun::Seen(resource)),
            Known::New(key) => {
                caller.once = Some(key.clone());
                Ok(Begun::New(Box::new(Made { requests: self.0.clone(), key })))
            }
        }
    }
}

/// A call that is being made.
struct Made<S> {
    requests: RequestService<S>,
    key: RequestKey,
}

#[tonic::async_trait]
impl<S: Store> Pending for Made<S> {
    async fn succeeded(self: Box<Self>, resource: &str) -> Result<Option<String>, Status> {
        if self.key.is_recorded() {
            return Ok(None);
        }
        self.requests.unchanged(&self.key, resource).await.map_err(error::status)
    }

    async fn failed(self: Box<Self>) -> Result<Option<String>, Status> {
        // What was written down went well; that the call failed after it is its own (a wait that took too long).
        if self.key.is_recorded() {
            return Ok(None);
        }
        match self.requests.done_meanwhile(&self.key).await {
            Ok(done) => Ok(done),
            Err(reused @ CoreError::RequestReused { .. }) => Err(error::status(reused)),
            // The call's own error says more than that the database did not answer after it either.
            Err(error) => {
                tracing::debug!(%error, "whether a call was made before could not be looked up");
                Ok(None)
            }
        }
    }
}
