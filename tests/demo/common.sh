# shellcheck shell=bash
# What demo.sh, clean.sh and story.sh share: where the demo lives, how its programs are called and stopped.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=.ci/env
. "$root/.ci/env"

# Everything the demo makes is below these two folders (and the domains the controller defines).
data=${TRAM_DEMO_DATA:-${XDG_DATA_HOME:-$HOME/.local/share}/tram-demo}
disks=${TRAM_DEMO_DISKS:-/var/lib/libvirt/images/tram-demo}
address=${TRAM_DEMO_ADDRESS:-127.0.0.1}
pool=${TRAM_DEMO_POOL:-co-loa}
uri=qemu:///system
# shellcheck disable=SC2034 # used by the scripts that source this
site=00505 # Xã Cổ Loa, Huyện Đông Anh
# shellcheck disable=SC2034
mark=.made-by-tram-demo

bin=$CARGO_TARGET_DIR/debug
controller() { "$bin/tram-controller" --config "$data/tram.toml" --data "$data" "$@"; }
agent() { "$bin/tram-agent" --state "$data/agent" "$@"; }
vir() { virsh --quiet --connect "$uri" "$@"; }

# The rest needs root (libvirt's system daemon, disks that QEMU may read): starts the script again so.
become_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || fail "libvirt's disks need root and there is no sudo: run it as root"
    exec sudo env "PATH=$PATH" "HOME=$HOME" "XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}" \
        "CARGO_TARGET_DIR=$CARGO_TARGET_DIR" "TRAM_DEMO_DATA=$data" "TRAM_DEMO_DISKS=$disks" \
        "TRAM_DEMO_ADDRESS=$address" "TRAM_DEMO_POOL=$pool" "TRAM_DEMO_ACCEL=${TRAM_DEMO_ACCEL:-auto}" \
        "TRAM_DEMO_PORT=${TRAM_DEMO_PORT:-}" "DEMO_ONCE=${DEMO_ONCE:-}" "TRAM_DEMO_BEGAN=${TRAM_DEMO_BEGAN:-}" "$0" "$@"
}

# json EXPRESSION: reads JSON from stdin as `d` (several values: a list of them), prints what the Python
# expression yields, one a line.
json() {
    python3 -c '
import json, sys
text = sys.stdin.read()
try:
    d = json.loads(text)
except ValueError:
    d = [json.loads(line) for line in text.splitlines()]
r = eval(sys.argv[1])
for line in r if isinstance(r, list) else [r]:
    print(line)' "$1"
}

# Is the process whose number stands in $data/NAME.pid still the demo's own?
running() { # controller | agent
    local pid
    pid=$(cat "$data/$1.pid" 2>/dev/null) || return 1
    [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q -F "tram-$1 " \
        && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q -F "$data"
}

stop_process() {
    running "$1" || { rm -f "$data/$1.pid"; return 0; }
    local pid tries=0
    pid=$(cat "$data/$1.pid")
    kill -TERM "$pid" 2>/dev/null || true
    while running "$1"; do
        tries=$((tries + 1))
        if [ "$tries" -eq 100 ]; then
            echo "tram-$1 did not end within 20 s; ending it by force" >&2
            kill -KILL "$pid" 2>/dev/null || true
        fi
        sleep 0.2
    done
    rm -f "$data/$1.pid"
}

desktop_ids() { controller admin desktop list --json 2>/dev/null | json '[x["id"] for x in d]'; }

# Running desktops go to disk with what is on their screens: the next `make demo` has them back in
# seconds. One that can't be saved is shut down, in the end by force.
put_desktops_away() {
    local id
    for id in $(desktop_ids); do
        [ "$(vir domstate "$id" 2>/dev/null)" = running ] || continue
        vir managedsave "$id" >/dev/null 2>&1 || vir shutdown "$id" >/dev/null 2>&1 || true
    done
    for id in $(desktop_ids); do
        local tries=0
        while [ "$(vir domstate "$id" 2>/dev/null)" = running ]; do
            tries=$((tries + 1))
            [ "$tries" -lt 60 ] || { vir destroy "$id" >/dev/null 2>&1 || true; break; }
            sleep 0.5
        done
    done
}

# Stops all that the demo started, and only that. Order matters: without the controller nobody
# starts a desktop again that was just put away.
stop_all() {
    stop_process agent
    stop_process controller
    if [ -e "$data/tram.toml" ] && [ -x "$bin/tram-controller" ] && timeout 20 virsh -q -c "$uri" version >/dev/null 2>&1; then
        put_desktops_away
    fi
    "$root/.ci/libvirt" down "$data/libvirt.started" || true
}
