#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that The Cloud needs to build and to run, and only those that are missing.
#
#   deploy/install-deps.sh            installs (asks sudo when not root)
#   deploy/install-deps.sh --check    names what is missing, and fails if something is
#   deploy/install-deps.sh --tests    installs what the tests need, too: packages, and in .cache a server of S3
#
# Where QEMU or libvirt of this machine come from backports, theirs are installed from there too, since apt refuses to
# mix. No configuration file of QEMU, libvirt or Open vSwitch is touched.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/packages.sh
. "$here/lib/packages.sh"
# shellcheck source=lib/python.sh
. "$here/lib/python.sh"

check_rust() {
    command -v cargo > /dev/null && return
    [[ -x $HOME/.cargo/bin/cargo ]] && return
    die "cargo is missing: install Rust 1.95 or newer (https://rustup.rs), then try again"
}

check_distribution() {
    case $(distribution) in
        'debian 12' | 'debian 13' | 'ubuntu 22.04' | 'ubuntu 24.04' | 'ubuntu 26.04') ;;
        *) note "warning: $(distribution) is not tested; this expects Debian 12 or newer, or Ubuntu 22.04 or newer" ;;
    esac
    command -v apt-get > /dev/null || die "this is neither Debian nor Ubuntu: install by hand: ${virtualization_packages[*]} ${other_packages[*]}"
}

check_distribution
if [[ ${1:-} == --tests ]]; then other_packages+=("${test_packages[@]}"); fi
mapfile -t wanted < <(missing "${virtualization_packages[@]}" "${other_packages[@]}")
if [[ ${1:-} == --check ]]; then
    ((${#wanted[@]} == 0)) || die "not installed: ${wanted[*]}"
    check_rust
    exit 0
fi
if ((${#wanted[@]} > 0)); then
    target=()
    if backports_in_use; then
        backports_configured || configure_backports
        target=(-t "$(codename)-backports")
    fi
    apt_run update
    install_missing "${target[@]}" "${virtualization_packages[@]}"
    install_missing "${other_packages[@]}"
fi
check_rust
if [[ ${1:-} == --tests ]]; then
    moto=$(python_tools moto "$here/../tests/s3/requirements.txt")
    [[ -x $moto/bin/moto_server ]] || die "moto_server is not in $moto: remove that directory and try again"
fi
