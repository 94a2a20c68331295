//! Certificate authorities.

use cloud_contracts::v1::Authority;

use super::{Resource, View};
use crate::output::human;

impl Resource for Authority {
    const KIND: &'static str = "authority";
    const PLURAL: &'static str = "authorities";
    const COLUMNS: &'static [&'static str] = &["ID", "ISSUES", "ACTIVE", "EXPIRES", "FINGERPRINT"];

    fn row(&self, _view: View) -> Vec<String> {
        let day = |at: Option<prost_types::Timestamp>| at.map(|at| human::day(&at)).unwrap_or_default();
        vec![
            self.id.clone(),
            super::yes(self.issues),
            day(self.active_at),
            day(self.expires_at),
            self.fingerprint.clone(),
        ]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let labels = ["Id", "Issues", "Active", "Expires", "Fingerprint"];
        labels.into_iter().zip(self.row(view)).collect()
    }
}
