//! Filters on rows at hand.

use serde_json::Value;

use super::{Filter, Op, Term};
use crate::model::{Event, Resource};

impl Filter {
    /// Whether a row is meant.
    #[must_use]
    pub fn matches<R: Resource>(&self, row: &R) -> bool {
        if self.is_empty() {
            return true;
        }
        // A row that cannot be written as JSON could not have been stored.
        serde_json::to_value(row).is_ok_and(|json| self.matches_json(&json))
    }

    /// Whether a row is meant, by its JSON.
    #[must_use]
    pub fn matches_json(&self, row: &Value) -> bool {
        self.matches_by(|term| {
            let mut value = Some(row);
            for step in term.field.path {
                value = value.and_then(|v| v.get(step));
            }
            if let Some(key) = &term.key {
                value = value.and_then(|v| v.get(key));
            }
            value.map(text).unwrap_or_default()
        })
    }

    /// Whether an event is meant.
    #[must_use]
    pub fn matches_event(&self, event: &Event) -> bool {
        self.matches_by(|term| match term.field.name {
            "kind" => event.kind.clone(),
            "resource_id" => event.resource.clone(),
            "resource_name" => event.name.clone(),
            "action" => event.action.clone(),
            "actor" => event.actor.clone(),
            "source" => event.source.clone(),
            "outcome" => event.outcome.clone(),
            "request_id" => event.request_id.clone(),
            _ => String::new(),
        })
    }

    /// Whether what `value` says for each term is meant.
    pub fn matches_by(&self, value: impl Fn(&Term) -> String) -> bool {
        self.terms().iter().all(|term| term.holds(&value(term)))
    }
}

impl Term {
    fn holds(&self, value: &str) -> bool {
        match self.op {
            Op::Is => value == self.value,
            Op::IsNot => value != self.value,
            Op::Like => glob(&self.value, value),
        }
    }
}

/// A value as text, as the store takes it out of JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text is as a glob says. Each part between stars is looked for from where the one before ended: the first place is as good as any.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, more)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let (middle, last) = more.rsplit_once('*').unwrap_or(("", more));
    for part in middle.split('*') {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}
