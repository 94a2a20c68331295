# shellcheck shell=bash
# The four daemons of a one-machine cloud: starting, supervising, stopping. Sourced after common.sh; runs as root.

agents=(compute-agent storage-agent network-agent)
daemons_dir=$run_dir/daemons
logs_dir=$run_dir/log

# cloud_configure STATE_DIR PORT BRIDGE: where this cloud keeps its state, listens, and switches.
cloud_configure() {
    state_dir=$1
    port=$2
    bridge=$3
    endpoint=http://127.0.0.1:$port
    key_file=$state_dir/admin.key
    bin_dir=${CLOUD_BIN_DIR:-${CARGO_TARGET_DIR:-$root_dir/target}/release}
}

# take_cloud_lock: one cloud at a time on a machine, demonstrations included. Held until this process ends, however
# it ends.
take_cloud_lock() {
    mkdir -p "$run_dir"
    exec 8>> "$run_dir/cloud.lock"
    flock -n 8 || die "$1"
}

cloud_runs() { ! flock -n "$run_dir/cloud.lock" true 2> /dev/null; }

# daemon_command NAME: its argument vector, into the array `command`.
daemon_command() {
    case $1 in
        api-gateway)
            command=("$bin_dir/cloud-api-gateway" --listen "127.0.0.1:$port" --database "sqlite:$state_dir/cloud.db"
                --state-dir "$state_dir" --host-listen "unix:$state_dir/host.sock" --api-key-file "$key_file")
            if [[ -n ${agents_address:-} ]]; then command+=(--agents-address "$agents_address"); fi
            ;;
        *)
            command=("$bin_dir/cloud-$1" --listen "unix:$state_dir/${1%-agent}.sock" --gateway "unix:$state_dir/host.sock"
                --state-dir "$state_dir" --host-id-file "$state_dir/host-id")
            ;;&
        storage-agent) command+=(--pool-dir "$state_dir/pools/default") ;;
        network-agent) command+=(--bridge "$bridge") ;;
    esac
}

# start_daemon NAME: in a session of its own, so that Ctrl-C reaches only the script, which then stops things in order.
start_daemon() {
    local name=$1 command=()
    daemon_command "$name"
    [[ -x ${command[0]} ]] || die "${command[0]} is not built: run make build"
    mkdir -p "$daemons_dir" "$logs_dir"
    setsid "${command[@]}" >> "$logs_dir/$name.log" 2>&1 < /dev/null 8>&- &
    echo $! > "$daemons_dir/$name.pid"
}

daemon_alive() {
    local pid
    pid=$(cat "$daemons_dir/$1.pid" 2> /dev/null) && process_is "$pid" "cloud-$1"
}

# wait_daemon NAME SECONDS COMMAND...: until the command is true; gives up at once when the daemon has died.
wait_daemon() {
    local name=$1 end=$(($(now_ms) + $2 * 1000))
    shift 2
    until "$@" > /dev/null 2>&1; do
        if ! daemon_alive "$name" || (($(now_ms) >= end)); then
            note "--- $logs_dir/$name.log"
            tail -n 20 "$logs_dir/$name.log" >&2
            die "cloud-$name did not become ready"
        fi
        sleep 0.05
    done
}

# api METHOD PATH [JSON]: a REST call; prints the body, fails on an error status and prints the answer to stderr then.
api() {
    local method=$1 path=$2 body answer status
    shift 2
    body=()
    if (($# > 0)); then body=(-H 'Content-Type: application/json' -d "$1"); fi
    # The key goes through a file descriptor: other users can read arguments.
    answer=$(curl -sS --max-time 90 -X "$method" -w '\n%{http_code}' "${body[@]}" \
        -H @<(echo "Authorization: Bearer $(< "$key_file")") "$endpoint$path") || return 1
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    if [[ $status != 2* ]]; then
        note "$method $path: $status $answer"
        return 1
    fi
    echo "$answer"
}

gateway_answers() { curl -sf --max-time 2 "$endpoint/health/live"; }
gateway_ready() { curl -sf --max-time 2 "$endpoint/health/ready"; }
host_is_up() { api GET /hosts | jq -e '[.hosts[] | select(.state == "UP")] | length > 0'; }

# cloud ARGUMENT...: the command, as a user of this cloud.
cloud() { CLOUD_ENDPOINT=$endpoint CLOUD_API_KEY_FILE=$key_file "$bin_dir/cloud" "$@"; }

# cloud_start: services, gateway, agents; returns when a host is UP.
cloud_start() {
    # The hypervisor's user reads images and disks below it; sockets, key and database are protected one by one.
    mkdir -p "$state_dir"
    chmod 711 "$state_dir"
    rm -rf "$daemons_dir"
    # Its daemons would keep our lock.
    "$root_dir/deploy/services.sh" start "$1" 8>&-
    start_daemon api-gateway
    wait_daemon api-gateway 30 gateway_answers
    local agent
    for agent in "${agents[@]}"; do start_daemon "$agent"; done
    wait_daemon api-gateway 30 gateway_ready
    for agent in "${agents[@]}"; do wait_daemon "$agent" 30 host_is_up; done
    our_cloud_id > /dev/null
}

# import_tiny: the built-in image, public, unless it is there.
import_tiny() {
    local image
    image=$(api GET "/images" | jq -r '[.images[] | select(.name == "tiny" and .status == "READY")] | length') || return 1
    ((image == 0)) || return 0
    cloud image import --name tiny --file "$("$root_dir/images/tiny/build.sh")" --public --wait
}

# restart_dead_daemons: what a service manager does on a real host.
restart_dead_daemons() {
    local name
    for name in api-gateway "${agents[@]}"; do
        daemon_alive "$name" && continue
        note "cloud-$name ended; starting it again (log: $logs_dir/$name.log)"
        start_daemon "$name"
    done
}

stop_daemons_of_cloud() {
    local name pid
    # Agents first: the gateway then records nothing about what is taken down below it.
    for name in "${agents[@]}" api-gateway; do
        pid=$(cat "$daemons_dir/$name.pid" 2> /dev/null) || continue
        end_process "$pid" "cloud-$name" 20
        rm -f "$daemons_dir/$name.pid"
    done
}

# our_cloud_id: the id that this cloud's objects on the host carry, as the gateway wrote it. Fails where there is none: without it nobody can
# tell what is ours, so nobody can say that nothing is.
our_cloud_id() {
    [[ -s $state_dir/cloud-id ]] || {
        note "there is no cloud id in $state_dir/cloud-id"
        return 1
    }
    cat "$state_dir/cloud-id"
}

# may_have_objects: the gateway got so far as to have an id. Before that no agent was called, and nothing on the host can be ours.
may_have_objects() { [[ -s $state_dir/cloud-id ]]; }

# The functions below say what is there by printing it, and fail when they could not look: a command that failed printed nothing as well.

# our_domains [VIRSH_LIST_OPTION...]: names of the guests that carry this cloud's id.
our_domains() {
    local id names name xml
    id=$(our_cloud_id) || return 1
    names=$(virsh -q -c qemu:///system list --name "$@") || return 1
    for name in $names; do
        [[ $name == cloud-* ]] || continue
        if ! xml=$(virsh -q -c qemu:///system dumpxml "$name" 2> /dev/null); then
            # Another's guest may have gone in between; one that is still listed could not be looked at.
            names=$(virsh -q -c qemu:///system list --name "$@") || return 1
            ! grep -qxF "$name" <<< "$names" || return 1
            continue
        fi
        if [[ $xml == *"$id"* ]]; then echo "$name"; fi
    done
}

# our_ports: names of the guests' switch ports of this cloud (the bridge and its DHCP port are the agent's own).
our_ports() {
    local id ports
    id=$(our_cloud_id) || return 1
    ports=$(ovs-vsctl --timeout=10 --bare --columns=name find Interface "external_ids:cloud-id=$id" 'external_ids:cloud-port-id!=none') ||
        return 1
    sed '/^$/d' <<< "$ports"
}

# our_flows: what is programmed on this cloud's bridge; nothing where there is no bridge.
our_flows() {
    local flows status=0
    ovs-vsctl --timeout=10 br-exists "$bridge" || status=$?
    # 2 is its way to say no (ovs-vsctl(8)); anything else that is not 0 is a failure to look.
    ((status != 2)) || return 0
    ((status == 0)) || return 1
    # In the agent's own version of the protocol: older ones cannot say what these flows do, and the command fails.
    flows=$(ovs-ofctl -O OpenFlow14 dump-flows --no-stats "$bridge") || return 1
    sed -n '/actions=/s/^ *//p' <<< "$flows" | sort
}

# our_processes [NAME]: "pid command" of processes that have this cloud's state directory among their arguments: daemons and guests, or
# those whose program's name has NAME in it.
our_processes() {
    local processes status=0
    processes=$(pgrep -a "${1:-.}") || status=$?
    # 1: none at all (pgrep(1)).
    ((status <= 1)) || return 1
    status=0
    grep -F -- "$state_dir" <<< "$processes" || status=$?
    ((status <= 1))
}

# stop_guests: asks all of them to shut down, and switches off those that have not within 30 s. They count as taken down by
# their host, so that they start again with the cloud.
stop_guests() {
    local id
    may_have_objects || return 0
    id=$(our_cloud_id) || return 1
    "$bin_dir/cloud-compute-agent" --state-dir "$state_dir" guests stop --cloud-id "$id" --grace 30
}

# remove_network: bridge and taps, which the network-agent makes anew from the gateway's database.
remove_network() {
    local id
    may_have_objects || return 0
    id=$(our_cloud_id) || return 1
    "$bin_dir/cloud-network-agent" cleanup --bridge "$bridge" --cloud-id "$id"
}

# cloud_stop USER: everything down, state kept.
cloud_stop() {
    stop_daemons_of_cloud
    stop_guests
    remove_network
    "$root_dir/deploy/services.sh" stop "$1"
    rm -f "$run_dir/env"
}
