#!/usr/bin/env bash
# Measures the cloud's budgets and prints a table; `make bench` builds first. Needs root, libvirtd and Open vSwitch, which it starts if they
# do not run. Arguments go to cloud-bench, such as `read` or `--rounds 9`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if ((EUID != 0)); then exec sudo --preserve-env=CARGO_TARGET_DIR,CLOUD_BIN_DIR,CLOUD_TINY_IMAGE "$0" "$@"; fi

export CLOUD_BIN_DIR=${CLOUD_BIN_DIR:-${CARGO_TARGET_DIR:-$root/target}/release}
export CLOUD_TINY_IMAGE=${CLOUD_TINY_IMAGE:-$root/.cache/tiny.qcow2}
finish() {
    local status=$?
    trap - EXIT
    "$root/deploy/services.sh" stop bench || status=1
    exit "$status"
}
trap finish EXIT
"$root/deploy/services.sh" start bench
"$CLOUD_BIN_DIR/cloud-bench" "$@"
