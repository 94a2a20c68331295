//! What can happen to a host.

use serde_json::json;

use crate::{command::run, host::Host};

/// A cable of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// To the gateway.
    Management,
    /// To the other hosts' tunnels.
    Underlay,
}

impl Wire {
    pub(crate) const fn bridge(self) -> &'static str {
        match self {
            Self::Management => "mgmt",
            Self::Underlay => "underlay",
        }
    }

    pub(crate) const fn nic(self) -> &'static str {
        match self {
            Self::Management => "nic-mgmt",
            Self::Underlay => "nic-underlay",
        }
    }

    pub(crate) fn tap(self, number: u8) -> String {
        match self {
            Self::Management => format!("m{number}"),
            Self::Underlay => format!("u{number}"),
        }
    }
}

/// Where the file is that fills a host's disk.
const FILLED: &str = "/var/lib/thecloud/lab-filled";

impl Host {
    /// Cuts a cable: packets vanish, and the host's device says nothing of it.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn cut(&self, wire: Wire) -> anyhow::Result<()> {
        let tap = wire.tap(self.number());
        run("ip", &["-n", &self.site().namespace(), "link", "set", &tap, "nomaster"]).await?;
        Ok(())
    }

    /// Mends it.
    ///
    /// # Errors
    /// `ip` fails.
    pub async fn mend(&self, wire: Wire) -> anyhow::Result<()> {
        let tap = wire.tap(self.number());
        run("ip", &["-n", &self.site().namespace(), "link", "set", &tap, "master", wire.bridge()]).await?;
        Ok(())
    }

    /// Pulls a cable out, or puts it in again: the host's device loses its carrier.
    ///
    /// # Errors
    /// QEMU does not do it.
    pub async fn plug(&self, wire: Wire, up: bool) -> anyhow::Result<()> {
        self.machine().monitor(&[("set_link", json!({"name": wire.nic(), "up": up}))]).await?;
        Ok(())
    }

    /// Cuts its power: whatever was in its memory is gone, and its disks are as they are.
    ///
    /// # Errors
    /// QEMU cannot be ended.
    pub async fn power_cut(&self) -> anyhow::Result<()> {
        self.machine().kill().await?;
        self.forget_agent().await;
        Ok(())
    }

    /// Gives it power again, and waits until it has booted.
    ///
    /// # Errors
    /// It does not boot; the end of its console is in the error.
    pub async fn power_on(&self) -> anyhow::Result<()> {
        self.machine().start(false).await?;
        self.machine().ready().await
    }

    /// It stands still, as a machine does whose hypervisor is busy elsewhere.
    ///
    /// # Errors
    /// QEMU does not do it.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.machine().monitor(&[("stop", json!({}))]).await?;
        Ok(())
    }

    /// It goes on; its clock is late by the time that it stood still.
    ///
    /// # Errors
    /// QEMU does not do it.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.machine().monitor(&[("cont", json!({}))]).await?;
        Ok(())
    }

    /// Fills its root disk, where the agents' state is, but for so many MiB.
    ///
    /// # Errors
    /// The host's tools fail.
    pub async fn fill_disk(&self, stay_mib: u32) -> anyhow::Result<()> {
        self.sh(&format!(
            "rm -f {FILLED}; free=$(($(stat -f -c '%a * %S' /) - ({stay_mib} << 20))); [ $free -gt 0 ]; \
             fallocate -l $((free / 64 * 63)) {FILLED}; \
             free=$(($(stat -f -c '%a * %S' /) - ({stay_mib} << 20))); \
             head -c $((free > 0 ? free : 0)) /dev/zero >> {FILLED} 2> /dev/null || true"
        ))
        .await?;
        Ok(())
    }

    /// Gives that space back.
    ///
    /// # Errors
    /// The host's tools fail.
    pub async fn empty_disk(&self) -> anyhow::Result<()> {
        self.sh(&format!("rm -f {FILLED}")).await?;
        Ok(())
    }

    /// Its clock is wrong by so many seconds; 0: it is right.
    ///
    /// # Errors
    /// The host's tools fail.
    pub async fn skew_clock(&self, seconds: i64) -> anyhow::Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let then = i64::try_from(now.as_secs())?.saturating_add(seconds);
        self.sh(&format!("date -s @{then}.{:03} > /dev/null", now.subsec_millis())).await?;
        Ok(())
    }

    /// Every access to the disk of its volume group is an I/O error from now on (the error target of device-mapper).
    ///
    /// # Errors
    /// The host's tools fail.
    pub async fn break_disk(&self) -> anyhow::Result<()> {
        self.sh("lab-disk error").await?;
        Ok(())
    }

    /// The disk works again, with what was on it.
    ///
    /// # Errors
    /// The host's tools fail.
    pub async fn mend_disk(&self) -> anyhow::Result<()> {
        self.sh("lab-disk linear").await?;
        Ok(())
    }
}
