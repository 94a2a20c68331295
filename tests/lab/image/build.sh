#!/usr/bin/env bash
# Builds the disk of a lab's host: Debian with systemd, the distribution's own kernel, libvirt, Open vSwitch and LVM; none of our programs.
#
#   tests/lab/image/build.sh          prints the directory with root.qcow2, vmlinuz, initrd.gz and the key of its secure shell
#
# Kept in .cache/lab by a hash of these scripts, the packages and the kernel; the second build takes no time and no network. Packages come from
# where this machine has its own from (apt's sources). Needs root. CLOUD_CACHE_DIR moves the cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../../deploy/lib/common.sh
. "$here/../../../deploy/lib/common.sh"
# shellcheck source=../../../deploy/lib/packages.sh
. "$here/../../../deploy/lib/packages.sh"

if ((EUID != 0)); then exec sudo --preserve-env=CLOUD_CACHE_DIR "$0" "$@"; fi
cache=${CLOUD_CACHE_DIR:-$root_dir/.cache}/lab
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# What a host has before our packages come: what they depend on, and what the lab works with.
readonly packages=(systemd-sysv udev kmod dbus init-system-helpers iproute2 iputils-ping nftables openssh-server curl ca-certificates
    tcpdump ethtool procps qemu-guest-agent lvm2 thin-provisioning-tools cryptsetup-bin dnsmasq-base openvswitch-switch
    qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients)
# GiB of a host's root file system, sparse.
readonly root_gib=8

need() {
    local tool
    for tool in "$@"; do command -v "$tool" > /dev/null || die "$tool is missing: deploy/install-deps.sh --tests installs what is needed"; done
}

# sources: apt's lines for the release, its updates and security, and backports where this machine has them.
sources() {
    local suite uri key
    for suite in "$release" "$release-updates" "$release-security" "$release-backports"; do
        if [[ $suite == *-backports ]] && ! backports_configured; then continue; fi
        read -r uri key < <(debian_mirror "$suite") || true
        if [[ -z ${uri:-} ]]; then
            [[ $suite != "$release" ]] || die "apt's sources have no Debian $release"
            continue
        fi
        echo "deb ${key:+[signed-by=$key] }$uri $suite main"
        uri=
        key=
    done
}

# kernel_package: "package=version" behind the meta package, of backports where there are any: the newer one knows more of nested guests.
kernel_package() {
    local from=() version
    if backports_configured; then from=(-t "$release-backports"); fi
    version=$(apt-cache "${from[@]}" policy linux-image-cloud-amd64 | sed -n 's/^ *Candidate: //p')
    [[ -n $version && $version != '(none)' ]] || return 1
    apt-cache show "linux-image-cloud-amd64=$version" | sed -n 's/^Depends: \(linux-image-[^ ,]*\) (= \([^)]*\)).*/\1=\2/p' | head -n 1
}

# known_versions: of every package that is asked for, so that a new release of one makes a new image; nothing without apt's lists.
known_versions() { apt-cache madison "${packages[@]}" 2> /dev/null | awk '{ print $1, $3 }' | sort -u; }

hash_of() { sha256sum | cut -c "1-$1"; }

scripts_hash() {
    (cd "$here" && find . -type f -print0 | sort -z | xargs -0 sha256sum && echo "$release $root_gib ${packages[*]}") | hash_of 12
}

# kernel_tree PACKAGE=VERSION: its files, into $work/kernel. No package is installed for it: that would make an initramfs and a boot loader.
kernel_tree() {
    mkdir -p "$work/download"
    (cd "$work/download" && apt-get -o APT::Sandbox::User=root -qq download "$1") || die "cannot download $1: run apt-get update, or check the network"
    dpkg-deb -x "$work"/download/*.deb "$work/kernel"
}

# install_kernel: unpacked modules, since xz costs seconds under emulation.
install_kernel() {
    local modules
    modules=$(find "$work/kernel" -maxdepth 4 -type d -path '*/lib/modules/*' | head -n 1)
    kernel=$(basename "$modules")
    cp "$work/kernel/boot/vmlinuz-$kernel" "$new/vmlinuz"
    mkdir -p "$root/usr/lib/modules"
    cp -a "$modules" "$root/usr/lib/modules/"
    find "$root/usr/lib/modules" -name '*.ko.xz' -print0 | xargs -0 -r -P2 -n64 xz -d
    depmod -b "$root" "$kernel"
}

# make_initrd: a busybox that mounts the disk and leaves; with `lab.probe` it only says whether guests can run guests here.
make_initrd() {
    local dir=$work/initrd
    mkdir -p "$dir"/{bin,dev,proc,sys,root}
    install -m 755 "$(command -v busybox)" "$dir/bin/busybox"
    find "$root/usr/lib/modules/$kernel" -name virtio_blk.ko -exec cp {} "$dir/" \;
    install -m 755 "$here/init" "$dir/init"
    (cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) > "$new/initrd.gz"
}

make_root() {
    sources > "$work/sources.list"
    [[ -s $work/sources.list ]] || die "apt's sources have no Debian $release"
    local include
    include=$(IFS=, && echo "${packages[*]}")
    # QEMU, libvirt and the kernel of backports, where there are any: what this project is run with.
    printf 'Package: qemu* src:qemu libvirt* src:libvirt seabios ipxe-qemu\nPin: release n=%s-backports\nPin-Priority: 600\n' "$release" > "$work/pins"
    # No recommended packages, no manuals, nothing synced to the disk.
    mmdebstrap --mode=root --variant=minbase --format=directory --quiet \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --dpkgopt='force-unsafe-io' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --setup-hook="install -D -m 644 '$work/pins' \"\$1/etc/apt/preferences.d/lab\"" \
        --include="$include" "$release" "$root" - < "$work/sources.list" >&2
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
}

# boot_once: so that libvirt and Open vSwitch have made their databases and caches, which saves a quarter of each later boot.
boot_once() {
    qemu-img create -q -f qcow2 -b "$new/base.qcow2" -F qcow2 "$work/golden.qcow2"
    timeout 300 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -accel tcg,thread=multi -machine q35 -cpu max -m 2048 -smp 2 \
        -kernel "$new/vmlinuz" -initrd "$new/initrd.gz" -append "$(cat "$here/cmdline") systemd.hostname=golden lab.golden" \
        -device virtio-rng-pci -serial "file:$work/console.log" \
        -drive "file=$work/golden.qcow2,if=none,id=root,format=qcow2,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=root >&2 ||
        die "the image does not boot, or does not end: $(tail -n 5 "$work/console.log")"
    grep -q LAB-READY "$work/console.log" || die "the image boots, but not all of it runs: $(tail -n 20 "$work/console.log")"
    qemu-img convert -O qcow2 "$work/golden.qcow2" "$new/root.qcow2"
    rm -f "$new/base.qcow2"
}

need mmdebstrap busybox cpio mke2fs qemu-img qemu-system-x86_64 depmod xz ssh-keygen
[[ $(distribution) == debian* ]] || die "the lab's hosts are made of this machine's own Debian packages, and this is $(distribution)"
release=$(codename)
versions=$(known_versions)
prefix=$cache/image-$(scripts_hash)
if [[ -z $versions ]]; then
    # Without lists of packages (no network since this machine was made) the newest that these scripts built is as good as any.
    # shellcheck disable=SC2012  # names are our own
    found=$(ls -td "$prefix"-* 2> /dev/null | head -n 1)
    [[ -n $found ]] || die "apt knows no packages: run apt-get update"
    echo "$found"
    exit 0
fi
kernel_wanted=$(kernel_package) || die "apt knows no linux-image-cloud-amd64: run apt-get update"
out=$prefix-$(echo "$versions $kernel_wanted" | hash_of 8)
if [[ ! -s $out/root.qcow2 ]]; then
    # One builds, others wait for it.
    exec 9> "$cache/build.lock"
    flock 9
fi
if [[ ! -s $out/root.qcow2 ]]; then
    note "building the image of the lab's hosts ($kernel_wanted)"
    work=$(mktemp -d "$cache/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    root=$work/root new=$work/new
    mkdir -p "$new"
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$new/id_lab"
    make_root
    kernel_tree "$kernel_wanted"
    install_kernel
    "$here/customize.sh" "$root" "$new/id_lab.pub"
    make_initrd
    mke2fs -q -t ext4 -F -d "$root" -L labroot -J size=16 -m0 -E lazy_itable_init=1 "$work/base.raw" "${root_gib}G" > /dev/null
    qemu-img convert -f raw -O qcow2 "$work/base.raw" "$new/base.qcow2"
    rm -rf "$work/base.raw" "$root"
    boot_once
    # Of earlier builds only what may be in use stays.
    find "$cache" -maxdepth 1 -name 'image-*' -mtime +7 -exec rm -rf {} +
    chmod 755 "$new"
    mv "$new" "$out"
fi
echo "$out"
