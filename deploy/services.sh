#!/usr/bin/env bash
# The services that a host of the cloud stands on: libvirtd (with virtlogd) and Open vSwitch.
#
#   deploy/services.sh start [USER]    starts those that do not run; USER (default: operator) is who needs them
#   deploy/services.sh stop [USER]     stops those that an earlier `start` started, once nobody needs them any more
#   deploy/services.sh status          says what runs; fails when something does not
#
# Under systemd they are units. Elsewhere (a container) they are started as daemons on the system's default sockets,
# with their pid files in .run/services. What was running before is never stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"

state=$run_dir/services
readonly libvirt_socket=/run/libvirt/libvirt-sock virtlogd_socket=/run/libvirt/virtlogd-sock
readonly ovs_run=/run/openvswitch ovs_database=/etc/openvswitch/conf.db
readonly ovs_schema=/usr/share/openvswitch/vswitch.ovsschema

libvirt_answers() { as_root timeout 5 virsh -q -c qemu:///system version > /dev/null 2>&1; }
ovsdb_answers() { as_root ovs-vsctl --timeout=3 --no-wait get Open_vSwitch . _uuid > /dev/null 2>&1; }
switch_answers() { as_root ovs-appctl -T 3 -t ovs-vswitchd version > /dev/null 2>&1; }
virtlogd_answers() { as_root timeout 3 virt-admin -c virtlogd:///system srv-list > /dev/null 2>&1; }

# --- with systemd

unit_exists() { systemctl cat "$1" > /dev/null 2>&1; }

# start_unit UNIT: remembers it only if it was not active.
start_unit() {
    systemctl is-active --quiet "$1" && return
    as_root systemctl start "$1" || die "systemctl start $1 failed; see journalctl -u $1"
    echo "$1" >> "$state/units"
}

start_with_systemd() {
    start_unit openvswitch-switch.service
    # With modular daemons (virtqemud) there is no libvirtd unit, and sockets start what is needed.
    if unit_exists libvirtd.service; then
        start_unit libvirtd.service
    else
        start_unit virtqemud.socket
        start_unit virtlogd.socket
    fi
}

stop_with_systemd() {
    [[ -e $state/units ]] || return 0
    local unit
    while read -r unit; do
        # Its sockets would start it again at the next connection; they stay, as the distribution has them.
        as_root systemctl stop "$unit"
    done < <(tac "$state/units")
    rm -f "$state/units"
}

# --- without systemd

# daemon NAME COMMAND...: runs a program that puts itself into the background.
daemon() {
    local name=$1
    shift
    if ! as_root "$@" > "$state/$name.log" 2>&1 < /dev/null; then
        cat "$state/$name.log" >&2
        die "$name did not start"
    fi
}

# remember NAME PID: `stop` ends this very process, not one that somebody else started later.
remember() { echo "$1 $2" >> "$state/daemons"; }

parent_of() { ps -o ppid= -p "$1" | tr -d ' '; }

start_libvirt() {
    libvirt_answers && return
    give_kvm_to_its_group
    # The one that holds the system's pid file: others have sockets of their own.
    local running
    running=$(as_root cat /run/libvirtd.pid 2> /dev/null || true)
    if [[ -n $running ]] && process_is "$running" libvirtd; then
        die "libvirtd runs (pid $running) but does not answer on $libvirt_socket"
    fi
    as_root mkdir -p /run/libvirt /var/log/libvirt
    # Guests' consoles go through virtlogd, which libvirtd does not start by itself.
    if ! virtlogd_answers; then
        as_root rm -f "$virtlogd_socket"
        daemon virtlogd virtlogd --daemon
        remember virtlogd "$(< /run/virtlogd.pid)"
    fi
    as_root rm -f "$libvirt_socket" "$libvirt_socket-ro"
    daemon libvirtd libvirtd --daemon
    remember libvirtd "$(< /run/libvirtd.pid)"
    within 30 libvirt_answers || die "libvirtd does not answer; see $state/libvirtd.log and /var/log/libvirt"
}

# start_ovs_daemon NAME ARGUMENT...: under a monitor, which starts it again at once if it dies, since guests' traffic
# stands still without it. The monitor is what `stop` will look for.
start_ovs_daemon() {
    local name=$1
    shift
    daemon "$name" "$name" "$@" --pidfile --detach --monitor -vconsole:off -vsyslog:off \
        --log-file="/var/log/openvswitch/$name.log"
    remember "$name" "$(parent_of "$(< "$ovs_run/$name.pid")")"
}

start_ovsdb() {
    if ! as_root test -s "$ovs_database"; then
        as_root ovsdb-tool create "$ovs_database" "$ovs_schema"
    elif [[ $(as_root ovsdb-tool needs-conversion "$ovs_database" "$ovs_schema") == yes ]]; then
        as_root ovsdb-tool convert "$ovs_database" "$ovs_schema"
    fi
    start_ovs_daemon ovsdb-server "$ovs_database" --remote="punix:$ovs_run/db.sock"
    within 10 ovsdb_answers || die "ovsdb-server does not answer; see /var/log/openvswitch/ovsdb-server.log"
    # What the distribution's start script records.
    as_root ovs-vsctl --timeout=10 --no-wait init -- set Open_vSwitch . \
        db-version="$(ovsdb-tool schema-version "$ovs_schema")" \
        ovs-version="$(ovs-vswitchd --version | sed -n 's/.*(Open vSwitch) //p')" \
        external_ids:hostname="$(hostname)" external_ids:rundir="$ovs_run"
    if [[ -z $(as_root ovs-vsctl --timeout=10 --no-wait --if-exists get Open_vSwitch . external_ids:system-id) ]]; then
        as_root ovs-vsctl --timeout=10 --no-wait set Open_vSwitch . \
            external_ids:system-id="$(< /proc/sys/kernel/random/uuid)"
    fi
}

start_open_vswitch() {
    as_root mkdir -p "$ovs_run" /etc/openvswitch /var/log/openvswitch
    ovsdb_answers || start_ovsdb
    switch_answers || start_ovs_daemon ovs-vswitchd "unix:$ovs_run/db.sock"
    within 30 switch_answers || die "ovs-vswitchd does not answer; see /var/log/openvswitch/ovs-vswitchd.log"
}

# Backwards: libvirtd before virtlogd, the switch before its database.
stop_daemons() {
    [[ -e $state/daemons ]] || return 0
    local name pid
    while read -r name pid; do
        case $name in
            # Asked by name they end in order, monitor included; a signal to the monitor would leave the child.
            ovs-vswitchd | ovsdb-server)
                process_is "$pid" "$name" || continue
                as_root ovs-appctl -T 5 -t "$name" exit > /dev/null || true
                end_process "$pid" "$name" 10
                ;;
            *) end_process "$pid" "$name" 15 ;;
        esac
    done < <(tac "$state/daemons")
    rm -f "$state/daemons"
}

# --- who needs them

# needed: some user of the services is there. Users other than the operator are known by the process that asked, so
# one that died does not keep the services for ever.
needed() {
    local file pid
    for file in "$state"/users/*; do
        [[ -e $file ]] || continue
        pid=$(< "$file")
        if [[ $pid == operator ]] || [[ -d /proc/$pid ]]; then return 0; fi
        rm -f "$file"
    done
    return 1
}

start() {
    mkdir -p "$state/users"
    # One at a time: two that start together must not both create the switch's database.
    exec 9> "$state/lock"
    flock 9
    # Not inherited by the daemons: they would keep the lock.
    if has_systemd; then start_with_systemd 9>&-; else
        start_libvirt 9>&-
        start_open_vswitch 9>&-
    fi
    if has_systemd; then
        within 60 libvirt_answers || die "libvirt does not answer on qemu:///system; see journalctl -u libvirtd"
        within 30 switch_answers || die "Open vSwitch does not answer; see journalctl -u ovs-vswitchd"
    fi
    if [[ $1 == operator ]]; then echo operator; else echo "$PPID"; fi > "$state/users/$1"
}

stop() {
    mkdir -p "$state/users"
    exec 9> "$state/lock"
    flock 9
    rm -f "$state/users/$1"
    if needed; then
        note "services stay: still needed by $(ls "$state/users")"
        return
    fi
    stop_with_systemd
    stop_daemons
}

status() {
    local failed=0 pair
    for pair in libvirt:libvirt_answers ovsdb:ovsdb_answers ovs-vswitchd:switch_answers; do
        if "${pair#*:}"; then
            echo "${pair%%:*}: running"
        else
            echo "${pair%%:*}: not running"
            failed=1
        fi
    done
    return "$failed"
}

case ${1:-} in
    start) start "${2:-operator}" ;;
    stop) stop "${2:-operator}" ;;
    status) status ;;
    *) die "usage: deploy/services.sh start|stop [USER] | status" ;;
esac
