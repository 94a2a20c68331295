//! Orphans.

use cloud_contracts::v1::Orphan;

use super::{Resource, Tone, View, times};
use crate::output::human;

impl Resource for Orphan {
    const KIND: &'static str = "orphan";
    const PLURAL: &'static str = "orphans";
    const COLUMNS: &'static [&'static str] = &["ID", "KIND", "NAME", "HOST", "SIZE", "FOUND", "REMOVING", "DETAIL"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.id.clone(),
            self.kind.clone(),
            self.name.clone(),
            self.host.clone(),
            size(self),
            human::age(self.found_at.as_ref(), view.now),
            if self.removing { "yes".to_owned() } else { String::new() },
            self.detail.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("Id", self.id.clone()),
            ("Kind", self.kind.clone()),
            ("Name", self.name.clone()),
            ("Host", self.host.clone()),
            ("Size", size(self)),
            ("Detail", self.detail.clone()),
            ("Removing", super::yes(self.removing)),
        ];
        lines.extend(times(view, [("Found", self.found_at.as_ref())]));
        lines
    }

    fn tone(&self) -> Tone {
        if self.removing { Tone::Busy } else { Tone::Bad }
    }
}

fn size(orphan: &Orphan) -> String {
    if orphan.size_bytes == 0 { String::new() } else { human::bytes(orphan.size_bytes) }
}
