//! Join tokens.

use std::time::SystemTime;

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
            expires(self, view),
            human::age(self.created_at.as_ref(), view.now),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Id", self.id.clone()), ("Used", used(self)), ("Host", self.host.clone())];
        lines.push(("Expires", expires(self, view)));
        lines.extend(times(view, [("Created", self.created_at.as_ref()), ("Revoked", self.revoked_at.as_ref())]));
        lines
    }

    fn tone(&self) -> Tone {
        if self.used >= self.uses || self.revoked_at.is_some() { Tone::Plain } else { Tone::Good }
    }
}

fn used(token: &JoinToken) -> String {
    format!("{} of {}", token.used, token.uses)
}

fn expires(token: &JoinToken, view: View) -> String {
    let Some(at) = token.expires_at.and_then(|at| SystemTime::try_from(at).ok()) else { return String::new() };
    at.duration_since(view.now).map_or_else(|_| "expired".to_owned(), |left| format!("in {}", human::span(left)))
}
