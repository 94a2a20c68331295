//! Rates: how often a key may call, and how many refusals are written down. Token buckets in the memory of this gateway: behind several
//! gateways a key may call each of them so often.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use cloud_domain::ApiKeyId;
use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use prometheus::{IntCounter, Registry};

/// How often each key may call.
#[derive(Debug, Clone, Copy)]
pub struct CallRate {
    /// Calls a second; 0: as often as it likes.
    pub per_second: u32,
    /// Calls at once after a rest; at least one second's.
    pub burst: u32,
}

impl Default for CallRate {
    fn default() -> Self {
        Self { per_second: 500, burst: 1_000 }
    }
}

/// Refusals that are written down of one key: so many at once after a rest, then one every so often.
const OF_A_KEY: (u32, Duration) = (100, Duration::from_secs(2));
/// The same of all keys together: a database grows by at most 432,000 refusals a day, however many keys are misused.
const OF_ALL: (u32, Duration) = (500, Duration::from_millis(200));
/// After so many calls, what is remembered of keys that rest is forgotten.
const FORGET: u32 = 1 << 16;

/// The buckets.
pub(super) struct Limits {
    rate: CallRate,
    calls: Option<DefaultKeyedRateLimiter<ApiKeyId>>,
    counted: AtomicU32,
    refusals: DefaultKeyedRateLimiter<ApiKeyId>,
    all_refusals: DefaultDirectRateLimiter,
    limited: IntCounter,
    unrecorded: IntCounter,
}

fn bucket((burst, every): (u32, Duration)) -> Quota {
    let quota = Quota::with_period(every).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
    quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

impl Limits {
    /// The buckets, with their counters registered.
    pub(super) fn new(rate: CallRate, registry: &Registry) -> Result<Self, prometheus::Error> {
        let calls = NonZeroU32::new(rate.per_second).map(|per_second| {
            let burst = NonZeroU32::new(rate.burst).unwrap_or(per_second).max(per_second);
            RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))
        });
        let limited = IntCounter::new("calls_limited_total", "Calls refused because their key called too often.")?;
        let unrecorded =
            IntCounter::new("refusals_unrecorded_total", "Refused changes that were too many to be written down.")?;
        registry.register(Box::new(limited.clone()))?;
        registry.register(Box::new(unrecorded.clone()))?;
        Ok(Self {
            rate,
            calls,
            counted: AtomicU32::new(0),
            refusals: RateLimiter::keyed(bucket(OF_A_KEY)),
            all_refusals: RateLimiter::direct(bucket(OF_ALL)),
            limited,
            unrecorded,
        })
    }

    /// Calls a second of each key.
    pub(super) fn per_second(&self) -> u32 {
        self.rate.per_second
    }

    /// Counts a call of a key; where it calls too often, says how long to wait.
    pub(super) fn call(&self, key: ApiKeyId) -> Result<(), Duration> {
        let Some(calls) = &self.calls else { return Ok(()) };
        if self.counted.fetch_add(1, Ordering::Relaxed) % FORGET == FORGET - 1 {
            calls.retain_recent();
            self.refusals.retain_recent();
        }
        calls.check_key(&key).map_err(|until| {
            self.limited.inc();
            until.wait_time_from(DefaultClock::default().now())
        })
    }

    /// Whether a refusal of this key is written down.
    pub(super) fn may_record(&self, key: ApiKeyId) -> bool {
        let may = self.refusals.check_key(&key).is_ok() && self.all_refusals.check().is_ok();
        if !may {
            self.unrecorded.inc();
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let limits = Limits::new(CallRate { per_second: 1, burst: 3 }, &Registry::new()).unwrap();
        let (busy, other) = (ApiKeyId::random(), ApiKeyId::random());
        assert!((0..3).all(|_| limits.call(busy).is_ok()));
        let wait = limits.call(busy).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limits.call(other).is_ok());
        assert_eq!(limits.limited.get(), 1);
    }

    #[test]
    fn without_a_rate_nothing_is_counted() {
        let limits = Limits::new(CallRate { per_second: 0, burst: 0 }, &Registry::new()).unwrap();
        let key = ApiKeyId::random();
        assert!((0..10_000).all(|_| limits.call(key).is_ok()));
    }

    #[test]
    fn a_flood_of_refusals_is_not_written_down() {
        let limits = Limits::new(CallRate::default(), &Registry::new()).unwrap();
        let recorded = |key| (0..1_000).filter(|_| limits.may_record(key)).count();
        let of_one = recorded(ApiKeyId::random());
        assert!((100..150).contains(&of_one), "{of_one}");
        let of_many: usize = (0..20).map(|_| recorded(ApiKeyId::random())).sum();
        assert!(of_one + of_many < 700, "{of_many}");
    }
}
