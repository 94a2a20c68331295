//! `cloud instance explain`.

use cloud_contracts::v1::{ExplainInstanceRequest, ExplainInstanceResponse, PlacementCandidate};

use crate::{
    args::{Connection, OutputArgs},
    connect::ask,
    context::Context,
    error::Error,
    output::human,
    resources::{Resource, View},
};

impl Resource for ExplainInstanceResponse {
    const KIND: &'static str = "explanation";
    const PLURAL: &'static str = "explanations";
    const COLUMNS: &'static [&'static str] = &["PLACEMENT"];

    fn row(&self, _: View) -> Vec<String> {
        vec![self.placement.clone()]
    }

    fn details(&self, view: View) -> Vec<(&'static str, String)> {
        let mut lines = vec![("Placed", self.placement.clone())];
        lines.extend(self.candidates.iter().map(|candidate| ("Host then", describe(candidate))));
        lines.extend(self.parts.iter().map(|part| ("Now", part.clone())));
        if !self.last_error.is_empty() {
            lines.push(("Last error", format!("{} (attempt {})", self.last_error, self.attempts)));
        }
        if self.next_attempt_at.is_some() {
            lines.push(("Next attempt", human::time(self.next_attempt_at.as_ref(), view.now)));
        }
        lines
    }
}

fn describe(candidate: &PlacementCandidate) -> String {
    match (candidate.chosen, candidate.refused.as_str()) {
        (true, _) => format!("{}: chosen, score {}", candidate.host, candidate.score),
        (false, "") => format!("{}: score {}", candidate.host, candidate.score),
        (false, why) => format!("{}: not taken, {why}", candidate.host),
    }
}

/// Prints it.
pub async fn run(connection: Connection, name: String, output: OutputArgs) -> Result<(), Error> {
    let context = Context::new(connection, output).await?;
    let subject = format!("instance {name}");
    let request = ExplainInstanceRequest { id: name };
    let answer = context.cloud.instances().explain_instance(ask(request)).await.map_err(Error::refused(subject))?;
    context.cloud.warn_of_unused_id();
    context.out.details(&[answer.into_inner()])
}
