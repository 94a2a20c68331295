#!/usr/bin/env bash
# Every test there is, on this machine: static checks, unit and service tests, the built-in image, tests against the
# real hypervisor and switch, end to end. Ends with a line "N passed, N failed"; fails when anything failed.
# Each stage's output is in .run/test/, its time in the table at the end.
#
# Which tests need what is said by the name of their integration test target: host_* needs libvirtd and Open vSwitch,
# e2e_* needs those, the daemons and the image `tiny`; all others need nothing but cargo.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
cd "$root_dir"

if [[ -e $run_dir/cloud.lock ]] && ! flock -n "$run_dir/cloud.lock" true; then
    die "a cloud runs here (make up), and the tests would meet it on the switch: make down first"
fi
logs=$run_dir/test
rm -rf "$logs"
mkdir -p "$logs"
target=${CARGO_TARGET_DIR:-$root_dir/target}
# What the end-to-end tests run.
export CLOUD_BIN_DIR=$target/debug
export CLOUD_TINY_IMAGE=$root_dir/.cache/tiny.qcow2
export CARGO_TERM_COLOR=never

passed=0
failed=0
table=()

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

# counts LOG: "PASSED FAILED" as the log's test tools counted; nothing if no tool did.
counts() {
    awk '
        # cargo nextest
        /tests? run: / {
            sub(/.*\] +/, ""); split($1, ran, "/"); run = ran[1]
            good = match($0, /[0-9]+ passed/) ? substr($0, RSTART, RLENGTH) + 0 : 0
            ok += good; bad += run - good; seen = 1
        }
        # cargo test
        /^test result: / {
            if (match($0, /[0-9]+ passed/)) ok += substr($0, RSTART, RLENGTH) + 0
            if (match($0, /[0-9]+ failed/)) bad += substr($0, RSTART, RLENGTH) + 0
            seen = 1
        }
        # our own scripts
        /^[0-9]+ passed, [0-9]+ failed$/ { ok += $1; bad += $3; seen = 1 }
        END { if (seen) print ok + 0, bad + 0 }
    ' "$1"
}

# stage NAME COMMAND...: runs it, counts its tests; one without tests counts as one. A failure does not end the run.
stage() {
    local name=$1 log begun status=0 ok bad
    shift
    log=$logs/$(printf '%02d' $((${#table[@]} + 1)))-$name.log
    printf '==> %-12s ' "$name"
    begun=$(now_ms)
    "$@" > "$log" 2>&1 < /dev/null || status=$?
    read -r ok bad < <(counts "$log") || {
        ok=0
        bad=0
        ((status != 0)) || ok=1
    }
    # Whatever the counters say, a command that failed is a failure.
    if ((status != 0 && bad == 0)); then bad=1; fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    table+=("$(printf '%-12s %8d.%d s %6d passed %4d failed' "$name" $((($(now_ms) - begun) / 1000)) $((($(now_ms) - begun) % 1000 / 100)) "$ok" "$bad")")
    echo "$ok passed, $bad failed"
    if ((bad > 0)); then
        grep -E '^ +(FAIL|TIMEOUT|SIGABRT|SIGSEGV) |^test .* FAILED$|^FAILED |^error' "$log" | sort -u | head -n 20 || true
        echo "--- the end of $log"
        tail -n 30 "$log"
    fi
    return "$status"
}

# integration_targets PREFIX...: "package target" for each integration test target with such a name.
integration_targets() {
    cargo metadata --format-version 1 --no-deps --locked |
        jq -r --arg prefixes "$*" '.packages[] | .name as $package | .targets[] | select(.kind == ["test"]) | .name as $name
            | select(any($prefixes | split(" ")[]; . as $prefix | $name | startswith($prefix))) | "\($package) \($name)"'
}

unit_tests() {
    if command -v cargo-nextest > /dev/null; then
        cargo nextest run --workspace --locked --no-fail-fast -E 'not binary(/^(host|e2e)_/)'
    else
        local package name status=0
        cargo test --workspace --locked --no-fail-fast --lib --bins || status=$?
        while read -r package name; do
            [[ $name != host_* && $name != e2e_* ]] || continue
            cargo test --locked --no-fail-fast -p "$package" --test "$name" || status=$?
        done < <(integration_targets '')
        return "$status"
    fi
}

# machine_tests PREFIX: one after the other, as root, since they share the hypervisor and the switch.
machine_tests() {
    local package name status=0
    [[ -n $(integration_targets "$1") ]] || {
        echo "error: there is no integration test target named $1*"
        return 1
    }
    if ((EUID != 0)); then export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='sudo --preserve-env'; fi
    if command -v cargo-nextest > /dev/null; then
        cargo nextest run --workspace --locked --no-fail-fast --test-threads 1 -E "binary(/^$1/)"
    else
        while read -r package name; do
            cargo test --locked --no-fail-fast -p "$package" --test "$name" -- --test-threads 1 || status=$?
        done < <(integration_targets "$1")
        return "$status"
    fi
}

build() { cargo build --workspace --bins --locked && cargo test --workspace --no-run --locked; }

summary() {
    echo
    printf '%s\n' "${table[@]}"
    printf '%-12s %8d.%d s\n' total $((($(now_ms) - started) / 1000)) $((($(now_ms) - started) % 1000 / 100))
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

started=$(now_ms)
# Nothing can be tested without these two.
stage deps "$here/install-deps.sh" --tests || { summary; exit 1; }
stage build build || { summary; exit 1; }
stage fmt "$here/lint.sh" fmt || true
stage scripts "$here/lint.sh" scripts || true
stage clippy "$here/lint.sh" clippy || true
stage unit unit_tests || true
stage docs cargo test --workspace --doc --locked --no-fail-fast || true
stage image "$root_dir/images/tiny/build.sh" "$CLOUD_TINY_IMAGE" || true
stage tiny "$root_dir/images/tiny/test.sh" "$CLOUD_TINY_IMAGE" || true
if stage services "$here/services.sh" start test; then
    stage host machine_tests host_ || true
    stage e2e machine_tests e2e_ || true
fi
summary
