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
