# shellcheck shell=bash
# The wires between hosts on one machine: two bridges in a namespace of their own, and a cable from each to every host. Sourced after hosts.sh,
# which says what they are called; runs as root.

# ip_in NAMESPACE ARGUMENT...
ip_in() { ip -n "$@"; }

make_namespace() {
    netns_exists "$1" || ip netns add "$1"
    # With IPv6 every device has an address of its own accord, and the switch takes each for an end of tunnels.
    ip netns exec "$1" sysctl -eqw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip_in "$1" link set dev lo up
}

# join_wire BRIDGE NAME: takes an end of a cable.
join_wire() {
    ip_in "$wires" link set dev "$2" master "$1" up
}

make_wires() {
    local bridge used
    make_namespace "$wires"
    for bridge in control tunnels; do
        ip_in "$wires" link show dev "$bridge" > /dev/null 2>&1 || ip_in "$wires" link add "$bridge" type bridge
        ip_in "$wires" link set dev "$bridge" up
    done
    if ! ip link show dev "$gateway_device" > /dev/null 2>&1; then
        used=$(ip -4 route show to match "$gateway_address" | grep -v '^default' || true)
        [[ -z $used ]] || die "this machine uses $underlay.0.0/24 already ($used): choose other addresses with CLOUD_UNDERLAY"
        ip link add "$gateway_device" type veth peer name gateway netns "$wires"
        sysctl -eqw "net.ipv6.conf.$gateway_device.disable_ipv6=1"
    fi
    # A switch in userspace passes on packets as they are: their checksums have to be there.
    ethtool -K "$gateway_device" tx off > /dev/null
    ip addr replace "$gateway_address/24" dev "$gateway_device"
    ip link set dev "$gateway_device" up
    join_wire control gateway
}

# plug_host HOST: a cable into each bridge.
plug_host() {
    local netns wire
    netns=$(netns_of "$1")
    make_namespace "$netns"
    for wire in control tunnels; do
        if ! ip_in "$netns" link show dev "$wire" > /dev/null 2>&1; then
            # An end without the other is gone with it.
            ip_in "$netns" link add "$wire" type veth peer name "$wire-$1" netns "$wires"
            ip netns exec "$netns" ethtool -K "$wire" tx off > /dev/null
            join_wire "$wire" "$wire-$1"
        fi
        ip_in "$netns" link set dev "$wire" up
    done
    ip_in "$netns" addr replace "$(control_address "$1")/24" dev control
}

# cut_host HOST, mend_host HOST: pulls both cables out, and puts them in again.
cut_host() {
    ip_in "$wires" link set dev "control-$1" down
    ip_in "$wires" link set dev "tunnels-$1" down
}
mend_host() {
    ip_in "$wires" link set dev "control-$1" up
    ip_in "$wires" link set dev "tunnels-$1" up
}

remove_wires() {
    if ip link show dev "$gateway_device" > /dev/null 2>&1; then ip link delete "$gateway_device"; fi
    if netns_exists "$wires"; then ip netns delete "$wires"; fi
}
