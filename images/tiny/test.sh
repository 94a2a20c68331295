#!/usr/bin/env bash
# Boots the image `tiny` under emulation with cloud-init seeds and checks what it promises.
#
#   images/tiny/test.sh [IMAGE.qcow2]     default: builds it
#
# Ends with a line "N passed, N failed" and fails when anything failed. Needs no root and no network beyond loopback.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=${1:-$("$here/build.sh")}
image=$(realpath "$image")
export PATH=$PATH:/usr/sbin:/sbin

work=$(mktemp -d)
qemu_pid=
finish() {
    if [[ -n $qemu_pid ]]; then kill -KILL "$qemu_pid" 2> /dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT

passed=0
failed=0
now_ms() { date +%s%3N; }

# check WHAT COMMAND...: one assertion.
check() {
    local what=$1
    shift
    if "$@" > /dev/null 2>&1; then
        echo "ok      $what"
        passed=$((passed + 1))
    else
        echo "FAILED  $what"
        failed=$((failed + 1))
    fi
}

# within SECONDS COMMAND...: true as soon as the command is.
within() {
    local end=$(($(now_ms) + $1 * 1000))
    shift
    until "$@"; do
        (($(now_ms) < end)) || return 1
        sleep 0.05
    done
}

# seed FILE USER_DATA META_DATA: a FAT volume labelled CIDATA.
seed() {
    rm -f "$1"
    truncate -s 1M "$1"
    MTOOLS_SKIP_CHECK=1 mformat -i "$1" -T 2048 -h 16 -s 63 -v CIDATA ::
    printf '%s\n' "$2" > "$work/user-data"
    printf '%s\n' "$3" > "$work/meta-data"
    mcopy -i "$1" "$work/user-data" ::/user-data
    mcopy -i "$1" "$work/meta-data" ::/meta-data
}

# boot DISK SEED MEMORY_MIB: QMP is on the coprocess's own pipe, so no socket is left behind.
boot() {
    console=$work/console.log
    : > "$console"
    hello_port=$((20000 + RANDOM % 10000))
    ssh_port=$((hello_port + 10000))
    coproc QEMU {
        exec qemu-system-x86_64 -M q35 -accel tcg -m "$3" -smp 1 -nodefaults -display none -no-reboot \
            -serial "file:$console" -qmp stdio \
            -drive "file=$1,format=qcow2,if=virtio" -drive "file=$2,format=raw,if=virtio,readonly=on" \
            -device virtio-rng-pci -device virtio-net-pci,netdev=n,romfile= \
            -netdev "user,id=n,hostfwd=tcp:127.0.0.1:$hello_port-:7777,hostfwd=tcp:127.0.0.1:$ssh_port-:22" 2> "$work/qemu.log"
    }
    # shellcheck disable=SC2153  # set by coproc
    qemu_pid=$QEMU_PID
    exec {qmp_in}>&"${QEMU[1]}" {qmp_out}<&"${QEMU[0]}"
    started=$(now_ms)
}

qmp() { echo "{\"execute\":\"$1\"}" >&"$qmp_in"; }
on_console() { grep -qE -- "$1" <<< "$(tr -d '\r\0' < "$console")"; }
ended() { ! kill -0 "$qemu_pid" 2> /dev/null; }
hello() {
    local line=
    { exec {socket}<> "/dev/tcp/127.0.0.1/$hello_port"; } 2> /dev/null || return 1
    read -r -t 3 line <&"$socket" || true
    exec {socket}<&-
    [[ $line == "hello from $1 eth0 10.0.2."* ]]
}
ssh_in() {
    timeout 60 dbclient -y -y -i "$work/key" -p "$ssh_port" root@127.0.0.1 "$@" < /dev/null 2> /dev/null
}
another_key() {
    dropbearkey -t ed25519 -f "$work/other" > /dev/null 2>&1
    dbclient -y -y -i "$work/other" -p "$ssh_port" root@127.0.0.1 true < /dev/null > "$work/refused" 2>&1 && return 1
    grep -qi 'auth' "$work/refused"
}
ssh_says() { [[ $(ssh_in hostname) == "$1" ]]; }

power_button() {
    local pressed
    qmp qmp_capabilities
    qmp system_powerdown
    pressed=$(now_ms)
    check "$1: the power button switches it off within 5 s" within 5 ended
    if ended; then
        echo "        after $(($(now_ms) - pressed)) ms"
    else
        kill -KILL "$qemu_pid"
    fi
    wait "$qemu_pid" 2> /dev/null || true
    qemu_pid=
    exec {qmp_in}>&- {qmp_out}<&-
}

dropbearkey -t ed25519 -f "$work/key" > /dev/null 2>&1
public_key=$(dropbearkey -y -f "$work/key" | grep '^ssh-ed25519')
qemu-img create -q -f qcow2 -b "$image" -F qcow2 "$work/disk.qcow2"

# The script counts its runs on the disk: it runs at each boot, and /data stays.
# shellcheck disable=SC2016  # the guest expands it
script='#!/bin/sh
echo run >> /data/runs
echo "user-data run $(wc -l < /data/runs) as $(hostname)"'
meta="instance-id: i-1
local-hostname: web-01
public-keys:
  - $public_key"

seed "$work/script.img" "$script" "$meta"
boot "$work/disk.qcow2" "$work/script.img" 128
check "script: a login prompt with the seed's hostname within 30 s" within 30 on_console '^web-01 login: '
echo "        after $(($(now_ms) - started)) ms"
check "script: the address is on the console" within 10 on_console '^tiny: eth0 10\.0\.2\.[0-9]+/24$'
check "script: ready" within 10 on_console '^tiny: ready$'
check "script: user-data ran, its output is on the console" within 10 on_console '^user-data run 1 as web-01$'
check "script: its exit status too" within 10 on_console '^tiny: user-data exited with status 0$'
check "script: port 7777 answers" within 20 hello web-01
check "script: ssh with the seed's key" ssh_says web-01
check "script: ssh refuses another key" another_key
power_button script

boot "$work/disk.qcow2" "$work/script.img" 96
check "second boot: user-data ran again, in 96 MiB, and /data stayed" within 40 on_console '^user-data run 2 as web-01$'
power_button "second boot"

config="#cloud-config
hostname: db-01
ssh_authorized_keys:
  - \"$public_key\"
packages:
  - nginx
runcmd:
  - echo \"runcmd on \$(hostname)\"
  - 'echo second'"
seed "$work/config.img" "$config" 'instance-id: i-2'
boot "$work/disk.qcow2" "$work/config.img" 128
check "cloud-config: hostname" within 30 on_console '^db-01 login: '
check "cloud-config: runcmd" within 10 on_console '^runcmd on db-01$'
check "cloud-config: runcmd, quoted" within 10 on_console '^second$'
check "cloud-config: what is not supported is named" on_console "^tiny: cloud-config 'packages' is not supported"
check "cloud-config: ssh key" ssh_says db-01
power_button cloud-config

if ((failed > 0)); then
    echo "--- console of the last boot"
    cat "$console"
    cat "$work/qemu.log"
fi
echo "$passed passed, $failed failed"
((failed == 0))
