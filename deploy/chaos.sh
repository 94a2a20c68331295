#!/usr/bin/env bash
# Breaks the cloud for a while: random calls and faults against a model, faults at every step, fuzzers of gRPC and REST, and SIGKILL to the real
# daemons while real guests run. All of it comes from one seed. Ends with a table and a line "N passed, N failed"; fails when anything failed.
#
#   SEED=42 MINUTES=30 deploy/chaos.sh        (make chaos)
#
# The long forms of what make test runs. A failure prints what repeats it alone.
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
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
minutes=${MINUTES:-30}
[[ $seed =~ ^[0-9]+$ ]] || die "SEED=$seed is no number"
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "MINUTES=$minutes is no number of minutes"
total=$((minutes * 60))
begin_stages "$run_dir/chaos"
target=${CARGO_TARGET_DIR:-$root_dir/target}
export CLOUD_BIN_DIR=$target/debug
export CLOUD_TINY_IMAGE=$root_dir/.cache/tiny.qcow2
export CARGO_TERM_COLOR=never
export CLOUD_CHAOS_SEED=$seed

finish() {
    local status=$?
    trap - EXIT
    "$here/services.sh" stop chaos >> "$logs/services.log" 2>&1 || {
        echo "the services could not be stopped; see $logs/services.log"
        status=1
    }
    exit "$status"
}
trap finish EXIT

# tests TARGET [NAME...]: tests of the whole cloud, one after the other, with what they print. For the whole workspace, since for one package
# alone cargo would build every crate anew, with that package's features.
tests() {
    cargo test --workspace --test "$1" --locked --no-fail-fast -- --test-threads 1 --nocapture "${@:2}"
}

# As root: they share the hypervisor and the switch with the system.
machine_tests() {
    if ((EUID != 0)); then export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='sudo --preserve-env'; fi
    tests e2e_host "$@"
}

# within_seconds SECONDS COMMAND...: tells the tests how long they may take.
within_seconds() {
    local seconds=$1
    shift
    CLOUD_CHAOS_SECONDS=$seconds "$@"
}

# Each of these kills the gateway in rounds or fails every call to an agent in every way: as often as the time lets.
faults() {
    local end=$(($(now_ms) + $1 * 1000)) turn=0
    while true; do
        # Every turn has a seed of its own, from ours.
        CLOUD_CHAOS_SEED=$((seed + turn)) CLOUD_CHAOS_ROUNDS=12 tests service faults:: crash:: || return 1
        turn=$((turn + 1))
        (($(now_ms) < end)) || return 0
    done
}

# A round takes six seconds or more; fifty are the least that says something.
kills() {
    local rounds=$(($1 / 8))
    CLOUD_CHAOS_ROUNDS=$((rounds < 50 ? 50 : rounds)) machine_tests storm::
}

build() {
    cargo build --workspace --bins --locked &&
        cargo test --workspace --no-run --locked --test model --test service --test fuzz --test e2e_host
}

echo "make chaos SEED=$seed MINUTES=$minutes"
stage deps "$here/install-deps.sh" --tests || { summary; exit 1; }
stage build build || { summary; exit 1; }
stage image "$root_dir/images/tiny/build.sh" "$CLOUD_TINY_IMAGE" || true
# Each of its engines and numbers of gateways in turn, and the launches.
stage model within_seconds $((total * 40 / 100 / 4)) tests model || true
stage faults faults $((total * 10 / 100)) || true
# Six fuzzers of the gateway and of simulated agents, one after the other.
stage fuzz within_seconds $((total * 15 / 100 / 6)) tests fuzz || true
stage rest within_seconds $((total * 10 / 100)) "$root_dir/tests/fuzz/schemathesis.sh" || true
if stage services "$here/services.sh" start chaos; then
    # Three agents.
    stage agents within_seconds $((total * 5 / 100 / 3)) machine_tests fuzz:: || true
    stage kills kills $((total * 20 / 100)) || true
fi
if ((failed > 0)); then echo "repeat with: make chaos SEED=$seed MINUTES=$minutes"; fi
summary
