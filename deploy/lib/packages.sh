# shellcheck shell=bash
# Debian and Ubuntu packages; sourced after common.sh.

# From backports where backports are in use: mixing QEMU or libvirt of two releases is refused by apt.
virtualization_packages=(qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients libvirt-dev)
other_packages=(openvswitch-switch dpkg-dev iproute2 iputils-ping procps kmod pkg-config gcc libc6-dev ca-certificates curl jq
    busybox-static dropbear-bin cpio gzip xz-utils zstd mtools syslinux syslinux-common ethtool tcpdump shellcheck)
# What only the tests need.
test_packages=(postgresql python3-venv mmdebstrap openssh-client e2fsprogs)

# distribution: "debian 12" or "ubuntu 24.04", from the machine's own description.
distribution() {
    (
        # shellcheck disable=SC1091
        . /etc/os-release
        echo "${ID:-unknown} ${VERSION_ID:-unknown}"
    )
}

codename() {
    (
        # shellcheck disable=SC1091
        . /etc/os-release
        echo "${VERSION_CODENAME:-}"
    )
}

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null) == installed ]]; }

# missing PACKAGE...: those that are not installed, one per line.
missing() {
    local package
    for package in "$@"; do
        is_installed "$package" || echo "$package"
    done
}

# Some package of the virtualization stack came from backports ("~bpo" is in its version).
backports_in_use() {
    local versions
    # Fails where one of the patterns matches nothing, with the others still printed.
    versions=$(dpkg-query -W -f '${db:Status-Status} ${Version}\n' 'qemu*' 'libvirt*' seabios 2> /dev/null) || true
    grep -q '^installed [^ ]*~bpo' <<< "$versions"
}

backports_configured() { grep -q "n=$(codename)-backports" <<< "$(apt-cache policy)"; }

# debian_mirror SUITE: where this machine gets this suite of Debian from, and the keyring that it trusts for it (deb822 or one-line sources; the
# first one that serves it).
debian_mirror() {
    local release files
    release=$1
    shopt -s nullglob
    files=(/etc/apt/sources.list.d/*.sources)
    ((${#files[@]} == 0)) || awk -v release="$release" '
        function flush() { if (uri != "" && has) { print uri, key; found = 1; exit } uri = ""; key = ""; has = 0 }
        FNR == 1 || /^[ \t]*$/ { flush() }
        /^URIs:/ { uri = $2 }
        /^Signed-By:/ { key = $2 }
        /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == release) has = 1 }
        END { if (!found) flush() }
    ' "${files[@]}"
    files=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list)
    awk -v release="$release" '
        $1 == "deb" {
            key = ""; i = 2
            if ($2 ~ /^\[/) { while ($i !~ /\]$/) i++; i++; if (match($0, /signed-by=[^] ]*/)) key = substr($0, RSTART + 10, RLENGTH - 10) }
            if ($(i + 1) == release) print $i, key
        }
    ' "${files[@]}" 2> /dev/null || true
    shopt -u nullglob
}

# Adds the release's backports from the machine's own mirror.
configure_backports() {
    local uri key file=/etc/apt/sources.list.d/thecloud-backports.sources
    read -r uri key < <(debian_mirror "$(codename)") || true
    [[ -n ${uri:-} ]] || die "QEMU or libvirt came from $(codename)-backports, which apt no longer knows, and no Debian mirror was found in /etc/apt; add backports to apt's sources and try again"
    note "adding $(codename)-backports from $uri ($file): QEMU or libvirt of this machine came from there"
    {
        echo "# Added by The Cloud's deploy/install-deps.sh: QEMU or libvirt of this machine came from backports."
        echo "Types: deb"
        echo "URIs: $uri"
        echo "Suites: $(codename)-backports"
        echo "Components: main"
        [[ -z ${key:-} ]] || echo "Signed-By: $key"
    } | as_root tee "$file" > /dev/null
}

apt_run() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@"; }

# install_missing [-t RELEASE] PACKAGE...
install_missing() {
    local target=() wanted
    if [[ $1 == -t ]]; then
        target=(-t "$2")
        shift 2
    fi
    mapfile -t wanted < <(missing "$@")
    ((${#wanted[@]} > 0)) || return 0
    note "installing ${wanted[*]}"
    apt_run install -y --no-install-recommends "${target[@]}" "${wanted[@]}"
}
