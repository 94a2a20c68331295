//! Whether the hypervisor's own user may open the KVM device.
//!
//! Where root may and that user may not, guests fail to start under KVM, and libvirt asks QEMU anew what it can do at every call, also for guests
//! under emulation: defining one then takes a minute. An upgrade or a container tool that renumbers groups is enough to get there.

use std::os::unix::fs::MetadataExt;

/// The users that distributions run QEMU as.
const USERS: [&str; 2] = ["libvirt-qemu", "qemu"];

/// What is wrong with the device's owner or mode, and how to mend it; `None` where nothing is, or where QEMU runs as nobody known.
pub async fn problem(device: &str) -> Option<String> {
    let metadata = tokio::fs::metadata(device).await.ok()?;
    let passwd = tokio::fs::read_to_string("/etc/passwd").await.ok()?;
    let group = tokio::fs::read_to_string("/etc/group").await.ok()?;
    let user = USERS.iter().find_map(|name| User::read(name, &passwd, &group))?;
    let node = Node { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() };
    (!user.may_open(&node)).then(|| {
        format!(
            "QEMU's user `{}` may not open {device} (owner {}, group {}, mode {:03o}); libvirt is then very slow. Mend it with: \
             chgrp kvm {device} && chmod 660 {device}",
            user.name,
            node.uid,
            node.gid,
            node.mode & 0o777
        )
    })
}

struct Node {
    uid: u32,
    gid: u32,
    mode: u32,
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gids: Vec<u32>,
}

impl User {
    /// From passwd(5) and group(5).
    fn read(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let fields: Vec<&str> =
            passwd.lines().map(|line| line.split(':').collect()).find(|f: &Vec<&str>| f[0] == name)?;
        let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let member = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|member| member == name);
            is_member.then(|| fields.get(2)?.parse().ok()).flatten()
        };
        let gids = std::iter::once(gid).chain(group.lines().filter_map(member)).collect();
        Some(Self { name: name.to_owned(), uid, gids })
    }

    /// By owner, group or others, whichever fits first, as the kernel does.
    fn may_open(&self, node: &Node) -> bool {
        let shift = match node {
            node if node.uid == self.uid => 6,
            node if self.gids.contains(&node.gid) => 3,
            _ => 0,
        };
        node.mode >> shift & 0o6 == 0o6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_goes_by_owner_group_or_others() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nlibvirt-qemu:x:64055:993:Libvirt Qemu,,,:/var/lib/libvirt:/usr/sbin/nologin\n";
        let group = "kvm:x:993:\nlibvirt-qemu:x:64055:libvirt-qemu\ndisk:x:6:other,libvirt-qemu\n";
        let user = User::read("libvirt-qemu", passwd, group).unwrap();
        assert_eq!((user.uid, user.gids.as_slice()), (64055, &[993, 64055, 6][..]));
        assert_eq!(User::read("qemu", passwd, group), None);
        let may = |uid, gid, mode: u32| user.may_open(&Node { uid, gid, mode: 0o020_000 | mode });
        assert!(may(0, 993, 0o660));
        assert!(may(0, 6, 0o660));
        assert!(!may(0, 104, 0o660), "another group");
        assert!(may(0, 104, 0o666));
        assert!(!may(0, 993, 0o606), "its group comes before others");
        assert!(may(64055, 0, 0o600));
        assert!(!may(0, 993, 0o640), "reading alone does not do");
    }
}
