#!/usr/bin/env bash
# The cloud's main job from beginning to end, on real guests, in a throw-away state directory; leaves nothing behind.
# Exits 0 only if every step did what it should. `make demo` builds first; this needs root (it asks sudo).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/cloud.sh
. "$here/lib/cloud.sh"
# shellcheck source=lib/steps.sh
. "$here/lib/steps.sh"

if ((EUID != 0)); then
    exec sudo --preserve-env=CLOUD_PORT,CLOUD_BIN_DIR,CLOUD_RUN_DIR,CLOUD_CACHE_DIR,CARGO_TARGET_DIR "$0" "$@"
fi
take_cloud_lock "a cloud runs here already: make down stops it, then make demo"
# Below /var/lib, where the hypervisor's user can read.
cloud_configure "$(mktemp -d /var/lib/thecloud-demo.XXXXXX)" "${CLOUD_PORT:-8080}" br-demo
logs_dir=$run_dir/demo
rm -rf "$logs_dir"

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    if ((status != 0)); then
        echo
        echo "The demonstration failed in: ${step_names[-1]:-the beginning}"
        for log in "$logs_dir"/*.log; do
            [[ -e $log ]] || continue
            echo "--- $log"
            tail -n 25 "$log"
        done
        step_started=0
        print_steps
        echo "cleaning up"
        (discard) || echo "the clean-up failed as well; see above"
    fi
    rm -rf "$state_dir"
    exit "$status"
}

# discard: guests, switch ports and daemons of the throw-away cloud, without asking anybody.
discard() {
    local name names
    stop_daemons_of_cloud
    if may_have_objects; then
        # What cannot be listed cannot be removed: the clean-up has failed then.
        names=$(our_domains --all) || return 1
    fi
    for name in ${names:-}; do
        virsh -q -c qemu:///system destroy "$name" > /dev/null 2>&1 || true
        virsh -q -c qemu:///system undefine "$name" --nvram > /dev/null || true
    done
    remove_network
    "$here/services.sh" stop demo
}

fail() {
    echo "FAILED: $*" >&2
    return 1
}

# --- what is on the host for this cloud, one thing per line

# tagged KIND LINES
tagged() {
    local line
    while read -r line; do
        if [[ -n $line ]]; then echo "$1 $line"; fi
    done <<< "$2"
}

# our_devices: taps of this machine that belong to our ports, by the name that the switch knew them under. They may outlive the port.
our_devices() {
    local links tap
    links=$(ip -o link show type tun) || return 1
    for tap in "${taps[@]}"; do
        if grep -q " ${tap}[:@]" <<< "$links"; then echo "$tap"; fi
    done
}
taps=()

# host_objects: fails, and prints nothing, when one kind could not be looked at. A demonstration that cannot see proves nothing.
host_objects() {
    local domains disks seeds ports devices flows processes
    domains=$(our_domains --all) || return 1
    disks=$(find "$state_dir" -type f \( -name '*.qcow2' -o -name '*.raw' -o -name '*.iso' -o -name '*.img' \) -path '*volumes*') || return 1
    seeds=$(find "$state_dir" -type f -path '*seed*') || return 1
    ports=$(our_ports) || return 1
    devices=$(our_devices) || return 1
    flows=$(our_flows) || return 1
    processes=$(our_processes qemu-system) || return 1
    tagged domain "$domains"
    tagged disk "$disks"
    tagged seed "$seeds"
    tagged port "$ports"
    tagged device "$devices"
    tagged flow "$flows"
    tagged process "$processes"
}

# count KIND OBJECTS
count() { grep -c "^$1 " <<< "$2" || true; }

# sees_objects NUMBER: this many instances are on the host, by the very functions that shall see none of it at the end.
sees_objects() {
    local objects kind
    objects=$(host_objects) || fail "cannot look at the host" || return 1
    for kind in domain disk seed port device process; do
        (($(count "$kind" "$objects") == $1)) || fail "$1 instances run, and the host shows $(count "$kind" "$objects") of '$kind'" || return 1
    done
    (($(count flow "$objects") > $(count flow "$before"))) || fail "$1 instances run, and the switch has no more flows than before" || return 1
    for kind in domain disk seed port device flow process; do printf '    %s %s' "$(count "$kind" "$objects")" "$kind"; done
    echo
}

# --- progress

instance() { api GET "/instances/$1"; }
status_of() { instance "$1" | jq -r .status; }

# progress NAME...: one line, rewritten in place on a terminal, until all are RUNNING; fails when one is in ERROR.
progress() {
    local begun name status line last='' running
    begun=$(now_ms)
    while true; do
        line=
        running=0
        for name in "$@"; do
            status=$(status_of "$name") || return 1
            line+="  $name $status"
            [[ $status != ERROR ]] || fail "$name: $(instance "$name" | jq -r .status_reason)" || return 1
            [[ $status != RUNNING ]] || running=$((running + 1))
        done
        if [[ -t 1 ]]; then
            printf '\r\033[K%6s s%s' "$(seconds $(($(now_ms) - begun)))" "$line"
        elif [[ $line != "$last" ]]; then
            printf '%6s s%s\n' "$(seconds $(($(now_ms) - begun)))" "$line"
        fi
        last=$line
        if ((running == $#)); then break; fi
        (($(now_ms) - begun < 120000)) || fail "not RUNNING after 120 s" || return 1
        sleep 0.1
    done
    if [[ -t 1 ]]; then echo; fi
}

# --- what the guests say

log_of() { cloud instance log "$1" | tr -d '\r'; }
# seen_by NAME: whom a guest has seen, over all rounds.
seen_by() { log_of "$1" | sed -n 's/^demo: round [0-9]* sees //p' | tr ' ' '\n' | sort -u | xargs; }
rounds_of() { log_of "$1" | grep -c '^demo: round' || true; }
# names VIEW NAME: the name is in the view. The view is fetched by the caller, so that a log that cannot be read is no view without a name.
names() { [[ " $1 " == *" $2 "* ]]; }
sees() {
    local view
    view=$(seen_by "$1") && names "$view" "$2"
}
see_each_other() { sees web-01 db-01 && sees db-01 web-01; }
more_rounds() { (($(rounds_of "$1") >= $2)); }
show_view() { echo "    $1 ($(instance "$1" | jq -r '.ports[0].ip')) sees: $(seen_by "$1")"; }

launch() {
    cloud instance launch --image tiny --name "$1" --vpc "$2" --user-data "@$here/demo-guest.sh" -o json |
        jq -r '"    \(.name) \(.status) \(.ports[0].ip // "") \(.id)"'
}

trap finish EXIT
trap 'exit 130' INT TERM

step "start the services and the four daemons"
cloud_start demo
echo "    $endpoint, host $(api GET /hosts | jq -r '.hosts[0] | "\(.name) \(.state)"')"

step "import the image tiny"
import_tiny

step "create two VPCs with the same address range"
for vpc in blue green; do
    api POST /vpcs "{\"name\":\"$vpc\",\"cidr\":\"10.42.0.0/16\"}" | jq -r '"    \(.name) \(.cidr)"'
done
before=$(host_objects)

step "launch two instances into blue, one into green: RUNNING"
launch web-01 blue
launch db-01 blue
launch stranger green
progress web-01 db-01 stranger
ports=$(our_ports)
mapfile -t taps <<< "$ports"
sees_objects 3

step "web-01 and db-01 reach each other (said by the guests)"
within 120 see_each_other || fail "web-01 sees '$(seen_by web-01)', db-01 sees '$(seen_by db-01)'"
show_view web-01
show_view db-01

step "the stranger in green reaches neither, and neither reaches it"
# Rounds that began after the two saw each other: were there a way, these would have found it.
within 120 more_rounds stranger $(($(rounds_of stranger) + 3)) || fail "the stranger says nothing"
within 60 more_rounds web-01 $(($(rounds_of web-01) + 2)) || fail "web-01 says nothing more"
show_view stranger
view=$(seen_by stranger)
names "$view" stranger || fail "the stranger does not even see itself: its probe proves nothing"
for name in web-01 db-01; do
    if names "$view" "$name"; then fail "the stranger sees $name"; fi
    other=$(seen_by "$name")
    names "$other" "$name" || fail "$name does not even see itself"
    if names "$other" stranger; then fail "$name sees the stranger"; fi
done

step "stop web-01 by POST /instances/{id}/stop"
id=$(instance web-01 | jq -r .id)
answer=$(curl -sS --max-time 90 -X POST -H @<(echo "Authorization: Bearer $(< "$key_file")") "$endpoint/instances/$id/stop")
echo "    $(jq -c '{id, name, status}' <<< "$answer")"
[[ $(jq -r .status <<< "$answer") == STOPPED ]] || fail "not STOPPED: $answer"

step "delete everything"
for name in web-01 db-01 stranger; do cloud instance rm "$name" --wait > /dev/null; done
host_as_before() {
    local objects
    objects=$(host_objects) && [[ $objects == "$before" ]]
}
within 30 host_as_before || fail "left on the host, compared with before the launch: $(diff <(echo "$before") <(host_objects) || true)"
for vpc in blue green; do cloud vpc rm "$vpc" > /dev/null; done

step "nothing is left: no domain, disk, port, flow, process"
# The bridge has flows of its own until it goes.
nothing_left() {
    local objects
    objects=$(host_objects) && objects=$(sed '/^flow /d' <<< "$objects") && [[ -z $objects ]]
}
within 30 nothing_left || fail "left on the host: $(host_objects | grep -v '^flow ')"
processes=$(our_processes)
(($(wc -l <<< "$processes") == 1 + ${#agents[@]})) || fail "four daemons run, and the process list shows: $processes"
stop_daemons_of_cloud
remove_network
left=$(host_objects)
[[ -z $left ]] || fail "left on the host: $left"
left=$(our_processes)
[[ -z $left ]] || fail "processes left: $left"
echo "    looked for the domains, disks, seeds, ports, devices, flows and processes that were seen above: none"
"$here/services.sh" stop demo
end_step
print_steps
echo "The demonstration succeeded; nothing is left behind."
