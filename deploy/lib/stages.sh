# shellcheck shell=bash
# Stages of tests: run, counted, timed, shown in a table. Sourced after common.sh.

# begin_stages DIRECTORY: their logs go there.
begin_stages() {
    logs=$1
    rm -rf "$logs"
    mkdir -p "$logs"
    passed=0
    failed=0
    table=()
    started=$(now_ms)
}

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
        # Why, as Rust's tests say it.
        grep -E -A 3 '^ *(Error: |thread .* panicked at )' "$log" | cut -c -400 | head -n 60 || true
        # An error's causes come after the logs in it.
        grep -E -A 8 '^ *Caused by:' "$log" | cut -c -400 | head -n 60 || true
        echo "--- the end of $log"
        tail -n 30 "$log"
    fi
    return "$status"
}

summary() {
    echo
    printf '%s\n' "${table[@]}"
    printf '%-12s %8d.%d s\n' total $((($(now_ms) - started) / 1000)) $((($(now_ms) - started) % 1000 / 100))
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

# integration_targets PREFIX...: "package target" for each integration test target with such a name.
integration_targets() {
    cargo metadata --format-version 1 --no-deps --locked |
        jq -r --arg prefixes "$*" '.packages[] | .name as $package | .targets[] | select(.kind == ["test"]) | .name as $name
            | select(any($prefixes | split(" ")[]; . as $prefix | $name | startswith($prefix))) | "\($package) \($name)"'
}

# lvm_tests FILE: the program of the storage-agent's tests on thin volumes, to be run on a host of the lab.
lvm_tests() {
    local program
    program=$(cargo test --workspace --locked --no-run --test lvm_volumes --message-format json |
        jq -r 'select(.executable != null and .target.name == "lvm_volumes") | .executable')
    [[ -n $program ]] || {
        echo "error: the tests lvm_volumes cannot be built"
        return 1
    }
    strip -o "$1" "$program"
}

# lab_tests [NAME...]: on hosts of the lab, but for the tests with such a NAME.
lab_tests() {
    export CLOUD_LVM_TESTS=$run_dir/lvm-tests
    mkdir -p "$run_dir"
    lvm_tests "$CLOUD_LVM_TESTS" && machine_tests lab_ "$@"
}

# machine_tests PREFIX [NAME...]: one after the other, as root, since they share the hypervisor and the switch; but for those with such a NAME.
machine_tests() {
    local package name without skip=() status=0
    [[ -n $(integration_targets "$1") ]] || {
        echo "error: there is no integration test target named $1*"
        return 1
    }
    for name in "${@:2}"; do
        without+=" and not test($name)"
        skip+=(--skip "$name")
    done
    if ((EUID != 0)); then export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='sudo --preserve-env'; fi
    if command -v cargo-nextest > /dev/null; then
        cargo nextest run --workspace --locked --no-fail-fast --test-threads 1 -E "binary(/^$1/)${without:-}"
    else
        while read -r package name; do
            cargo test --locked --no-fail-fast -p "$package" --test "$name" -- --test-threads 1 "${skip[@]}" || status=$?
        done < <(integration_targets "$1")
        return "$status"
    fi
}
