# shellcheck shell=bash
# Steps with their times; sourced after common.sh.

step_names=()
step_times=()
step_started=0

# step NAME: ends the step before and begins one.
step() {
    end_step
    step_names+=("$1")
    step_started=$(now_ms)
    echo "==> $1"
}

end_step() {
    ((step_started == 0)) || step_times+=($(($(now_ms) - step_started)))
    step_started=0
}

seconds() { printf '%d.%02d' $(($1 / 1000)) $(($1 % 1000 / 10)); }

# print_steps: the table; a step without a time is the one that failed.
print_steps() {
    local i total=0
    echo
    printf '%-58s %9s\n' step seconds
    for i in "${!step_names[@]}"; do
        if [[ -n ${step_times[i]:-} ]]; then
            printf '%-58s %9s\n' "${step_names[i]}" "$(seconds "${step_times[i]}")"
            total=$((total + step_times[i]))
        else
            printf '%-58s %9s\n' "${step_names[i]}" FAILED
        fi
    done
    printf '%-58s %9s\n' total "$(seconds "$total")"
}
