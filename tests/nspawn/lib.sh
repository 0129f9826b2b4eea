# shellcheck shell=bash
# Sourced by tests that need a bare Debian with a real systemd: a root made by mmdebstrap (cached as a tar),
# booted by systemd-nspawn on this machine's network, entered by nsenter. Needs root.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=.ci/env
. "$root/.ci/env"

machine=     # folder of the booted root
leader=      # its process 1, seen from here
spawned=     # systemd-nspawn itself

# What a server installation has and the smallest Debian has not.
bare=systemd-sysv,dbus,libpam-systemd,sudo,git,make,ca-certificates,iproute2,procps,adduser,curl

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

# spawn_boot SUITE [NSPAWN-OPTION...]: unpacks and boots, returns when systemd has done its work.
spawn_boot() {
    local suite=$1 tar keep=()
    shift
    tar=$(spawn_tar "$suite")
    machine=$(mktemp -d "${TRAM_SPAWN_DIR:-/var/tmp}/tram-$suite.XXXXXX")
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
    local unit
    for unit in systemd-firstboot.service systemd-networkd.service systemd-networkd.socket systemd-resolved.service \
        apt-daily.timer apt-daily-upgrade.timer man-db.timer; do
        ln -sf /dev/null "$machine/etc/systemd/system/$unit"
    done
    [ -d /run/systemd/system ] || keep=(--keep-unit)
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --register=no "${keep[@]}" --console=pipe \
        --machine="${machine##*/}" --resolv-conf=replace-host "$@" --boot --directory="$machine" \
        systemd.unit=multi-user.target </dev/null >"$machine.log" 2>&1 &
    spawned=$!
    local tries=0
    until leader=$(spawn_leader) && spawn_run systemctl is-system-running --wait >/dev/null 2>&1; do
        # "degraded" is an answer too: what failed is the caller's to judge.
        [ -n "$leader" ] && [ "$(spawn_run systemctl is-system-running 2>/dev/null)" = degraded ] && break
        [ -d "/proc/$spawned" ] || { tail -n 20 "$machine.log" >&2; fail "the $suite container ended at its boot"; }
        tries=$((tries + 1))
        [ "$tries" -lt 240 ] || { tail -n 20 "$machine.log" >&2; fail "the $suite container does not come up"; }
        sleep 0.5
    done
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

# shellcheck disable=SC2317 # called by trap
spawn_stop() {
    local status=$? tries=0
    trap - EXIT
    if [ -n "$spawned" ] && [ -d "/proc/$spawned" ]; then
        [ -z "$leader" ] || spawn_run systemctl poweroff >/dev/null 2>&1 || true
        while [ -d "/proc/$spawned" ] && [ "$tries" -lt 120 ]; do
            tries=$((tries + 1))
            sleep 0.25
        done
        kill -KILL "$leader" "$spawned" 2>/dev/null || true
        wait "$spawned" 2>/dev/null || true
    fi
    # Nothing below it may be another file system: rm would go into it.
    if [ -n "$machine" ] && ! grep -q " $machine/" /proc/self/mounts; then
        rm -rf --one-file-system "$machine" "$machine.log"
    fi
    exit "$status"
}
