#!/usr/bin/env bash
# customize.sh ROOT KEY.pub: makes a lab's host of an unpacked Debian. What is left out is what costs time under emulation and that no host of
# a cloud needs: most udev rules, generators, timers.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$1 key=$2
units=$root/etc/systemd/system

cp -R "$here/rootfs/." "$root/"
chmod 755 "$root"/usr/local/sbin/*
echo localhost > "$root/etc/hostname"
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
printf '127.0.0.1 localhost\n' > "$root/etc/hosts"
echo '/dev/vda / ext4 rw,noatime 0 0' > "$root/etc/fstab"
chroot "$root" passwd -d root > /dev/null
install -d -m 700 "$root/root/.ssh"
install -m 600 "$key" "$root/root/.ssh/authorized_keys"
printf '%s\n' virtio_net virtio_rng dm-thin-pool tun openvswitch vport-geneve > "$root/etc/modules-load.d/lab.conf"
# network-online: there is nothing more to wait for than lab-net.
chroot "$root" systemctl -q enable lab-net.service lab-disk.service lab-ready.service ssh.service openvswitch-switch.service libvirtd.service

# What is on the second disk is reached through lab-disk's table alone, never beside it.
sed -i 's@^devices {@&\n\tfilter = [ "r|^/dev/vdb$|" ]@' "$root/etc/lvm/lvm.conf"
grep -q '/dev/vdb' "$root/etc/lvm/lvm.conf"

masked=(systemd-udev-settle.service systemd-hwdb-update.service systemd-sysusers.service systemd-firstboot.service kmod-static-nodes.service
    uuidd.socket apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service e2scrub_all.timer e2scrub_reap.service
    fstrim.timer dpkg-db-backup.timer logrotate.timer systemd-timesyncd.service libvirt-guests.service systemd-random-seed.service
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-pstore.service getty@tty1.service serial-getty@ttyS0.service
    systemd-networkd.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-mqueue.mount
    console-setup.service keyboard-setup.service apparmor.service modprobe@configfs.service modprobe@drm.service modprobe@fuse.service
    modprobe@efi_pstore.service systemd-binfmt.service ldconfig.service systemd-journal-flush.service systemd-journal-catalog-update.service
    nftables.service blk-availability.service)
for unit in "${masked[@]}"; do ln -sf /dev/null "$units/$unit"; done
rm -f "$root"/etc/libvirt/qemu/networks/autostart/*

chroot "$root" sh -c 'ldconfig; journalctl --update-catalog > /dev/null 2>&1 || true'
rm -rf "$root"/usr/share/locale/* "$root"/usr/share/qemu/{edk2*,*sparc*,*ppc*,skiboot*,openbios*,*s390*,hppa*,*u-boot*,opensbi*,palcode*,QEMU,trace-events*}
chroot "$root" sh -c 'python3 -m compileall -q /usr/lib/python3/dist-packages /usr/share/openvswitch > /dev/null 2>&1 || true'
kept=' 50-udev-default 55-dm 56-lvm 60-block 60-persistent-storage-dm 60-persistent-storage 60-qemu-guest-agent 60-serial 69-lvm 80-debian-compat 95-dm-notify 99-systemd '
for file in "$root"/usr/lib/udev/rules.d/*.rules; do
    [[ $kept == *" $(basename "$file" .rules) "* ]] || rm -f "$file"
done
rm -rf "$root/etc/udev/hwdb.bin" "$root/usr/lib/udev/hwdb.d" "$root/usr/lib/udev/hwdb.bin"
for generator in cryptsetup gpt-auto hibernate-resume integritysetup rc-local run system-update veritysetup getty sysv; do
    rm -f "$root/usr/lib/systemd/system-generators/systemd-$generator-generator"
done
