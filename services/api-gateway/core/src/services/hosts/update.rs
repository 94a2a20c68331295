//! Labels of hosts, and what of them may be promised.

use super::{HostService, HostView, modes::locked};
use crate::{
    CoreError,
    model::{Caller, HostCapacity, HostLimits, Labels},
    ports::{Store, Tx},
    services::{
        Settings,
        lookup::{check_etag, event, labels, operator},
    },
};

/// The most that may be promised for 100 of what there is.
const MOST_PERCENT: u32 = 10_000;
/// More memory kept back than this is a mistake, in MiB.
const MOST_RESERVED: u64 = 1 << 40;

/// What of a host is changed; what is none stays.
#[derive(Debug, Clone, Default)]
pub struct HostChange {
    /// All its labels.
    pub labels: Option<Labels>,
    /// Virtual processors promised for 100 threads; 0: as for all hosts.
    pub vcpu_percent: Option<u32>,
    /// Memory promised for 100 MiB; 0: as for all hosts.
    pub memory_percent: Option<u32>,
    /// Threads that are not promised.
    pub vcpus_reserved: Option<u32>,
    /// Memory that is not promised, in MiB.
    pub memory_reserved_mib: Option<u64>,
}

impl HostChange {
    fn check(&self) -> Result<(), CoreError> {
        if let Some(all) = &self.labels {
            labels(all)?;
        }
        let percents =
            [("vcpu_overcommit_percent", self.vcpu_percent), ("memory_overcommit_percent", self.memory_percent)];
        for (field, percent) in percents {
            if percent.is_some_and(|percent| percent > MOST_PERCENT || (1..10).contains(&percent)) {
                return Err(CoreError::invalid(field, format!("must be 10 to {MOST_PERCENT}, or 0 for the gateway's")));
            }
        }
        if self.memory_reserved_mib.is_some_and(|mib| mib > MOST_RESERVED) {
            return Err(CoreError::invalid("memory_reserved_mib", format!("must be at most {MOST_RESERVED}")));
        }
        Ok(())
    }

    fn apply(self, limits: &mut HostLimits) {
        let percent = |percent: u32| (percent > 0).then_some(percent);
        if let Some(new) = self.vcpu_percent {
            limits.vcpu_percent = percent(new);
        }
        if let Some(new) = self.memory_percent {
            limits.memory_percent = percent(new);
        }
        limits.vcpus_reserved = self.vcpus_reserved.or(limits.vcpus_reserved);
        limits.memory_reserved_mib = self.memory_reserved_mib.or(limits.memory_reserved_mib);
    }
}

/// A host's limits, with what the gateway is told for all hosts where it has none of its own.
pub(super) fn filled(own: &HostLimits, settings: &Settings) -> HostLimits {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the configuration takes 0.1 to 100
    let vcpu_percent = (settings.cpu_overcommit * 100.0).round() as u32;
    HostLimits {
        vcpu_percent: own.vcpu_percent.or(Some(vcpu_percent)),
        memory_percent: own.memory_percent.or(Some(100)),
        vcpus_reserved: own.vcpus_reserved.or(Some(0)),
        memory_reserved_mib: own.memory_reserved_mib.or(Some(settings.memory_reserve_mib)),
    }
}

/// Virtual processors and memory (MiB) that may be promised: what there is less what is kept back, times the ratio, rounded down.
pub(super) fn promisable(capacity: &HostCapacity, limits: HostLimits) -> (u64, u64) {
    let of = |total: u64, reserved: u64, percent: Option<u32>| {
        let exact = u128::from(total.saturating_sub(reserved)) * u128::from(percent.unwrap_or(100)) / 100;
        u64::try_from(exact).unwrap_or(u64::MAX)
    };
    let vcpus = of(capacity.vcpus.into(), limits.vcpus_reserved.unwrap_or_default().into(), limits.vcpu_percent);
    let memory = of(capacity.memory_mib, limits.memory_reserved_mib.unwrap_or_default(), limits.memory_percent);
    (vcpus, memory)
}

impl<S: Store> HostService<S> {
    /// Changes a host's labels, or what of it may be promised (operators). Where that is less than is promised already, nothing is taken from
    /// anybody: the host gets no new instances until enough is gone.
    ///
    /// # Errors
    /// Denied, `NotFound`, `StaleEtag`, Invalid.
    pub async fn update(
        &self,
        caller: &Caller,
        id: &str,
        etag: &str,
        mut change: HostChange,
    ) -> Result<HostView, CoreError> {
        operator(caller, "change hosts")?;
        change.check()?;
        let mut tx = self.store.begin().await?;
        let mut row = locked(&mut tx, id).await?;
        check_etag(&row, etag)?;
        if let Some(labels) = change.labels.take() {
            row.meta.labels = labels;
        }
        change.apply(&mut row.limits);
        tx.update(&mut row).await?;
        self.set_capacity(&mut tx, &row).await?;
        tx.event(event(caller, &row, "host.update")).await?;
        tx.commit().await?;
        self.registry.learn(&row);
        self.view(row).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(vcpus: u32, memory_mib: u64) -> HostCapacity {
        HostCapacity { vcpus, memory_mib, ..HostCapacity::default() }
    }

    #[test]
    fn what_is_kept_back_is_kept_before_the_ratio() {
        let own = HostLimits {
            vcpu_percent: Some(150),
            memory_percent: Some(110),
            vcpus_reserved: Some(1),
            memory_reserved_mib: Some(1000),
        };
        let limits = filled(&own, &Settings::default());
        assert_eq!(promisable(&has(4, 4001), limits), (4, 3301), "(4-1)*1.5 and (4001-1000)*1.1, rounded down");
        assert_eq!(promisable(&has(1, 999), limits), (0, 0));
        let all = filled(&HostLimits::default(), &Settings::default());
        assert_eq!(promisable(&has(4, 4608), all), (32, 4096), "as the gateway is told");
        assert_eq!(promisable(&has(u32::MAX, 1 << 40), all), (u64::from(u32::MAX) * 8, (1 << 40) - 512));
    }

    #[test]
    fn a_ratio_of_zero_is_the_gateways() {
        let mut limits = HostLimits { vcpu_percent: Some(150), ..HostLimits::default() };
        HostChange { vcpu_percent: Some(0), ..HostChange::default() }.apply(&mut limits);
        assert_eq!(limits, HostLimits::default());
        HostChange { memory_reserved_mib: Some(0), ..HostChange::default() }.apply(&mut limits);
        assert_eq!(limits.memory_reserved_mib, Some(0), "nothing kept back is a wish of its own");
        for percent in [1, 9, 10_001] {
            assert!(HostChange { vcpu_percent: Some(percent), ..HostChange::default() }.check().is_err(), "{percent}");
        }
    }
}
