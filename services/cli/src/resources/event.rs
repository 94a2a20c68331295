//! Events.

use cloud_contracts::v1::Event;

use super::{Resource, Tone, View, times};
use crate::output::human;

impl Resource for Event {
    const KIND: &'static str = "event";
    const PLURAL: &'static str = "events";
    const COLUMNS: &'static [&'static str] = &["AGE", "ACTION", "RESOURCE", "OUTCOME", "ACTOR", "MESSAGE"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            human::age(self.created_at.as_ref(), view.now),
            self.action.clone(),
            format!(
                "{}/{}",
                self.kind,
                if self.resource_name.is_empty() { &self.resource_id } else { &self.resource_name }
            ),
            self.outcome.clone(),
            self.actor.clone(),
            self.message.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.clone()),
            ("Revision", self.revision.to_string()),
            ("Action", self.action.clone()),
            ("Kind", self.kind.clone()),
            ("Resource", format!("{} ({})", self.resource_name, self.resource_id)),
            ("Outcome", self.outcome.clone()),
            ("Actor", self.actor.clone()),
            ("Source", self.source.clone()),
            ("Message", self.message.clone()),
            ("Request", self.request_id.clone()),
        ];
        lines.extend(times(view, [("Created", self.created_at.as_ref())]));
        lines
    }

    fn tone(&self) -> Tone {
        if self.outcome == "OK" { Tone::Good } else { Tone::Bad }
    }
}
