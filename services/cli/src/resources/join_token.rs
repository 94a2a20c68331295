//! Join tokens.

use cloud_contracts::v1::JoinToken;

use super::{Resource, Tone, View, times};
use crate::output::human;

impl Resource for JoinToken {
    const KIND: &'static str = "join token";
    const PLURAL: &'static str = "join_tokens";
    const COLUMNS: &'static [&'static str] = &["ID", "USED", "HOST", "EXPIRES", "AGE"];

    fn row(&self, view: View) -> Vec<String> {
        vec![
            self.id.clone(),
            used(self),
            self.host.clone(),
            human::time(self.expires_at.as_ref(), view.now),
            human::age(self.created_at.as_ref(), view.now),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Id", self.id.clone()), ("Used", used(self)), ("Host", self.host.clone())];
        lines.extend(times(
            view,
            [
                ("Expires", self.expires_at.as_ref()),
                ("Created", self.created_at.as_ref()),
                ("Revoked", self.revoked_at.as_ref()),
            ],
        ));
        lines
    }

    fn tone(&self) -> Tone {
        if self.used >= self.uses || self.revoked_at.is_some() { Tone::Plain } else { Tone::Good }
    }
}

fn used(token: &JoinToken) -> String {
    format!("{} of {}", token.used, token.uses)
}
