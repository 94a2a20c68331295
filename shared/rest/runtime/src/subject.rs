//! What a call is about, for whoever keeps a record of calls around the handlers.
use std::sync::{Arc, OnceLock};

use tonic::Request;

/// The id or name of the resource that a request is about. Put into a request's extensions by a layer, it is filled in when the request has
/// been read, by [`Subject::tell`] of generated code, and can be read by the layer after the call, refused or not.
#[derive(Debug, Clone, Default)]
pub struct Subject(Arc<OnceLock<String>>);

impl Subject {
    /// Says what the call is about. What is said first stays; an empty text says nothing.
    pub fn set(&self, text: &str) {
        if !text.is_empty() {
            let _ = self.0.set(text.to_owned());
        }
    }

    /// What the call is about; empty where nobody said.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get().map_or("", String::as_str)
    }

    /// Says what a request is about, where a layer asked.
    pub fn tell<M>(request: &Request<M>, text: &str) {
        if let Some(subject) = request.extensions().get::<Self>() {
            subject.set(text);
        }
    }
}
