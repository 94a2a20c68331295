# shellcheck shell=bash
# Several hosts on one machine. Sourced after common.sh and cloud.sh; runs as root.
#
# A host is a network namespace, and in it a mount namespace in which the directories that a host's daemons own (host_trees) are the host's
# own. There run a switch, a hypervisor and the three agents, each with the paths, sockets and names it would have on a machine of its own;
# the guests run there too. Only the wires are made up: two bridges in a namespace of their own.
#
#     this machine --- control ---+--- h1 --- h2 --- h3      the gateway and the agents
#                      tunnels ---+--- h1 --- h2 --- h3      Geneve, between the hosts alone
#
# Everything is found again by name and directory, so that whoever comes after a SIGKILL of everything takes it up or clears it away. What is in
# a host's network namespace is ours: nobody else starts anything there.

# What a host has of its own, below the directory of the host.
host_trees=(/run/libvirt /var/lib/libvirt /etc/libvirt/qemu /var/log/libvirt /var/cache/libvirt /run/openvswitch /etc/openvswitch
    /var/log/openvswitch /etc/thecloud /var/lib/thecloud)
host_services=(ovsdb-server ovs-vswitchd virtlogd libvirtd)
most_hosts=16
# What our scripts are told is not meant for a host's daemons, whose flags are called the same.
clean_environment=(env -u CLOUD_STATE_DIR -u CLOUD_LISTEN -u CLOUD_CONFIG -u CLOUD_BRIDGE -u CLOUD_RUN_DIR -u CLOUD_GATEWAY)

# hosts_configure NAME UNDERLAY: what namespaces and devices are called after, and the first two numbers of the wires' addresses.
hosts_configure() {
    [[ $1 =~ ^[a-z][a-z0-9]{0,7}$ ]] || die "CLOUD_HOSTS_NAME=$1 must be one to eight small letters and digits"
    [[ $state_dir =~ ^/[A-Za-z0-9/._-]+$ ]] || die "CLOUD_STATE_DIR=$state_dir must be an absolute path of letters, digits, '.', '_' and '-'"
    [[ $2 =~ ^[0-9]{1,3}\.[0-9]{1,3}$ ]] || die "CLOUD_UNDERLAY=$2 must be two numbers, such as 198.18"
    hosts_name=$1
    underlay=$2
    wires=$hosts_name-wires
    gateway_device=$hosts_name-gw
    gateway_address=$underlay.0.1
    # Where lib/cloud.sh has the gateway listen for agents.
    agents_address=$gateway_address:8443
    hosts_run=$run_dir/hosts
}

netns_exists() { [[ -e /run/netns/$1 ]] && ip netns list | grep -qE "^$1( |$)"; }
netns_of() { echo "$hosts_name-$1"; }
host_dir() { echo "$state_dir/hosts/$1"; }
host_number() { echo "${1#h}"; }
control_address() { echo "$underlay.0.$((10 + $(host_number "$1")))"; }
tunnel_address() { echo "$underlay.1.$((10 + $(host_number "$1")))"; }

# present_hosts: those that have a namespace.
present_hosts() { ip netns list | sed -n "s/^$hosts_name-\(h[0-9]*\)\( .*\)\?$/\1/p" | sort -V; }

is_host() { [[ $1 =~ ^h[0-9]+$ ]] && netns_exists "$(netns_of "$1")"; }

# --- processes of a host

pid_file() { echo "$hosts_run/$1/$2.pid"; }
program_of() {
    case $1 in
        *-agent) echo "cloud-$1" ;;
        holder) echo sleep ;;
        *) echo "$1" ;;
    esac
}

# runs_in_host HOST NAME
runs_in_host() {
    local pid
    pid=$(cat "$(pid_file "$1" "$2")" 2> /dev/null) && process_is "$pid" "$(program_of "$2")"
}

# in_host HOST COMMAND...: where the host's daemons are.
in_host() {
    local holder
    holder=$(< "$(pid_file "$1" holder)")
    nsenter --target "$holder" --net --mount --uts -- "${clean_environment[@]}" "${@:2}"
}

# spawn_in_host HOST NAME COMMAND...: in a session of its own, like start_daemon.
spawn_in_host() {
    local host=$1 name=$2 holder
    shift 2
    holder=$(< "$(pid_file "$host" holder)")
    setsid nsenter --target "$holder" --net --mount --uts -- "${clean_environment[@]}" "$@" >> "$logs_dir/$host/$name.log" 2>&1 < /dev/null 8>&- &
    echo $! > "$(pid_file "$host" "$name")"
    # Or the shell says how each of them ended.
    disown
}

# hold_host HOST: a process that keeps the host's namespaces, for the others to enter. Its directories are mounted there alone.
hold_host() {
    runs_in_host "$1" holder && return
    local dir tree script
    dir=$(host_dir "$1")
    mkdir -p "$dir/run/cgroup"
    # /sys shows the devices of the namespace that it was mounted in; libvirt needs the control groups that are mounted below it.
    script="mount --rbind /sys/fs/cgroup '$dir/run/cgroup'; umount --lazy --recursive /sys; mount -t sysfs sysfs /sys; "
    script+="mount --move '$dir/run/cgroup' /sys/fs/cgroup; "
    for tree in "${host_trees[@]}"; do
        mkdir -p "$dir$tree"
        # Something has to be there to mount it on.
        [[ -d $tree ]] || echo "$tree" >> "$hosts_run/mountpoints"
        mkdir -p "$tree"
        script+="mount --bind '$dir$tree' '$tree'; "
    done
    # A boot of its own, which ends with power_off.
    [[ -s $dir/run/boot-id ]] || cat /proc/sys/kernel/random/uuid > "$dir/run/boot-id"
    script+="mount --bind '$dir/run/boot-id' /proc/sys/kernel/random/boot_id; "
    # shellcheck disable=SC2016
    setsid nsenter "--net=/run/netns/$(netns_of "$1")" unshare --mount --uts --propagation private \
        sh -ec "$script"'hostname "$1"; exec sleep infinity' - "$1" \
        >> "$logs_dir/$1/holder.log" 2>&1 < /dev/null 8>&- &
    echo $! > "$(pid_file "$1" holder)"
    disown
    within 10 runs_in_host "$1" holder || die "cannot make the namespaces of $1; see $logs_dir/$1/holder.log"
}

host_database_answers() { in_host "$1" ovs-vsctl --timeout=3 --no-wait get Open_vSwitch . _uuid; }
host_switch_answers() { in_host "$1" ovs-appctl -T 3 -t ovs-vswitchd version; }
host_libvirt_answers() { in_host "$1" timeout 5 virsh -q -c qemu:///system version; }

# start_host_service HOST NAME: unless it runs.
start_host_service() {
    runs_in_host "$1" "$2" && return
    local dir rundir=/run/openvswitch
    dir=$(host_dir "$1")
    case $2 in
        ovsdb-server)
            [[ -s $dir/etc/openvswitch/conf.db ]] ||
                ovsdb-tool create "$dir/etc/openvswitch/conf.db" /usr/share/openvswitch/vswitch.ovsschema
            rm -f "$dir$rundir"/{db.sock,ovsdb-server.pid}
            spawn_in_host "$1" "$2" ovsdb-server /etc/openvswitch/conf.db --remote="punix:$rundir/db.sock" --pidfile -vsyslog:off
            within 10 host_database_answers "$1" || die "the switch's database of $1 does not answer; see $logs_dir/$1/ovsdb-server.log"
            in_host "$1" ovs-vsctl --timeout=10 --no-wait init -- set Open_vSwitch . external_ids:hostname="$1" \
                ovs-version="$(ovs-vswitchd --version | sed -n 's/.*(Open vSwitch) //p')"
            ;;
        ovs-vswitchd)
            rm -f "$dir$rundir/ovs-vswitchd.pid"
            spawn_in_host "$1" "$2" ovs-vswitchd "unix:$rundir/db.sock" --pidfile -vsyslog:off
            within 20 host_switch_answers "$1" || die "the switch of $1 does not answer; see $logs_dir/$1/ovs-vswitchd.log"
            give_tunnel_address "$1"
            ;;
        virtlogd)
            rm -f "$dir/run/libvirt/virtlogd-sock"
            spawn_in_host "$1" "$2" virtlogd --pid-file /run/libvirt/virtlogd.pid
            ;;
        libvirtd)
            rm -f "$dir"/run/libvirt/libvirt-sock{,-ro,-admin}
            spawn_in_host "$1" "$2" libvirtd --pid-file /run/libvirt/libvirtd.pid
            ;;
    esac
}

# give_tunnel_address HOST: the cable for tunnels is a port of a bridge that has the tunnels' address, as a switch in userspace needs it. The
# device of such a bridge dies with its daemon. Where the database has the bridge already there is nothing to change, and nothing is waited for.
give_tunnel_address() {
    in_host "$1" ovs-vsctl --timeout=10 --may-exist add-br br-phy -- set bridge br-phy datapath_type=netdev \
        -- --may-exist add-port br-phy tunnels
    within 20 in_host "$1" ip link show dev br-phy ||
        die "the switch of $1 does not make br-phy; see $logs_dir/$1/ovs-vswitchd.log"
    in_host "$1" ip addr replace "$(tunnel_address "$1")/24" dev br-phy
    in_host "$1" ip link set dev br-phy up
}

start_host_services() {
    local name
    mkdir -p "$hosts_run/$1" "$logs_dir/$1" "$(host_dir "$1")/run"
    chmod 755 "$(host_dir "$1")"
    plug_host "$1"
    mount_disk "$1"
    hold_host "$1"
    for name in "${host_services[@]}"; do start_host_service "$1" "$name"; done
    within 60 host_libvirt_answers "$1" || die "libvirt of $1 does not answer; see $logs_dir/$1/libvirtd.log"
}

# has_joined HOST: and its certificates count for some days still. (Agents renew them when 20 of 30 days have passed.)
has_joined() {
    local dir agent
    dir=$(host_dir "$1")
    for agent in "${agents[@]}"; do [[ -s $dir/etc/thecloud/$agent.toml ]] || return 1; done
    [[ -z $(find "$dir/var/lib/thecloud/tls" -name '*.pem' ! -name '*.ca.pem' -mtime +27) ]]
}

# join_host HOST: with a token, as an operator would; once. A host that was in the cloud before gets one that is bound to it, and keeps its id.
join_host() {
    local token again=()
    has_joined "$1" && return
    if [[ -s $(host_dir "$1")/var/lib/thecloud/host-id ]] && token=$(cloud host token create --host "$1" 2> /dev/null); then
        again=(--again)
    else
        token=$(cloud host token create)
    fi
    in_host "$1" "$bin_dir/cloud-agent-join" - --no-start --address "$(control_address "$1")" --tunnel-address "$(tunnel_address "$1")" \
        --network datapath=netdev "${again[@]}" <<< "$token" >> "$logs_dir/$1/join.log" 2>&1 ||
        die "$1 did not join: $(tail -n 1 "$logs_dir/$1/join.log")"
}

# host_agent_command HOST AGENT: its argument vector, into the array `command`.
host_agent_command() {
    local total
    command=("$bin_dir/cloud-$2" --config "/etc/thecloud/$2.toml")
    if [[ $2 == compute-agent ]]; then
        # All hosts have the processors of the machine; its memory they share: that of its NUMA nodes, as libvirt counts it. Where memory was added
        # while it ran, /proc/meminfo may say another number.
        total=$(cat /sys/devices/system/node/node*/meminfo 2> /dev/null | awk '/ MemTotal:/ { sum += $4 } END { print int(sum / 1024) }')
        if ((total == 0)); then total=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo); fi
        command+=(--reserved-memory-mib $((total - total / hosts_count)))
    fi
}

start_host_agent() {
    local command=()
    runs_in_host "$1" "$2" && return
    host_agent_command "$1" "$2"
    [[ -x ${command[0]} ]] || die "${command[0]} is not built: run make build"
    spawn_in_host "$1" "$2" "${command[@]}"
}

# restart_dead_of_host HOST: what a service manager does; not where somebody ended them on purpose. Starts no program where all is well: it is
# asked every second.
restart_dead_of_host() {
    local name pid
    if [[ -e $hosts_run/$1/off ]]; then return; fi
    for name in holder "${host_services[@]}" "${agents[@]}"; do
        pid=
        if [[ -e $hosts_run/$1/$name.pid ]]; then read -r pid < "$hosts_run/$1/$name.pid" || true; fi
        if [[ -n $pid && -d /proc/$pid ]] || [[ $name == *-agent && -e $hosts_run/$1/no-agents ]]; then continue; fi
        note "$(program_of "$name") of $1 ended; starting it again (log: $logs_dir/$1/$name.log)"
        case $name in
            holder) hold_host "$1" ;;
            *-agent) start_host_agent "$1" "$name" ;;
            *) start_host_service "$1" "$name" ;;
        esac
    done
}

# --- a host's disk

# mount_disk HOST: where CLOUD_HOST_DISK_MIB says so, the host's state is on a file system of that size.
mount_disk() {
    local dir image
    [[ -n ${CLOUD_HOST_DISK_MIB:-} ]] || return 0
    dir=$(host_dir "$1")/var/lib/thecloud
    image=$(host_dir "$1")/disk.img
    mkdir -p "$dir"
    if mountpoint -q "$dir"; then return; fi
    if [[ ! -e $image ]]; then
        truncate -s "${CLOUD_HOST_DISK_MIB}M" "$image"
        mkfs.ext4 -q -m 0 "$image"
    fi
    mount -o loop "$image" "$dir"
}

unmount_disk() {
    local dir
    dir=$(host_dir "$1")/var/lib/thecloud
    if mountpoint -q "$dir"; then umount "$dir"; fi
}

# fill_disk HOST [MIB], empty_disk HOST: takes what is free of the disk where the host's state is, but for so many MiB, and gives it back.
fill_disk() {
    local dir free stay=${2:-0}
    dir=$(host_dir "$1")/var/lib/thecloud
    mountpoint -q "$dir" || die "$1 shares this machine's disk, which is not filled: begin with CLOUD_HOST_DISK_MIB=2048"
    [[ $stay =~ ^[0-9]+$ ]] || die "'$stay' is no number of MiB"
    rm -f "$dir/filled"
    free=$(df --output=avail -B1 "$dir" | tail -n 1)
    ((free > stay << 20)) || die "$1 has $((free >> 20)) MiB free"
    # The last of it is written, not reserved: the file system's own notes take some of it.
    fallocate -l $(((free - (stay << 20)) * 63 / 64)) "$dir/filled"
    free=$(df --output=avail -B1 "$dir" | tail -n 1)
    head -c $((free - (stay << 20))) /dev/zero >> "$dir/filled" 2> /dev/null || true
}
empty_disk() { rm -f "$(host_dir "$1")/var/lib/thecloud/filled"; }

# --- ending

# kill_agents HOST: SIGKILL to the three. They stay away until start_host.
kill_agents() {
    local name pid
    touch "$hosts_run/$1/no-agents"
    for name in "${agents[@]}"; do
        pid=$(cat "$(pid_file "$1" "$name")" 2> /dev/null) || continue
        if process_is "$pid" "cloud-$name"; then kill -KILL "$pid"; fi
    done
}

no_process_in() { [[ -z $(ip netns pids "$1") ]]; }

# kill_all_in HOST: whatever runs there, guests too.
kill_all_in() {
    local netns pid
    netns=$(netns_of "$1")
    # Twice, since what dies last may have begun something.
    for _ in 1 2; do
        for pid in $(ip netns pids "$netns"); do kill -KILL "$pid" 2> /dev/null || true; done
        within 10 no_process_in "$netns" || true
    done
    no_process_in "$netns" || die "processes of $1 cannot be ended: $(ip netns pids "$netns" | xargs)"
}

# power_off HOST: as if the plug were pulled. What was in memory is gone, /run too; the disks stay.
power_off() {
    local netns device
    netns=$(netns_of "$1")
    touch "$hosts_run/$1/off"
    kill_all_in "$1"
    for device in $(ip_in "$netns" -o link show type tun | awk -F '[ :@]+' '{ print $2 }'); do
        ip_in "$netns" link delete "$device"
    done
    rm -rf "$(host_dir "$1")/run"
    rm -f "$hosts_run/$1"/*.pid
}

stop_host_agents() {
    local name pid
    for name in "${agents[@]}"; do
        pid=$(cat "$(pid_file "$1" "$name")" 2> /dev/null) || continue
        end_process "$pid" "cloud-$name" 20
        rm -f "$(pid_file "$1" "$name")"
    done
}

# take_down_host HOST: guests are shut down, and whatever is left of the host but its directory goes. No agent of it runs any more.
take_down_host() {
    local name pid
    if [[ ! -e $hosts_run/$1/off ]] && may_have_objects; then
        start_host_services "$1"
        in_host "$1" "$bin_dir/cloud-compute-agent" guests stop --cloud-id "$(our_cloud_id)" --grace 30 || note "guests of $1 are cut off"
        in_host "$1" "$bin_dir/cloud-network-agent" cleanup --cloud-id "$(our_cloud_id)" || note "the bridge of $1 goes with its namespace"
    fi
    for name in libvirtd virtlogd ovs-vswitchd ovsdb-server; do
        pid=$(cat "$(pid_file "$1" "$name")" 2> /dev/null) || continue
        end_process "$pid" "$name" 5
    done
    remove_host "$1"
}

# remove_host HOST: its processes, its namespaces, what is mounted; the directory stays.
remove_host() {
    local netns
    netns=$(netns_of "$1")
    if netns_exists "$netns"; then
        kill_all_in "$1"
        ip netns delete "$netns"
    fi
    unmount_disk "$1"
    rm -rf "$(host_dir "$1")/run" "${hosts_run:?}/$1"
}

# remove_mountpoints: those that were made for hosts, where nobody uses them by now.
remove_mountpoints() {
    local tree
    [[ -e $hosts_run/mountpoints ]] || return 0
    while read -r tree; do rmdir "$tree" 2> /dev/null || true; done < "$hosts_run/mountpoints"
}
