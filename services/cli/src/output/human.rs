//! Ages, sizes and times as people read them.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// What stands where there is nothing.
pub const NOTHING: &str = "-";

/// How long ago: `45s`, `12m`, `7h`, `3d`.
pub fn age(then: Option<&Timestamp>, now: SystemTime) -> String {
    let Some(then) = then.and_then(|then| SystemTime::try_from(*then).ok()) else { return NOTHING.to_owned() };
    // A clock that runs ahead makes nobody younger than now.
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A point in time in RFC 3339, and how long ago it was.
pub fn time(then: Option<&Timestamp>, now: SystemTime) -> String {
    match then {
        Some(stamp) => format!("{} ({} ago)", day(stamp), age(then, now)),
        None => NOTHING.to_owned(),
    }
}

/// A point in time in RFC 3339, to the second.
pub fn day(then: &Timestamp) -> String {
    Timestamp { seconds: then.seconds, nanos: 0 }.to_string()
}

/// A duration such as `1500ms`, `90s` or `5m`.
pub fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        _ if !millis.is_multiple_of(1_000) && millis < 10_000 => format!("{millis} ms"),
        0..120_000 => format!("{} s", millis / 1_000),
        _ if millis.is_multiple_of(60_000) => format!("{} min", millis / 60_000),
        _ => format!("{} min {} s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// Bytes such as `512 MiB` or `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut divisor: u64 = 1;
    while unit + 1 < UNITS.len() && count / divisor >= 1_024 {
        divisor *= 1_024;
        unit += 1;
    }
    let tenths = u128::from(count) * 10 / u128::from(divisor);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {}", UNITS[unit]),
        (whole, tenth) => format!("{whole}.{tenth} {}", UNITS[unit]),
    }
}

/// MiB such as `512 MiB` or `2 GiB`.
pub fn mib(count: u64) -> String {
    bytes(count.saturating_mul(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ago = |seconds: i64| age(Some(&Timestamp { seconds: 1_000_000 - seconds, nanos: 0 }), now);
        let all: Vec<String> = [0, 119, 120, 7_199, 7_200, 172_799, 172_800, -5].into_iter().map(ago).collect();
        assert_eq!(all, ["0s", "119s", "2m", "119m", "2h", "47h", "2d", "0s"]);
        assert_eq!(age(None, now), "-");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(10 << 30), "10 GiB");
        assert_eq!(mib(512), "512 MiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn spans() {
        let all: Vec<String> =
            [0, 250, 1_500, 90_000, 300_000, 150_000].map(|ms| span(Duration::from_millis(ms))).to_vec();
        assert_eq!(all, ["0 s", "250 ms", "1500 ms", "90 s", "5 min", "2 min 30 s"]);
    }
}
