//! What all `Watch…` methods translate alike.

use std::sync::Arc;

use cloud_contracts::v1::watch_instances_response::Change;
use cloud_core::services::{ChangeKind, WatchRequest};
use cloud_service_kit::server::Connection;
use tonic::Request;

/// What a caller wants to watch. The watch ends with the server that serves it.
pub(super) fn watch_request<M>(request: &Request<M>, resume_token: &str, id: &str) -> WatchRequest {
    let connection = request.extensions().get::<Arc<Connection>>();
    WatchRequest {
        resume_token: resume_token.to_owned(),
        id: id.to_owned(),
        shutdown: connection.map(|c| c.shutdown.clone()).unwrap_or_default(),
    }
}

/// A kind of change by its number, which is the same in every message.
pub(super) fn change(kind: ChangeKind) -> i32 {
    let change = match kind {
        ChangeKind::Current => Change::Current,
        ChangeKind::Synced => Change::Synced,
        ChangeKind::Created => Change::Created,
        ChangeKind::Updated => Change::Updated,
        ChangeKind::Deleted => Change::Deleted,
    };
    change.into()
}

/// The stream of a watch, as messages with the row in `$field`.
macro_rules! answer {
    ($watch:expr, $message:ident, $field:ident, $wire:expr) => {{
        let (watch, wire) = ($watch, $wire);
        let messages = futures::StreamExt::map(watch, move |told| match told {
            Ok(told) => Ok(cloud_contracts::v1::$message {
                change: $crate::handlers::watch::change(told.kind),
                $field: told.row.map(&wire),
                resume_token: told.resume_token,
            }),
            Err(error) => Err($crate::handlers::status(error)),
        });
        let messages: tonic::codegen::BoxStream<_> = Box::pin(messages);
        tonic::Response::new(messages)
    }};
}
pub(super) use answer;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    #[test]
    fn changes_have_the_same_numbers_in_every_message() {
        let set = prost_types::FileDescriptorSet::decode(cloud_contracts::DESCRIPTORS).unwrap();
        let messages = set.file.iter().filter(|f| f.package() == "cloud.v1").flat_map(|f| &f.message_type);
        let watches: Vec<_> =
            messages.filter(|m| m.name().starts_with("Watch") && m.name().ends_with("Response")).collect();
        assert!(watches.len() >= 10, "{}", watches.len());
        for message in watches {
            let change = message.enum_type.iter().find(|e| e.name() == "Change").unwrap();
            let numbers: Vec<_> = change.value.iter().map(|v| (v.name(), v.number())).collect();
            let expected = ["CHANGE_UNSPECIFIED", "CURRENT", "SYNCED", "CREATED", "UPDATED", "DELETED"];
            assert_eq!(numbers, expected.into_iter().zip(0..).collect::<Vec<_>>(), "{}", message.name());
            let fields: Vec<_> = message.field.iter().map(|f| (f.name(), f.number())).collect();
            assert_eq!((fields[0], fields[2]), (("change", 1), ("resume_token", 3)), "{}", message.name());
        }
    }
}
