//! Flows, by `ovs-ofctl`: read as text, changed in one bundle that the switch commits or refuses as a whole.

use std::{fmt::Write as _, path::Path, time::Duration};

use cloud_service_kit::exec::{Command, ExecError, run};

use crate::core::{
    diff::Change,
    flow::{Cookie, Flow, FlowBody, FlowKey},
    ports::BackendError,
};

/// How long one command may take: thousands of flows take less than half a second.
const DEADLINE: Duration = Duration::from_secs(20);
/// A hundred thousand flows.
const MAX_OUTPUT: usize = 64 << 20;
/// The priority that the switch does not print.
const DEFAULT_PRIORITY: u16 = 32_768;

/// The flows of one bridge.
#[derive(Debug)]
pub struct Ofctl {
    target: String,
}

impl Ofctl {
    /// Flows behind a bridge's management socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { target: format!("unix:{}", socket.display()) }
    }

    /// All flows.
    ///
    /// # Errors
    /// The switch does not answer, or answers what cannot be read.
    pub async fn dump(&self) -> Result<Vec<Flow>, BackendError> {
        let output = run(&self.command("dump-flows").arg("--no-stats").max_output(MAX_OUTPUT)).await;
        let text = output.map_err(|error| unavailable("cannot read the switch's flows", error))?;
        text.text().lines().filter(|line| line.contains("actions=")).map(parse).collect()
    }

    /// How many flows there are.
    ///
    /// # Errors
    /// As [`Self::dump`].
    pub async fn count(&self) -> Result<usize, BackendError> {
        let output = run(&self.command("dump-aggregate")).await;
        let output = output.map_err(|error| unavailable("cannot count the switch's flows", error))?;
        let text = output.text();
        let number = text.split("flow_count=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| BackendError::failed(format!("cannot read the number of flows from `{text}`")))
    }

    /// Makes a change; the switch forwards by it when this returns.
    ///
    /// # Errors
    /// The switch does not answer, or refuses all of it.
    pub async fn change(&self, change: &Change) -> Result<(), BackendError> {
        let command = self.command("add-flows").args(["--bundle", "-"]).stdin(script(change));
        match run(&command).await {
            Ok(_) => Ok(()),
            Err(error) => Err(unavailable("the switch did not take the flows", error)),
        }
    }

    fn command(&self, verb: &str) -> Command {
        // Options may stand anywhere; OpenFlow 1.4 is the first with bundles.
        Command::new("ovs-ofctl").args(["-O", "OpenFlow14", verb, &self.target]).deadline(DEADLINE)
    }
}

/// A refusal and a switch that is away look alike from here; what tells them apart is in the message.
fn unavailable(what: &str, error: ExecError) -> BackendError {
    match error {
        ExecError::Failed { ref stderr, .. } if !stderr.contains("failed to connect") => {
            BackendError::failed_by(what, error)
        }
        error => BackendError::unavailable(what, error),
    }
}

/// A change in the language of `ovs-ofctl add-flows`.
#[must_use]
pub fn script(change: &Change) -> String {
    let mut text = String::new();
    for (key, cookie) in &change.deletes {
        // The mask makes the cookie part of the match.
        let _ = writeln!(text, "delete_strict cookie={:#x}/-1,{key}", cookie.0);
    }
    for flow in &change.adds {
        let _ = writeln!(text, "add {flow}");
    }
    text
}

/// A line such as ` cookie=0x2, table=10, priority=200,ip,in_port=3 actions=goto_table:25`.
fn parse(line: &str) -> Result<Flow, BackendError> {
    let unreadable = || BackendError::failed(format!("cannot read the flow `{line}`"));
    let (left, actions) = line.split_once("actions=").ok_or_else(unreadable)?;
    let (mut cookie, mut table, mut priority) = (0, 0, DEFAULT_PRIORITY);
    let mut fields = Vec::new();
    for token in left.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match token.split_once('=') {
            Some(("cookie", value)) => {
                let digits = value.strip_prefix("0x").ok_or_else(unreadable)?;
                cookie = u64::from_str_radix(digits, 16).map_err(|_| unreadable())?;
            }
            Some(("table", value)) => table = value.parse().map_err(|_| unreadable())?,
            Some(("priority", value)) => priority = value.parse().map_err(|_| unreadable())?,
            _ => fields.push(token.to_owned()),
        }
    }
    Ok(Flow {
        key: FlowKey::new(table, priority, &mut fields),
        body: FlowBody { cookie: Cookie(cookie), actions: actions.trim().to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_flows_are_read() {
        let flow =
            parse(" cookie=0x100000500000003, table=10, priority=200,ip,in_port=3 actions=goto_table:25").unwrap();
        assert_eq!(
            flow.to_string(),
            "cookie=0x100000500000003,table=10,priority=200,in_port=3,ip actions=goto_table:25"
        );
        assert_eq!(flow.body.cookie.vni().unwrap().get(), 5);
        let bare = parse(" actions=drop").unwrap();
        assert_eq!((bare.key.table, bare.key.priority, bare.body.cookie.0), (0, 32_768, 0));
        assert!(parse(" cookie=12, actions=drop").is_err());
    }

    #[test]
    fn deletes_come_first_and_name_their_cookie() {
        let flow = parse(" cookie=0x7, table=1, priority=2,ip actions=drop").unwrap();
        let change = Change { deletes: vec![(flow.key.clone(), flow.body.cookie)], adds: vec![flow] };
        assert_eq!(
            script(&change),
            "delete_strict cookie=0x7/-1,table=1,priority=2,ip\nadd cookie=0x7,table=1,priority=2,ip actions=drop\n"
        );
    }
}
