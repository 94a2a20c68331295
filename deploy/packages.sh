#!/usr/bin/env bash
# Makes Debian packages of the programs that are built: thecloud-agents, thecloud-gateway, thecloud-cli.
#
#   deploy/packages.sh [--bin-dir DIRECTORY] [--out DIRECTORY] [--fast]
#
# Programs come from target/release (or CLOUD_BIN_DIR), packages go to .cache/packages, and their names are printed. --fast: stripped of
# everything and not compressed, for a package that is installed once and thrown away.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"

bin_dir=${CLOUD_BIN_DIR:-${CARGO_TARGET_DIR:-$root_dir/target}/release}
out=${CLOUD_CACHE_DIR:-$root_dir/.cache}/packages
fast=false
while (($# > 0)); do
    case $1 in
        --bin-dir) bin_dir=${2:?} && shift ;;
        --out) out=${2:?} && shift ;;
        --fast) fast=true ;;
        *) die "usage: deploy/packages.sh [--bin-dir DIRECTORY] [--out DIRECTORY] [--fast]" ;;
    esac
    shift
done
for tool in dpkg-deb dpkg-shlibdeps strip; do
    command -v "$tool" > /dev/null || die "$tool is missing: deploy/install-deps.sh installs what is needed"
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root_dir/Cargo.toml")
architecture=$(dpkg --print-architecture)
# One time for all files, so that the same programs make the same package.
SOURCE_DATE_EPOCH=$(git -C "$root_dir" log -1 --format=%ct 2> /dev/null || stat -c %Y "$root_dir/Cargo.toml")
export SOURCE_DATE_EPOCH
# dpkg-deb takes owners and modes as they are; made as another user, everything is root's all the same.
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# program NAME: into the package that is being made.
program() {
    [[ -x $bin_dir/$1 ]] || die "$bin_dir/$1 is not built: run make build"
    mkdir -p "$tree/usr/bin"
    if $fast; then strip -o "$tree/usr/bin/$1" "$bin_dir/$1"; else install -m 755 "$bin_dir/$1" "$tree/usr/bin/$1"; fi
    chmod 755 "$tree/usr/bin/$1"
}

unit() { install -D -m 644 "$here/systemd/$1" "$tree/usr/lib/systemd/system/$1"; }

# libraries: the packages of the libraries that the programs are linked to.
libraries() {
    local dir=$work/shlibs
    mkdir -p "$dir/debian"
    printf 'Source: thecloud\n\nPackage: %s\nArchitecture: any\n' "$1" > "$dir/debian/control"
    (cd "$dir" && dpkg-shlibdeps -O --warnings=0 "$tree"/usr/bin/* 2> "$work/shlibs.log") | sed 's/^shlibs:Depends=//' ||
        die "what $1 is linked to cannot be told: $(cat "$work/shlibs.log")"
}

# package NAME: of what is in its tree.
package() {
    local name=$1 from=$here/packages/$1 file depends
    mkdir -p "$tree/DEBIAN" "$tree/usr/share/doc/$name"
    install -m 644 "$root_dir/LICENSE" "$tree/usr/share/doc/$name/copyright"
    for file in postinst prerm postrm; do
        if [[ -e $from/$file ]]; then install -m 755 "$from/$file" "$tree/DEBIAN/$file"; fi
    done
    if [[ -e $from/conffiles ]]; then install -m 644 "$from/conffiles" "$tree/DEBIAN/conffiles"; fi
    depends=$(libraries "$name")
    {
        sed "s/\${shlibs}/$depends/" "$from/control" | sed '/^Description:/,$d'
        echo "Version: $version"
        echo "Architecture: $architecture"
        echo 'Maintainer: The Cloud <maintainers@thecloud.invalid>'
        echo 'Section: admin'
        echo 'Priority: optional'
        echo "Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)"
        sed -n '/^Description:/,$p' "$from/control"
    } > "$tree/DEBIAN/control"
    find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group "${compression[@]}" --build "$tree" "$out/${name}_${version}_$architecture.deb" > /dev/null
    echo "$out/${name}_${version}_$architecture.deb"
}

compression=(-Zxz)
if $fast; then compression=(-Znone); fi
mkdir -p "$out"

tree=$work/agents
for name in cloud-compute-agent cloud-storage-agent cloud-network-agent cloud-agent-join; do program "$name"; done
for name in compute storage network; do unit "cloud-$name-agent.service"; done
unit libvirtd.service.d/thecloud.conf
install -D -m 755 "$here/packages/thecloud-agents/lvm-filter" "$tree/usr/lib/thecloud/lvm-filter"
install -d -m 755 "$tree/etc/thecloud" "$tree/var/lib/thecloud"
package thecloud-agents

tree=$work/gateway
program cloud-api-gateway
unit cloud-api-gateway.service
install -D -m 644 "$here/packages/thecloud-gateway/api-gateway.toml" "$tree/etc/thecloud/api-gateway.toml"
package thecloud-gateway

tree=$work/cli
program cloud
package thecloud-cli
