#!/usr/bin/env bash
# The functions that say what a cloud has on the host (deploy/lib/cloud.sh) fail when they cannot look, instead of printing nothing: the
# demonstration takes nothing printed for nothing left. Needs no hypervisor and no switch; their commands are replaced here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../../deploy/lib/common.sh
. "$here/../../deploy/lib/common.sh"
# shellcheck source=../../deploy/lib/cloud.sh
. "$here/../../deploy/lib/cloud.sh"

state_dir=$(mktemp -d)
trap 'rm -rf "$state_dir"' EXIT
bridge=br-nonesuch
passed=0
failed=0

# What the replaced commands answer with.
virsh_list='cloud-one' virsh_list_status=0 virsh_xml='<id>the-id</id>' virsh_xml_status=0
ovs_ports='tap1' ovs_status=0 bridge_status=0 ofctl_status=0 pgrep_status=0
virsh() {
    case "$*" in
        *' list '*)
            echo "$virsh_list"
            return "$virsh_list_status"
            ;;
        *' dumpxml '*)
            echo "$virsh_xml"
            return "$virsh_xml_status"
            ;;
    esac
}
ovs-vsctl() {
    case "$*" in
        *br-exists*) return "$bridge_status" ;;
        *)
            echo "$ovs_ports"
            return "$ovs_status"
            ;;
    esac
}
ovs-ofctl() {
    echo ' table=0 actions=drop'
    return "$ofctl_status"
}
pgrep() {
    echo "17 qemu-system-x86_64 $state_dir/disk"
    return "$pgrep_status"
}

# check NAME EXPECTED COMMAND...: EXPECTED is what it prints, or `fails`.
check() {
    local name=$1 expected=$2 is
    shift 2
    is=$("$@" 2> /dev/null) || is=fails
    if [[ $is == "$expected" ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name: wanted '$expected', got '$is'"
    fi
}

check 'domains without a cloud id' fails our_domains --all
check 'ports without a cloud id' fails our_ports
: > "$state_dir/cloud-id"
check 'domains with an empty cloud id' fails our_domains --all
echo the-id > "$state_dir/cloud-id"

check 'a domain of ours' cloud-one our_domains --all
check 'a port of ours' tap1 our_ports
check 'a flow' 'table=0 actions=drop' our_flows
check 'a process' "17 qemu-system-x86_64 $state_dir/disk" our_processes qemu-system

virsh_xml='<id>another</id>' check "another's domain" '' our_domains --all
virsh_list_status=1 check 'virsh list fails' fails our_domains --all
virsh_xml_status=1 check 'a domain that is there cannot be read' fails our_domains --all
ovs_status=1 check 'ovs-vsctl find fails' fails our_ports
ovs_ports='' check 'no port' '' our_ports
bridge_status=2 check 'there is no bridge' '' our_flows
bridge_status=142 check 'ovs-vsctl br-exists runs into its deadline' fails our_flows
ofctl_status=1 check 'ovs-ofctl fails' fails our_flows
pgrep_status=1 check 'pgrep fails to look' fails eval 'pgrep() { return 2; }; our_processes'
pgrep_status=1 check 'no process' '' eval 'pgrep() { return 1; }; our_processes'

echo "$passed passed, $failed failed"
((failed == 0))
