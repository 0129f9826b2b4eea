# shellcheck shell=bash
# Sourced by tests that need a bare Debian with a real systemd: a root made by mmdebstrap (cached as a tar),
# booted by systemd-nspawn on this machine's network, entered by nsenter. Needs root.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=.ci/env
. "$root/.ci/env"

machine=     # folder of the booted root
leader=      # its process 1, seen from here
spawned=     # systemd-nspawn itself
declare -A spawn_all=()      # name -> the three of each machine, for spawn_use
spawn_net=                   # first three numbers of the network that spawn_network made
spawn_bridge=
spawn_mirror=
spawn_name=                  # what the next machine is called; for the rest see spawn_boot
spawn_address=
spawn_neighbours=()
spawn_scratch=               # a folder to remove at the end

# What a server installation has and the smallest Debian has not.
bare=systemd-sysv,dbus,libpam-systemd,sudo,git,make,ca-certificates,iproute2,procps,adduser,curl

# spawn_root SCRIPT ARGUMENT...: goes on as root, if need be through sudo.
spawn_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || fail "machines need root and there is no sudo: run it as root"
    exec sudo env "PATH=$PATH" "HOME=$HOME" "CARGO_TARGET_DIR=$CARGO_TARGET_DIR" \
        ${XDG_CACHE_HOME:+"XDG_CACHE_HOME=$XDG_CACHE_HOME"} "$@"
}

# spawn_tar SUITE: prints the path of that suite's bare root; made once, a new one when the list changes.
spawn_tar() {
    local suite=$1 mirror=http://deb.debian.org/debian tar
    tar=$TRAM_CACHE/roots/$suite-$(sha256sum <<<"$bare" | cut -c1-8).tar
    if [ ! -s "$tar" ]; then
        mkdir -p "${tar%/*}"
        say "making a bare $suite (15 s)" >&2
        mmdebstrap --quiet --format=tar --variant=minbase --include="$bare" "$suite" "$tar.part" \
            "deb $mirror $suite main" "deb $mirror $suite-updates main" \
            "deb $mirror-security $suite-security main" >&2
        mv "$tar.part" "$tar"
    fi
    echo "$tar"
}

# spawn_network NUMBER: from now on machines stand in a network of their own (RFC 2544's, for tests), with no way out
# but to Debian's packages; each is told its address by spawn_name and spawn_address. NUMBER tells two runs apart.
spawn_network() {
    spawn_net=198.18.$(($1 % 250 + 1))
    spawn_bridge=tram$(($1 % 100000))
    trap spawn_stop EXIT
    trap 'exit 130' INT TERM
    ip link add "$spawn_bridge" type bridge
    ip address add "$spawn_net.1/24" dev "$spawn_bridge"
    ip link set "$spawn_bridge" up
    socat "TCP-LISTEN:80,bind=$spawn_net.1,fork,reuseaddr" TCP:deb.debian.org:80 2>/dev/null &
    spawn_mirror=$!
}

# spawn_place NAME ADDRESS NEIGHBOUR...: writes the network settings of the root in $machine.
spawn_place() {
    local name=$1 address=$2
    shift 2
    echo "$name" >"$machine/etc/hostname"
    { printf '127.0.0.1 localhost\n::1 localhost\n%s deb.debian.org\n%s %s\n' "$spawn_net.1" "$address" "$name"
        [ $# -eq 0 ] || printf '%s\n' "$@"; } >"$machine/etc/hosts"
    mkdir -p "$machine/etc/systemd/network"
    printf '[Match]\nName=host0 en*\n[Network]\nAddress=%s/24\nGateway=%s.1\nLinkLocalAddressing=no\n' \
        "$address" "$spawn_net" >"$machine/etc/systemd/network/10-wired.network"
    rm -f "$machine/etc/systemd/system/systemd-networkd.service" "$machine/etc/systemd/system/systemd-networkd.socket"
    mkdir -p "$machine/etc/systemd/system/multi-user.target.wants"
    ln -sf /usr/lib/systemd/system/systemd-networkd.service "$machine/etc/systemd/system/multi-user.target.wants/"
}

# spawn_use NAME: the machine that spawn_run and the rest mean from now on.
spawn_use() { read -r machine leader spawned <<<"${spawn_all[$1]}"; }

# spawn_unpack SUITE NAME: a bare root in $machine, set up for where it is to stand.
spawn_unpack() {
    local suite=$1 name=$2 tar unit
    tar=$(spawn_tar "$suite")
    machine=$(mktemp -d "${TRAM_SPAWN_DIR:-/var/tmp}/tram-$suite.XXXXXX")
    leader='' spawned=''
    spawn_all[$name]="$machine - -"
    trap spawn_stop EXIT
    trap 'exit 130' INT TERM
    tar -C "$machine" -xf "$tar"
    rm -f "$machine/etc/fstab" "$machine/etc/machine-id" "$machine/etc/hostname"
    echo "tram-$suite" >"$machine/etc/hostname"
    printf '127.0.0.1 localhost tram-%s\n::1 localhost\n' "$suite" >"$machine/etc/hosts"
    # Whoever reads TLS on the way out of this network is trusted in there as out here.
    cp -a /usr/local/share/ca-certificates/. "$machine/usr/local/share/ca-certificates/" 2>/dev/null || true
    [ ! -s "$machine/etc/ssl/certs/ca-certificates.crt" ] || cp -L /etc/ssl/certs/ca-certificates.crt "$machine/etc/ssl/certs/"
    # Node.js from the registry does not ask the system whom to trust.
    echo NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt >>"$machine/etc/environment"
    # The network is this machine's own: nothing in there may set it up.
    for unit in systemd-firstboot.service systemd-networkd.service systemd-networkd.socket systemd-resolved.service \
        apt-daily.timer apt-daily-upgrade.timer man-db.timer; do
        ln -sf /dev/null "$machine/etc/systemd/system/$unit"
    done
    [ -z "$spawn_net" ] || spawn_place "$name" "$spawn_address" "${spawn_neighbours[@]}"
}

# spawn_boot SUITE [NSPAWN-OPTION...]: unpacks and boots, returns when systemd has done its work.
# Before it: spawn_name=NAME, spawn_address=ADDRESS and spawn_neighbours=('ADDRESS NAME'...) in a network of its own.
spawn_boot() {
    local suite=$1 keep=() network=(--resolv-conf=replace-host)
    local name=${spawn_name:-tram-$1}
    shift
    spawn_unpack "$suite" "$name"
    [ -z "$spawn_net" ] || network=(--resolv-conf=off --network-bridge="$spawn_bridge")
    [ -d /run/systemd/system ] || keep=(--keep-unit)
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --register=no "${keep[@]}" --console=pipe \
        --machine="${machine##*/}" "${network[@]}" "$@" --boot --directory="$machine" \
        systemd.unit=multi-user.target </dev/null >"$machine.log" 2>&1 &
    spawned=$!
    spawn_all[$name]="$machine - $spawned"
    local tries=0
    until leader=$(spawn_leader) && spawn_run systemctl is-system-running --wait >/dev/null 2>&1; do
        # "degraded" is an answer too: what failed is the caller's to judge.
        [ -n "$leader" ] && [ "$(spawn_run systemctl is-system-running 2>/dev/null)" = degraded ] && break
        [ -d "/proc/$spawned" ] || { tail -n 20 "$machine.log" >&2; fail "the $suite container ended at its boot"; }
        tries=$((tries + 1))
        [ "$tries" -lt 240 ] || { tail -n 20 "$machine.log" >&2; fail "the $suite container does not come up"; }
        sleep 0.5
    done
    spawn_all[$name]="$machine $leader $spawned"
}

# Process 1 of the container is the child of systemd-nspawn.
spawn_leader() { pgrep -P "$spawned" -x systemd | head -n1 | grep .; }

# spawn_run COMMAND...: as root in the container, with the environment of nobody here.
spawn_run() {
    nsenter --target "$leader" --all -- env -i HOME=/root LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# spawn_as USER COMMAND-LINE: a login shell of that user.
spawn_as() { spawn_run su - "$1" -c "$2"; }

# spawn_end NAME: shuts the machine down and removes it.
spawn_end() {
    local tries=0
    spawn_use "$1"
    unset "spawn_all[$1]"
    if [ "$spawned" != - ] && [ -d "/proc/$spawned" ]; then
        [ "$leader" != - ] || leader=$(spawn_leader) || leader=
        # A virtual machine has no leader here: it is switched off.
        if [ -n "$leader" ]; then spawn_run systemctl poweroff >/dev/null 2>&1 || true; else kill "$spawned" 2>/dev/null || true; fi
        while [ -d "/proc/$spawned" ] && [ "$tries" -lt 120 ]; do
            tries=$((tries + 1))
            sleep 0.25
        done
        [ ! -d "/proc/$spawned" ] || kill -KILL ${leader:+"$leader"} "$spawned" 2>/dev/null || true
        wait "$spawned" 2>/dev/null || true
    fi
    # Nothing below it may be another file system: rm would go into it.
    if [ -n "$machine" ] && ! grep -q " $machine/" /proc/self/mounts; then
        rm -rf --one-file-system "$machine" "$machine.log" "$machine.disk"
    fi
}

# shellcheck disable=SC2317 # called by trap
spawn_stop() {
    local status=$? name
    trap - EXIT
    for name in "${!spawn_all[@]}"; do spawn_end "$name" || true; done
    [ -z "$spawn_mirror" ] || kill "$spawn_mirror" 2>/dev/null || true
    [ -z "$spawn_bridge" ] || ip link delete "$spawn_bridge" 2>/dev/null || true
    [ -z "$spawn_scratch" ] || rm -rf --one-file-system "$spawn_scratch"
    exit "$status"
}
