//! Which releases work together: the gateway's own, and those one minor version away from it.

use crate::{CoreError, model::AgentRole};

/// The gateway's release: that of the whole workspace.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Major and minor.
fn parts(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Older {
    Agent,
    Gateway,
}

/// None where they work together; else which is the older one.
fn apart(own: (u64, u64), theirs: (u64, u64)) -> Option<Older> {
    if own.0 == theirs.0 && own.1.abs_diff(theirs.1) <= 1 {
        return None;
    }
    Some(if theirs < own { Older::Agent } else { Older::Gateway })
}

/// Refuses an agent whose release is too far from the gateway's, and says which of the two to upgrade.
pub(super) fn check(host: &str, role: AgentRole, version: &str) -> Result<(), CoreError> {
    let what = format!("the {}-agent of host `{host}`", role.as_str());
    let theirs = parts(version)
        .ok_or_else(|| CoreError::invalid("agent_version", format!("{what} says `{version}`, which is no release")))?;
    let upgrade = match parts(OWN).and_then(|own| apart(own, theirs)) {
        None => return Ok(()),
        Some(Older::Agent) => format!("upgrade {what}"),
        Some(Older::Gateway) => "upgrade the gateway".to_owned(),
    };
    let message = format!(
        "{what} is of release {version}, the gateway of {OWN}: releases more than one minor version apart do not work together: {upgrade}"
    );
    Err(CoreError::precondition("VERSION_SKEW", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(own: &str, theirs: &str) -> Option<Older> {
        apart(parts(own).unwrap(), parts(theirs).unwrap())
    }

    #[test]
    fn one_minor_version_apart_works_together() {
        for (own, theirs) in [("0.2.0", "0.1.9"), ("0.2.0", "0.3.0"), ("0.2.0", "0.2.7-rc.1"), ("1.0.0", "1.1.0")] {
            assert_eq!(of(own, theirs), None, "{own} and {theirs}");
        }
        for (own, theirs, older) in [
            ("0.3.0", "0.1.0", Older::Agent),
            ("0.1.0", "0.3.0", Older::Gateway),
            ("1.0.0", "0.9.0", Older::Agent),
            ("0.9.0", "1.0.0", Older::Gateway),
        ] {
            assert_eq!(of(own, theirs), Some(older), "{own} and {theirs}");
        }
    }

    #[test]
    fn the_refusal_says_which_to_upgrade() {
        let newer = check("h1", AgentRole::Storage, "9.0.0").unwrap_err().to_string();
        assert!(newer.contains("storage-agent of host `h1`") && newer.ends_with("upgrade the gateway"), "{newer}");
        for text in ["new", "", "1", "1.x"] {
            let refused = check("h1", AgentRole::Storage, text);
            assert!(matches!(refused, Err(CoreError::Invalid { field: "agent_version", .. })), "{text}");
        }
        assert!(check("h1", AgentRole::Storage, OWN).is_ok());
    }
}
