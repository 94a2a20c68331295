//! Guests: network namespaces with one NIC.

use std::{
    path::Path,
    process::{Child, Output, Stdio},
};

use cloud_domain::PortId;

use super::{Netns, agent::Host, ok};

pub struct Guest {
    netns: Netns,
    /// The host's end of its NIC.
    pub device: String,
}

impl Guest {
    /// Takes a plugged port's other end. It has no address yet.
    pub fn new(host: &Host, port: PortId, mac: &str) -> Self {
        let guest = Self { netns: Netns::new("guest"), device: port.tap_device() };
        let peer = guest.device.replacen("tap", "gst", 1);
        host.netns.ip(&["link", "set", "dev", &peer, "netns", &guest.netns.0, "name", "eth0"]);
        guest.ok(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        guest.ip(&["link", "set", "dev", "eth0", "address", mac, "mtu", "1450"]);
        // The switch's conntrack, and any receiver, needs real checksums.
        guest.ok(&["ethtool", "-K", "eth0", "tx", "off"]);
        guest.ip(&["link", "set", "dev", "eth0", "up"]);
        guest
    }

    /// With an address in /24 and the gateway, set by hand.
    pub fn with_address(host: &Host, port: PortId, mac: &str, ip: &str) -> Self {
        let guest = Self::new(host, port, mac);
        guest.ip(&["addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
        let gateway = format!("{}.1", ip.rsplit_once('.').unwrap().0);
        guest.ip(&["route", "add", "default", "via", &gateway]);
        guest
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.netns.run(args)
    }

    pub fn ok(&self, args: &[&str]) -> String {
        self.netns.ok(args)
    }

    pub fn ip(&self, args: &[&str]) -> String {
        self.netns.ip(args)
    }

    /// A process inside the guest.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Child {
        let mut command = self.netns.command(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// How many of five pings are answered. Ten times a second; each has a second.
    pub fn pings(&self, to: &str) -> u32 {
        self.pings_with(to, &[])
    }

    pub fn pings_with(&self, to: &str, more: &[&str]) -> u32 {
        let mut args = vec!["ping", "-n", "-q", "-c", "5", "-i", "0.1", "-W", "1"];
        args.extend(more);
        args.push(to);
        received(&String::from_utf8_lossy(&self.run(&args).stdout))
    }

    /// Packets that reached the NIC so far.
    pub fn received(&self) -> u64 {
        self.ok(&["cat", "/sys/class/net/eth0/statistics/rx_packets"]).trim().parse().unwrap()
    }

    /// One DHCP exchange by busybox; the variables it was told, none where there was no answer.
    pub fn dhcp(&self, directory: &Path, more: &[&str]) -> Option<String> {
        let (script, result) = (directory.join("udhcpc.sh"), directory.join(format!("{}.lease", self.netns.0)));
        let text = "#!/bin/busybox sh\n[ \"$1\" = bound ] || [ \"$1\" = renew ] || exit 0\n\
                    /bin/busybox env > \"$RESULT.new\"\n/bin/busybox mv \"$RESULT.new\" \"$RESULT\"\n";
        std::fs::write(&script, text).unwrap();
        ok("chmod", &["+x", script.to_str().unwrap()]);
        let _ = std::fs::remove_file(&result);
        let variable = format!("RESULT={}", result.display());
        let mut args =
            vec!["env", &variable, "/bin/busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "3", "-T", "1"];
        args.extend(["-A", "1", "-O", "mtu", "-s", script.to_str().unwrap()]);
        args.extend(more);
        self.run(&args);
        std::fs::read_to_string(&result).ok()
    }
}

/// The number of answers in ping's summary.
pub fn received(summary: &str) -> u32 {
    let part = summary.split(',').find(|part| part.contains("received"));
    part.and_then(|p| p.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no summary in {summary:?}"))
}
