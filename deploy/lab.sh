#!/usr/bin/env bash
# The lab: a cloud whose hosts are virtual machines with systemd, KVM, LVM and Open vSwitch; see docs/lab.md.
#
#   deploy/lab.sh up [--hosts NUMBER]     brings it up; it stays (make lab)
#   deploy/lab.sh down                    ends it (make lab-down)
#   deploy/lab.sh test [NAME...]          the tests on hosts of a lab, but for those with such a NAME (make lab-test: all)
#   deploy/lab.sh shell h1                a shell on a host; `deploy/lab.sh --help` says what else can be done to one
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/stages.sh
. "$here/lib/stages.sh"
cd "$root_dir"

target=${CARGO_TARGET_DIR:-$root_dir/target}
case ${1:-} in
    test)
        "$here/install-deps.sh" --tests
        cargo build --workspace --bins --locked
        CLOUD_BIN_DIR=$target/debug
        CLOUD_TINY_IMAGE=$("$root_dir/images/tiny/build.sh")
        export CLOUD_BIN_DIR CLOUD_TINY_IMAGE
        lab_tests "${@:2}"
        exit
        ;;
    up) "$here/install-deps.sh" --tests ;;
esac
lab=${CLOUD_BIN_DIR:-$target/release}/cloud-lab
[[ -x $lab ]] || die "$lab is not built: run make build"
if ((EUID == 0)); then exec "$lab" "$@"; fi
exec sudo --preserve-env=CLOUD_RUN_DIR,CLOUD_CACHE_DIR,CLOUD_TINY_IMAGE "$lab" "$@"
