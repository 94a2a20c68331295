#!/usr/bin/env bash
# Several hosts on one machine, each in namespaces of its own; see lib/hosts.sh and docs/hosts.md.
#
#   deploy/hosts.sh up NUMBER         runs a cloud of so many hosts until Ctrl-C or deploy/down.sh (make up HOSTS=3)
#   deploy/hosts.sh down              ends it; clears up after an `up` that was killed. State is kept (make down)
#   deploy/hosts.sh ls                the hosts, their addresses, and what does not run
#   deploy/hosts.sh exec HOST COMMAND…
#                                     runs a command where a host's daemons are: virsh, ovs-vsctl, ip
#   deploy/hosts.sh cut HOST          pulls out its cables; `mend HOST` puts them in again
#   deploy/hosts.sh kill HOST         SIGKILL to its three agents; `start HOST` starts them again
#   deploy/hosts.sh power-off HOST    SIGKILL to everything on it, guests too; `start HOST` boots it
#   deploy/hosts.sh fill HOST [MIB]   fills its disk but for so much (needs CLOUD_HOST_DISK_MIB at `up`); `empty HOST` gives it back
#   deploy/hosts.sh destroy           as `down`, without shutting guests down, and removes the state of the cloud and of the hosts
#
# CLOUD_STATE_DIR (/var/lib/thecloud-hosts), CLOUD_PORT (8080), CLOUD_BIN_DIR (target/release), CLOUD_HOSTS_NAME (cloud: what namespaces are
# called after), CLOUD_UNDERLAY (198.18: the first two numbers of the wires' addresses), CLOUD_HOST_DISK_MIB (each host's state on a file
# system of that size; without it they share this machine's)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/cloud.sh
. "$here/lib/cloud.sh"
# shellcheck source=lib/hosts.sh
. "$here/lib/hosts.sh"
# shellcheck source=lib/wires.sh
. "$here/lib/wires.sh"

if ((EUID != 0)); then
    exec sudo --preserve-env=CLOUD_STATE_DIR,CLOUD_PORT,CLOUD_BIN_DIR,CLOUD_RUN_DIR,CLOUD_CACHE_DIR,CARGO_TARGET_DIR,CLOUD_HOSTS_NAME,CLOUD_UNDERLAY,CLOUD_HOST_DISK_MIB "$0" "$@"
fi
cloud_configure "${CLOUD_STATE_DIR:-/var/lib/thecloud-hosts}" "${CLOUD_PORT:-8080}" br-int
hosts_configure "${CLOUD_HOSTS_NAME:-cloud}" "${CLOUD_UNDERLAY:-198.18}"

# each HOST... -- COMMAND...: for all of them at the same time; fails when it fails for one. Not with `||` where the command must end at its
# first failure.
each() {
    local hosts=() host pids=() pid status=0
    while [[ $1 != -- ]]; do
        hosts+=("$1")
        shift
    done
    shift
    for host in "${hosts[@]}"; do
        ("$@" "$host") &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || status=1; done
    return "$status"
}

# without_agents COMMAND...: what lib/cloud.sh does to all daemons of a machine, for the gateway alone.
without_agents() {
    local agents=()
    "$@"
}

start_agents_of() {
    local agent
    for agent in "${agents[@]}"; do start_host_agent "$1" "$agent"; done
}

hosts_are_up() { api GET /hosts | jq -e --argjson count "$hosts_count" '[.hosts[] | select(.state == "UP")] | length >= $count'; }

# the_hosts: h1 to the last.
the_hosts() { seq -f 'h%g' "$hosts_count"; }

up() {
    local host hosts surplus
    [[ $1 =~ ^[1-9][0-9]?$ ]] || die "HOSTS=$1 must be a number from 1 to $most_hosts"
    (($1 <= most_hosts)) || die "HOSTS=$1 are too many: $most_hosts at most"
    hosts_count=$1
    take_cloud_lock "a cloud already runs here: make down stops it"
    trap finish EXIT
    trap 'exit 0' INT TERM
    echo $$ > "$run_dir/up.pid"

    # The hypervisor's user reads images and disks below it; sockets, key and database are protected one by one.
    mkdir -p "$state_dir" "$hosts_run" "$logs_dir"
    chmod 711 "$state_dir"
    echo "$hosts_count" > "$hosts_run/count"
    give_kvm_to_its_group
    without_agents stop_daemons_of_cloud
    surplus=$(present_hosts | grep -vxF "$(the_hosts)" || true)
    for host in $surplus; do
        stop_host_agents "$host"
        take_down_host "$host"
    done
    mapfile -t hosts < <(the_hosts)
    make_wires
    for host in "${hosts[@]}"; do rm -f "$hosts_run/$host"/{off,no-agents}; done
    each "${hosts[@]}" -- stop_host_agents
    each "${hosts[@]}" -- start_host_services
    start_daemon api-gateway
    wait_daemon api-gateway 30 gateway_answers
    wait_daemon api-gateway 30 gateway_ready
    each "${hosts[@]}" -- join_host
    each "${hosts[@]}" -- start_agents_of
    within 60 hosts_are_up || die "not all hosts are UP: $(api GET /hosts | jq -c '[.hosts[] | {name, state, state_reason}]'); logs: $logs_dir"
    our_cloud_id > /dev/null
    import_tiny
    tell
    while true; do
        # In the background, so that a signal is handled at once.
        sleep 1 8>&- &
        wait $! || true
        without_agents restart_dead_daemons
        for host in "${hosts[@]}"; do (restart_dead_of_host "$host") || note "$host is not whole: trying again"; done
    done
}

tell() {
    if [[ -n ${SUDO_UID:-} ]]; then chown "$SUDO_UID" "$key_file"; fi
    printf 'CLOUD_ENDPOINT=%s\nCLOUD_API_KEY_FILE=%s\nexport CLOUD_ENDPOINT CLOUD_API_KEY_FILE\n' \
        "$endpoint" "$key_file" > "$run_dir/env.new"
    mv "$run_dir/env.new" "$run_dir/env"
    cat << TEXT

A cloud of $hosts_count hosts is up.
  REST, gRPC, gRPC-Web   $endpoint
  API key                $key_file
  logs                   ${logs_dir#"$root_dir"/}

Things to try, in another terminal:
  . .run/env; PATH=$bin_dir:\$PATH
  cloud host ls
  cloud instance launch --image tiny --name web-01 --wait; cloud instance launch --image tiny --name web-02 --wait; cloud instance ls
  deploy/hosts.sh exec h1 virsh list
  deploy/hosts.sh cut h2; deploy/hosts.sh mend h2

Ctrl-C or make down ends it.
TEXT
}

finish() {
    local status=$?
    trap - EXIT
    # From here on a second Ctrl-C changes nothing: half a clean-up helps nobody, and each step has its own limit.
    trap '' INT TERM
    note "stopping"
    rm -f "$run_dir/up.pid"
    (take_down) || status=1
    ((status != 0)) || note "stopped; instances and volumes are kept in $state_dir"
    exit "$status"
}

# take_down: all hosts, then the wires; nobody else works on them.
take_down() {
    local hosts
    mapfile -t hosts < <(present_hosts)
    if ((${#hosts[@]} > 0)); then each "${hosts[@]}" -- stop_host_agents; fi
    without_agents stop_daemons_of_cloud
    if ((${#hosts[@]} > 0)); then each "${hosts[@]}" -- take_down_host || die "not all of the hosts' things are gone"; fi
    clear_away
}

# clear_away: what is not a host's.
clear_away() {
    local dir left
    # Of hosts whose namespaces are gone, as after a restart of the machine.
    for dir in "$state_dir"/hosts/*/; do
        [[ ! -d $dir ]] || unmount_disk "$(basename "$dir")"
    done
    remove_wires
    remove_mountpoints
    left=$(present_hosts | xargs)
    [[ -z $left ]] || die "hosts that cannot be removed: $left"
    rm -rf "$hosts_run"
    rm -f "$run_dir/env"
}

does_not_run() { ! cloud_runs; }

down() {
    local pid
    mkdir -p "$run_dir"
    touch "$run_dir/cloud.lock"
    if cloud_runs; then
        pid=$(cat "$run_dir/up.pid" 2> /dev/null) || die "a demonstration or a test runs a cloud here: let it end"
        kill -TERM "$pid"
        within 120 does_not_run || die "the cloud (pid $pid) does not end"
        return
    fi
    take_cloud_lock "a cloud has just been started: try again"
    rm -f "$run_dir/up.pid"
    take_down
    note "stopped; instances and volumes are kept in $state_dir"
}

destroy() {
    local host
    if [[ -e $run_dir/cloud.lock ]] && cloud_runs; then
        process_is "$(cat "$run_dir/up.pid" 2> /dev/null)" bash || die "a demonstration or a test runs a cloud here: let it end"
        kill -KILL "$(< "$run_dir/up.pid")"
        # What it had begun ends first.
        within 60 does_not_run || die "the cloud does not end"
    fi
    take_cloud_lock "a cloud has just been started: try again"
    rm -f "$run_dir/up.pid"
    without_agents stop_daemons_of_cloud
    for host in $(present_hosts); do remove_host "$host"; done
    clear_away
    # Whatever else a directory of that name has is not ours.
    if [[ -d $state_dir/hosts ]]; then rm -rf "$state_dir"; fi
}

list() {
    local host name missing
    for host in $(present_hosts); do
        missing=
        for name in holder "${host_services[@]}" "${agents[@]}"; do
            runs_in_host "$host" "$name" || missing+=" $name"
        done
        printf '%-4s %-16s %-16s %s\n' "$host" "$(control_address "$host")" "$(tunnel_address "$host")" "${missing:+does not run:$missing}"
    done
}

start_host() {
    hosts_count=$(< "$hosts_run/count")
    start_host_services "$1"
    start_agents_of "$1"
    # From here on `up` looks after them as well.
    rm -f "$hosts_run/$1"/{off,no-agents}
}

verb=${1:-help}
case $verb in
    up) up "${2:-}" ;;
    down | destroy | ls)
        [[ $verb != ls ]] || verb=list
        "$verb"
        ;;
    exec | cut | mend | kill | start | power-off | fill | empty)
        is_host "${2:-}" || die "there is no host '${2:-}' here; there are: $(present_hosts | xargs)"
        case $verb in
            exec) in_host "$2" "${@:3}" ;;
            cut) cut_host "$2" ;;
            mend) mend_host "$2" ;;
            kill) kill_agents "$2" ;;
            start) start_host "$2" ;;
            power-off) power_off "$2" ;;
            fill) fill_disk "$2" "${3:-0}" ;;
            empty) empty_disk "$2" ;;
        esac
        ;;
    *)
        sed -n '4,14s/^# \{0,3\}//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
