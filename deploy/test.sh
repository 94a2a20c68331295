#!/usr/bin/env bash
# Every test but those on hosts of the lab (make lab-test): static checks, unit and service tests, the built-in image, tests against the
# real hypervisor and switch, end to end. Ends with a line "N passed, N failed"; fails when anything failed.
# Each stage's output is in .run/test/, its time in the table at the end.
#
# Random tests print their seeds; make chaos runs them for longer.
#
# Which tests need what is said by the name of their integration test target: host_* needs libvirtd and Open vSwitch,
# e2e_* needs those, the daemons and the image `tiny`; lab_* needs the daemons, `tiny` and the lab's image, and no services of this machine;
# lvm_* needs thin volumes and is run on a host of the lab, by lab_*; all others need nothing but cargo, qemu-img and PostgreSQL.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/stages.sh
. "$here/lib/stages.sh"
cd "$root_dir"

if [[ -e $run_dir/cloud.lock ]] && ! flock -n "$run_dir/cloud.lock" true; then
    die "a cloud runs here (make up), and the tests would meet it on the switch: make down first"
fi
begin_stages "$run_dir/test"
target=${CARGO_TARGET_DIR:-$root_dir/target}
# What the end-to-end tests run.
export CLOUD_BIN_DIR=$target/debug
export CLOUD_TINY_IMAGE=$root_dir/.cache/tiny.qcow2
export CARGO_TERM_COLOR=never
# The end of a log says what failed, not where the test runner called it.
export RUST_BACKTRACE=0

finish() {
    local status=$?
    trap - EXIT
    "$here/services.sh" stop test >> "$logs/services.log" 2>&1 || {
        echo "the services could not be stopped; see $logs/services.log"
        status=1
    }
    exit "$status"
}
trap finish EXIT

unit_tests() {
    if command -v cargo-nextest > /dev/null; then
        cargo nextest run --workspace --locked --no-fail-fast -E 'not binary(/^((host|e2e|lab|lvm)_|fuzz$)/)'
    else
        local package name status=0
        cargo test --workspace --locked --no-fail-fast --lib --bins || status=$?
        while read -r package name; do
            [[ $name != host_* && $name != e2e_* && $name != lab_* && $name != lvm_* && $name != fuzz ]] || continue
            cargo test --locked --no-fail-fast -p "$package" --test "$name" || status=$?
        done < <(integration_targets '')
        return "$status"
    fi
}

# fuzzers: one after the other, and what they print is kept: their seeds.
fuzzers() {
    if command -v cargo-nextest > /dev/null; then
        cargo nextest run --workspace --locked --no-fail-fast --test-threads 1 --success-output immediate -E 'binary(fuzz)'
    else
        cargo test --workspace --locked --no-fail-fast --test fuzz -- --test-threads 1 --nocapture
    fi
}

build() { cargo build --workspace --bins --locked && cargo test --workspace --no-run --locked; }

# Nothing can be tested without these two.
stage deps "$here/install-deps.sh" --tests || { summary; exit 1; }
stage build build || { summary; exit 1; }
stage fmt "$here/lint.sh" fmt || true
stage scripts "$here/lint.sh" scripts || true
stage looking "$root_dir/tests/scripts/looking.sh" || true
stage clippy "$here/lint.sh" clippy || true
stage unit unit_tests || true
# On their own: they measure time, and fill the machine.
stage fuzz fuzzers || true
stage rest "$root_dir/tests/fuzz/schemathesis.sh" || true
stage docs cargo test --workspace --doc --locked --no-fail-fast || true
stage image "$root_dir/images/tiny/build.sh" "$CLOUD_TINY_IMAGE" || true
stage tiny "$root_dir/images/tiny/test.sh" "$CLOUD_TINY_IMAGE" || true
if stage services "$here/services.sh" start test; then
    stage host machine_tests host_ || true
    stage e2e machine_tests e2e_ || true
fi
summary
