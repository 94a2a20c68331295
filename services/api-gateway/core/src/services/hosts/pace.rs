//! How often agents say that they live.

use std::time::Duration;

use crate::{model::AgentRole, services::Settings};

/// Signs of life of all agents together, per second, that a cloud can have for the asking. Of more each costs the gateway what it needs for its
/// work: 60 µs of a processor (`cloud-bench scale`).
const PER_SECOND: f64 = 900.0;
/// Signs of life in the time after which a host is taken for silent: so many must be lost before one is.
const BEFORE_SILENCE: u32 = 3;

/// How long an agent shall wait between two, in a cloud of so many hosts: what the settings say, or longer where they are many.
pub(super) fn interval(settings: &Settings, hosts: usize) -> Duration {
    #[allow(clippy::cast_precision_loss, reason = "hosts are far fewer than 2^52")]
    let shared = Duration::from_secs_f64((hosts * AgentRole::ALL.len()) as f64 / PER_SECOND);
    settings.heartbeat_interval.max(shared.min(settings.heartbeat_timeout / BEFORE_SILENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hosts_beat_less_often_and_never_too_seldom() {
        let of = |beat, silence, hosts| {
            let (heartbeat_interval, heartbeat_timeout) = (Duration::from_secs(beat), Duration::from_secs(silence));
            interval(&Settings { heartbeat_interval, heartbeat_timeout, ..Settings::default() }, hosts).as_millis()
        };
        assert_eq!((of(2, 10, 0), of(2, 10, 3), of(2, 10, 600)), (2000, 2000, 2000));
        assert_eq!((of(2, 10, 900), of(2, 10, 50_000)), (3000, 3333));
        // What is set is kept, however long it is.
        assert_eq!(of(9, 10, 50_000), 9000);
    }
}
