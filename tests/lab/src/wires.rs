//! The namespace, its two bridges, and the cable of this machine.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::{
    command::{program, run},
    faults::Wire,
    site::Site,
};

/// Whether the lab's namespace is there.
pub fn exist(site: &Site) -> bool {
    Path::new("/run/netns").join(site.namespace()).exists()
}

/// Makes them.
pub async fn make(site: &Site) -> anyhow::Result<()> {
    let (namespace, device) = (site.namespace(), site.device());
    run("ip", &["netns", "add", &namespace]).await.context("the lab needs root, and network namespaces")?;
    let inside = |args: &'static str| {
        let namespace = namespace.clone();
        async move { run("ip", &[&["-n", &namespace], &args.split(' ').collect::<Vec<_>>()[..]].concat()).await }
    };
    inside("link set lo up").await?;
    for bridge in [Wire::Management, Wire::Underlay].map(Wire::bridge) {
        let made = ["-n", &namespace, "link", "add", bridge, "type", "bridge", "stp_state", "0", "mcast_snooping", "0"];
        run("ip", &made).await?;
        run("ip", &["-n", &namespace, "link", "set", bridge, "up"]).await?;
    }
    let gateway = format!("{}/24", site.gateway());
    run("ip", &["-n", &namespace, "addr", "add", &gateway, "dev", Wire::Management.bridge()]).await?;
    run("ip", &["link", "add", &device, "type", "veth", "peer", "name", "machine", "netns", &namespace]).await?;
    run("ip", &["-n", &namespace, "link", "set", "machine", "master", Wire::Management.bridge(), "up"]).await?;
    run("ip", &["addr", "add", &format!("{}/24", site.machine()), "dev", &device]).await?;
    run("ip", &["link", "set", &device, "up"]).await?;
    Ok(())
}

/// The cables of a host, made anew where they are missing, both plugged in.
pub async fn plug(site: &Site, number: u8) -> anyhow::Result<()> {
    let namespace = site.namespace();
    for wire in [Wire::Management, Wire::Underlay] {
        let tap = wire.tap(number);
        if run("ip", &["-n", &namespace, "link", "show", "dev", &tap]).await.is_err() {
            let inside = ["netns", "exec", &namespace, "ip", "tuntap", "add", "dev", &tap, "mode", "tap"];
            run("ip", &inside).await?;
        }
        run("ip", &["-n", &namespace, "link", "set", &tap, "master", wire.bridge(), "up"]).await?;
    }
    Ok(())
}

/// Ends all that runs in the namespace, and removes it. Blocks: it is also what a test does when it ends by a panic.
pub fn remove(site: &Site) -> anyhow::Result<()> {
    let namespace = site.namespace();
    let ip = |args: &[&str]| {
        let output = program("ip").as_std_mut().args(args).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "ip {args:?}: {error}");
        Ok(text)
    };
    if exist(site) {
        // What dies last may have begun something.
        for _ in 0..200 {
            let pids = ip(&["netns", "pids", &namespace])?;
            if pids.trim().is_empty() {
                break;
            }
            for pid in pids.split_whitespace() {
                let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
                if let Some(pid) = pid {
                    // Gone by itself meanwhile, perhaps.
                    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let pause = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            let _woken = rustix::thread::nanosleep(&pause);
        }
        let left = ip(&["netns", "pids", &namespace])?;
        anyhow::ensure!(left.trim().is_empty(), "processes of {namespace} cannot be ended: {left}");
        ip(&["netns", "delete", &namespace])?;
    }
    if Path::new("/sys/class/net").join(site.device()).exists() {
        // It goes with its other end, which the kernel removes in its own time.
        let _gone = ip(&["link", "delete", &site.device()]);
    }
    match fs::remove_dir_all(site.sockets()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
