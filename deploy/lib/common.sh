# shellcheck shell=bash
# Shared by the scripts of deploy/; sourced, never run.

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# What belongs to a run rather than to the cloud: logs, pid files, `.run/env`.
run_dir=${CLOUD_RUN_DIR:-$root_dir/.run}
# Administrators' tools are not on every user's path.
export PATH=$PATH:/usr/sbin:/sbin

die() {
    echo "error: $*" >&2
    exit 1
}

note() { echo "$*" >&2; }

now_ms() { date +%s%3N; }

# as_root COMMAND...: the hypervisor and the switch belong to root.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        die "'$1' needs root, and there is no sudo: run this as root"
    fi
}

# within SECONDS COMMAND...: true as soon as the command is, false when the time is over.
within() {
    local end=$(($(now_ms) + $1 * 1000))
    shift
    until "$@" > /dev/null 2>&1; do
        (($(now_ms) < end)) || return 1
        sleep 0.1
    done
}

has_systemd() { [[ -d /run/systemd/system ]]; }

# process_is PID NAME: the process is alive and runs that program (a pid file may be older than the machine's uptime).
process_is() {
    local executable
    [[ $1 =~ ^[0-9]+$ ]] || return 1
    executable=$(as_root readlink "/proc/$1/exe" 2> /dev/null) || return 1
    # A program that was rebuilt under a running process is shown as deleted.
    executable=${executable% (deleted)}
    [[ ${executable##*/} == "$2" ]] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2> /dev/null
}

# end_process PID NAME SECONDS: asks it to end, and insists when the time is over.
end_process() {
    process_is "$1" "$2" || return 0
    as_root kill -TERM "$1" 2> /dev/null || true
    if ! within "$3" process_gone "$1" "$2"; then
        note "$2 ($1) did not end within $3 s and was killed"
        as_root kill -KILL "$1" 2> /dev/null || true
        within 5 process_gone "$1" "$2" || die "$2 ($1) cannot be ended"
    fi
}

process_gone() { ! process_is "$1" "$2"; }

# Where no udev runs, the device has the kernel's owner and mode. libvirt's root may then open it and QEMU's user may not, over which libvirt
# asks QEMU anew what it can do, for seconds and at every call. Owner and mode are those of udev's own rule.
give_kvm_to_its_group() {
    [[ -c /dev/kvm && $(stat -c %a:%G /dev/kvm) == 600:root ]] && getent group kvm > /dev/null || return 0
    as_root chgrp kvm /dev/kvm
    as_root chmod 660 /dev/kvm
}
