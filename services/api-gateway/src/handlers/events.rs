//! `cloud.v1.EventService`.

use cloud_contracts::v1::{self, event_service_server::EventService};
use cloud_core::{
    model::{Caller, Event},
    ports::Store,
    services::{EventFilter, Services},
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    error,
    watch::{answer, watch_request},
    wire::{caller, page_of, time},
};

/// Events over the core's service.
pub struct Events<S>(pub Services<S>);

#[tonic::async_trait]
impl<S: Store> EventService for Events<S> {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let (caller, request) = (caller(&request)?, request.into_inner());
        let filter = EventFilter { kind: request.kind.clone(), resource: request.resource_id.clone() };
        let page = self.0.events.list(&caller, &filter, &page_of!(request, live)).await.map_err(error::status)?;
        let events = page.rows.into_iter().map(|row| wire(row, &caller)).collect();
        Ok(Response::new(v1::ListEventsResponse { events, next_page_token: page.next }))
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<BoxStream<v1::WatchEventsResponse>>, Status> {
        let (caller, watch) = (caller(&request)?, watch_request(&request, &request.get_ref().resume_token, ""));
        let request = request.into_inner();
        let filter = EventFilter { kind: request.kind, resource: request.resource_id };
        let watch = self.0.watch.events(&caller, filter, &watch).await.map_err(error::status)?;
        Ok(answer!(watch, WatchEventsResponse, event, move |row| wire(row, &caller)))
    }
}

fn wire(row: Event, caller: &Caller) -> v1::Event {
    v1::Event {
        id: row.id.to_string(),
        revision: row.revision,
        created_at: time(row.at),
        // A list is of the caller's project, and of what belongs to the cloud.
        project: if row.project == caller.project { caller.project_name.clone() } else { String::new() },
        kind: row.kind,
        resource_id: row.resource,
        resource_name: row.name,
        action: row.action,
        actor: row.actor,
        source: row.source,
        outcome: row.outcome,
        message: row.message,
        request_id: row.request_id,
    }
}
