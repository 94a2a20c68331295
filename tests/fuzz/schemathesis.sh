#!/usr/bin/env bash
# schemathesis on /openapi.json: every operation, with what the document allows and what it does not; answers must be as documented.
#
#   tests/fuzz/schemathesis.sh                     on the real gateway with simulated hosts, started here
#   tests/fuzz/schemathesis.sh URL API_KEY_FILE    on a cloud that runs, such as that of make up; it fills with what is made there
#
# CLOUD_CHAOS_SEED (new each time), CLOUD_CHAOS_SECONDS (120), CLOUD_BIN_DIR (target/debug), CLOUD_CACHE_DIR (.cache)
# Ends with a line "N passed, N failed", in which each operation counts once, and the soundness of the gateway afterwards once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=../../deploy/lib/python.sh
. "$root/deploy/lib/python.sh"
bin_dir=${CLOUD_BIN_DIR:-${CARGO_TARGET_DIR:-$root/target}/debug}
seed=${CLOUD_CHAOS_SEED:-$((RANDOM * 32768 + RANDOM))}
seconds=${CLOUD_CHAOS_SECONDS:-120}
work=$(mktemp -d)
simulator=

finish() {
    local status=$?
    trap - EXIT
    if [[ -n $simulator ]]; then kill -TERM "$simulator" 2> /dev/null || true; fi
    wait
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

# start_cloud: the gateway with two simulated hosts.
start_cloud() {
    "$bin_dir/cloud-sim" --ready "$work/env" --log "$work/gateway.log" -- --stop-wait=3 --stop-grace=1 > "$work/sim.out" 2>&1 &
    simulator=$!
    local end=$((SECONDS + 60))
    until [[ -e $work/env ]]; do
        if ! kill -0 "$simulator" 2> /dev/null || ((SECONDS > end)); then
            cat "$work/sim.out"
            echo "error: cloud-sim did not become ready"
            exit 1
        fi
        sleep 0.1
    done
    # shellcheck disable=SC1091
    . "$work/env"
}

echo "schemathesis: CLOUD_CHAOS_SEED=$seed CLOUD_CHAOS_SECONDS=$seconds"
schemathesis=$(python_tools schemathesis "$here/requirements.txt")/bin/schemathesis
if (($# > 0)); then
    CLOUD_ENDPOINT=$1
    CLOUD_API_KEY_FILE=$2
else
    start_cloud
fi

status=0
# The key goes through the configuration, not through an argument: other users can read those.
{
    cat "$here/schemathesis.toml"
    printf '\n[headers]\nAuthorization = "Bearer %s"\n' "$(< "$CLOUD_API_KEY_FILE")"
} > "$work/schemathesis.toml"
cd "$work"
"$schemathesis" --config-file "$work/schemathesis.toml" run --checks all --exclude-checks use_after_free --seed "$seed" --max-time "$seconds" --no-color \
    --report json --report-json-path "$work/report.json" "$CLOUD_ENDPOINT/openapi.json" || status=$?
[[ -e $work/report.json ]] || {
    echo "error: schemathesis made no report"
    exit 1
}
tested=$(jq .operations.tested "$work/report.json")
failed=$(jq '[.failures[].operations[]] | unique | length' "$work/report.json")
# A run that ended early, or saw no operation, has shown nothing.
if ! jq -e '.operations.tested > 0 and .operations.tested == .operations.selected' "$work/report.json" > /dev/null; then
    echo "FAILED only $tested of $(jq .operations.selected "$work/report.json") operations were tested: give it more than $seconds s, or a machine that does less"
    status=1
fi
if ((status != 0 && failed == 0)); then failed=1; fi

if [[ -n $simulator ]]; then
    kill -TERM "$simulator"
    sound=0
    wait "$simulator" || sound=$?
    simulator=
    tested=$((tested + 1))
    if ((sound != 0)); then
        failed=$((failed + 1))
        head -n 20 "$work/sim.out"
        echo "--- the end of the gateway's log"
        tail -n 20 "$work/gateway.log" 2> /dev/null || true
    fi
fi
if ((failed > 0)); then echo "repeat with CLOUD_CHAOS_SEED=$seed CLOUD_CHAOS_SECONDS=$seconds"; fi
echo "$((tested - failed)) passed, $failed failed"
((failed == 0))
