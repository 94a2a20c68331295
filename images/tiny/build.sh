#!/usr/bin/env bash
# Builds the built-in guest image `tiny`: the distribution's own kernel and a busybox userland on a bootable disk.
#
#   images/tiny/build.sh [OUT.qcow2]      default: .cache/tiny.qcow2
#
# Needs no root, no loop device and no mount: mtools and syslinux write into the image file. The result is cached by
# a hash of what it is made of, so building it again takes no time and no network. CLOUD_CACHE_DIR moves the cache.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CLOUD_CACHE_DIR:-$(cd "$here/../.." && pwd)/.cache}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
out=${1:-$cache/tiny.qcow2}

# Sizes in MiB. The first partition boots, the second is the guest's /data.
readonly boot_start=1 boot_size=48 data_size=64
readonly disk_size=$((boot_start + boot_size + data_size))

# What a guest of this cloud may meet, no more: every module costs boot time under emulation.
readonly modules=(virtio_pci virtio_blk virtio_scsi sd_mod sr_mod virtio_net virtio_rng virtio_balloon button evdev
    af_packet vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 isofs)

# quiet: a serial console is slow under emulation. The last console= is the one that /dev/console means.
readonly command_line='console=tty0 console=ttyS0,115200 quiet panic=-1 net.ifnames=0 random.trust_cpu=on mitigations=off no_timer_check init_on_alloc=0 cryptomgr.notests'

die() {
    echo "images/tiny: $*" >&2
    exit 1
}

need() {
    local tool
    for tool in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$tool" > /dev/null || die "$tool is missing; deploy/install-deps.sh installs what is needed"
    done
}

# The concrete kernel package behind the distribution's meta package, or the newest one in the cache when the package
# lists are not there (a machine without network after its first build).
kernel_package() {
    local meta package
    for meta in linux-image-cloud-amd64 linux-image-kvm linux-image-virtual; do
        package=$(apt-cache depends "$meta" 2> /dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
        if [[ -n $package ]]; then
            echo "$package=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')"
            return
        fi
    done
    # shellcheck disable=SC2012  # names are our own: package=version
    package=$(ls -t "$cache/kernel" 2> /dev/null | head -n 1)
    [[ -n $package ]] || die "no kernel package is known to apt: run apt-get update (as root) once"
    echo "$package"
}

# fetch PACKAGE=VERSION DIR: unpacks the kernel (and, where a distribution ships them apart, its modules) into DIR.
fetch() {
    local package=${1%%=*} directory=$2 part parts download
    [[ -d $directory ]] && return
    parts=("$1")
    while read -r part; do
        parts+=("$part")
    done < <(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-modules-[0-9].*\)$/\1/p')
    download=$work/download
    mkdir -p "$download" "$work/unpacked"
    # As root apt wants to drop privileges for the download; there is nothing to protect in a scratch directory.
    (cd "$download" && apt-get -o APT::Sandbox::User=root -qq download "${parts[@]}") ||
        die "cannot download ${parts[*]}: run apt-get update (as root), or check the network"
    for part in "$download"/*.deb; do
        dpkg-deb -x "$part" "$work/unpacked"
    done
    mkdir -p "$(dirname "$directory")"
    mv "$work/unpacked" "$directory"
}

# copy_program PATH: into the root file system, with the libraries it is linked to.
copy_program() {
    local file
    install -D -m 755 "$1" "$root/usr/sbin/$(basename "$1")"
    while read -r file; do
        install -D -m 755 "$file" "$root$file"
    done < <(ldd "$1" | grep -oE '/[^ ]+')
}

# copy_modules KERNEL_TREE: the modules and what they need, unpacked, and /lib/modules/order to load them in.
copy_modules() {
    local tree=$1 version module path name base
    version=$(basename "$(find "$tree" -maxdepth 4 -type d -path '*/lib/modules/*' | sort | head -n 1)")
    base=$tree
    [[ -d $tree/lib/modules ]] || base=$tree/usr
    depmod -b "$base" "$version"
    mkdir -p "$root/lib/modules"
    for module in "${modules[@]}"; do
        # A module that is built in, or that this kernel does not have as one, prints no insmod line.
        modprobe -d "$base" -S "$version" --show-depends "$module" 2> /dev/null || true
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$work/modules"
    [[ -s $work/modules ]] || die "no modules found in $tree for kernel $version"
    while read -r path; do
        name=$(basename "$path")
        case $name in
            *.zst) zstd -q -d -f "$path" -o "$root/lib/modules/${name%.zst}" ;;
            *.xz) xz -d -c "$path" > "$root/lib/modules/${name%.xz}" ;;
            *) cp "$path" "$root/lib/modules/$name" ;;
        esac
        name=${name%.zst}
        echo "${name%.xz}"
    done < "$work/modules" > "$root/lib/modules/order"
    grep -q '^virtio_blk.ko$' "$root/lib/modules/order" || grep -q virtio_blk "$base/lib/modules/$version/modules.builtin" ||
        die "kernel $version has no virtio_blk"
}

make_initramfs() {
    local applet
    root=$work/root
    mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,data,root,etc/dropbear,usr/bin,usr/sbin}
    cp -R "$here/rootfs/." "$root/"
    install -m 755 "$busybox" "$root/bin/busybox"
    while read -r applet; do
        [[ $applet == busybox ]] || ln -s /bin/busybox "$root/bin/$applet"
    done < <("$busybox" --list)
    ln -s /bin/busybox "$root/init"
    copy_program "$dropbear"
    copy_program "$dropbearkey"
    copy_modules "$1"
    (cd "$root" && find . -mindepth 1 -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0 | gzip -9) > "$work/initrd.gz"
}

# little_endian NUMBER: four bytes for printf.
little_endian() {
    printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255))
}

# partition ACTIVE TYPE START_MIB SIZE_MIB: one entry of the partition table, addressed by sector only.
partition() {
    local entry
    entry="\\x$1\\xfe\\xff\\xff\\x$2\\xfe\\xff\\xff$(little_endian $(($3 * 2048)))$(little_endian $(($4 * 2048)))"
    # shellcheck disable=SC2059  # the escapes are the data
    printf "$entry"
}

make_disk() {
    local kernel=$1 disk=$work/disk.raw boot data
    truncate -s "${disk_size}M" "$disk"
    dd if="$mbr" of="$disk" bs=440 count=1 conv=notrunc status=none
    {
        partition 80 0c "$boot_start" "$boot_size"
        partition 00 0c $((boot_start + boot_size)) "$data_size"
        head -c 32 /dev/zero
        printf '\x55\xaa'
    } | dd of="$disk" bs=1 seek=446 conv=notrunc status=none
    boot=$disk@@${boot_start}M
    data=$disk@@$((boot_start + boot_size))M
    # mformat takes sectors; `-h -s` only describe a geometry that nothing uses any more.
    MTOOLS_SKIP_CHECK=1 mformat -i "$boot" -T $((boot_size * 2048)) -h 16 -s 63 -H $((boot_start * 2048)) -v TINYBOOT ::
    MTOOLS_SKIP_CHECK=1 mformat -i "$data" -T $((data_size * 2048)) -h 16 -s 63 -H $(((boot_start + boot_size) * 2048)) -v TINYDATA ::
    cat > "$work/syslinux.cfg" << CONFIG
default tiny
prompt 0
timeout 0
label tiny
    kernel /vmlinuz
    initrd /initrd.gz
    append $command_line
CONFIG
    mcopy -i "$boot" "$kernel" ::/vmlinuz
    mcopy -i "$boot" "$work/initrd.gz" ::/initrd.gz
    mcopy -i "$boot" "$work/syslinux.cfg" ::/syslinux.cfg
    syslinux --offset $((boot_start * 1024 * 1024)) --install "$disk"
    qemu-img convert -f raw -O qcow2 "$disk" "$work/tiny.qcow2"
}

fingerprint() {
    {
        echo "$kernel_id"
        cat "${BASH_SOURCE[0]}"
        cd "$here/rootfs" && find . -type f -print0 | sort -z | xargs -0 sha256sum
        sha256sum "$busybox" "$dropbear" | cut -d ' ' -f 1
    } | sha256sum | cut -c 1-16
}

need apt-cache apt-get dpkg-deb busybox dropbear dropbearkey cpio gzip depmod modprobe mformat mcopy syslinux qemu-img zstd xz
PATH=$PATH:/usr/sbin:/sbin
busybox=$(command -v busybox)
dropbear=$(command -v dropbear)
dropbearkey=$(command -v dropbearkey)
if ldd "$busybox" > /dev/null 2>&1; then die "$busybox is not static; install busybox-static"; fi
mbr=/usr/lib/syslinux/mbr/mbr.bin
[[ -r $mbr ]] || mbr=/usr/lib/SYSLINUX/mbr.bin
[[ -r $mbr ]] || die "mbr.bin is missing; install syslinux-common"

kernel_id=$(kernel_package)
cached=$cache/tiny-$(fingerprint).qcow2
if [[ ! -s $cached ]]; then
    work=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    tree=$cache/kernel/$kernel_id
    fetch "$kernel_id" "$tree"
    make_initramfs "$tree"
    make_disk "$(find "$tree/boot" -name 'vmlinuz-*' | head -n 1)"
    mv "$work/tiny.qcow2" "$cached"
fi
if [[ $out != "$cached" ]]; then
    mkdir -p "$(dirname "$out")"
    # Into place by rename: a reader never sees half an image.
    cp "$cached" "$out.new.$$"
    mv "$out.new.$$" "$out"
fi
echo "$out"
