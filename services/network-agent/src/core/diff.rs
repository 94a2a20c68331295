//! The difference between what the switch has and what it should have.

use std::collections::BTreeMap;

use super::flow::{Cookie, Flow, FlowBody, FlowKey, Rule};

/// Flows by what tells them apart.
pub type FlowSet = BTreeMap<FlowKey, FlowBody>;

/// A change of flows. The switch takes all of it at once or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Removed first, where they still have that cookie: a flow that another VPC put in its place meanwhile stays.
    pub deletes: Vec<(FlowKey, Cookie)>,
    /// Added then; one with the key of an existing flow replaces it.
    pub adds: Vec<Flow>,
}

impl Change {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.adds.is_empty()
    }

    /// This change and another one of other flows, together.
    pub fn extend(&mut self, other: Self) {
        self.deletes.extend(other.deletes);
        self.adds.extend(other.adds);
    }

    /// What `set` becomes by it.
    pub fn apply(&self, set: &mut FlowSet) {
        for (key, cookie) in &self.deletes {
            if set.get(key).is_some_and(|body| body.cookie == *cookie) {
                set.remove(key);
            }
        }
        for flow in &self.adds {
            set.insert(flow.key.clone(), flow.body.clone());
        }
    }
}

/// The flows of computed rules.
#[must_use]
pub fn flow_set(rules: &[Rule]) -> FlowSet {
    rules.iter().map(Flow::from).map(|flow| (flow.key, flow.body)).collect()
}

/// What turns `have` into `want`.
///
/// A flow whose cookie alone differs is replaced too: deleting by cookie must find it.
#[must_use]
pub fn diff(have: &FlowSet, want: &FlowSet) -> Change {
    let stale = have.iter().filter(|(key, _)| !want.contains_key(*key));
    let deletes = stale.map(|(key, body)| (key.clone(), body.cookie)).collect();
    let adds = want
        .iter()
        .filter(|(key, body)| have.get(*key) != Some(*body))
        .map(|(key, body)| Flow { key: key.clone(), body: body.clone() })
        .collect();
    Change { deletes, adds }
}

#[cfg(test)]
mod tests;
