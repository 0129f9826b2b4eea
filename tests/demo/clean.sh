#!/usr/bin/env bash
# `make demo-clean`: removes exactly what `make demo` made. The controller's own records say what that
# is, and it takes its domains and disks away itself; folders must carry the demo's mark.
set -euo pipefail
# shellcheck source=tests/demo/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

if [ ! -e "$data/$mark" ] && [ ! -e "$disks/$mark" ]; then
    echo "demo-clean: there is nothing to remove"
    exit 0
fi
become_root "$@"

remove_folder() {
    [ -d "$1" ] || return 0
    [ -e "$1/$mark" ] || fail "$1 does not carry the demo's mark: not removed"
    rm -rf --one-file-system -- "$1"
}

remove_desktops() {
    [ -e "$data/tram.db" ] && [ -e "$data/tram.toml" ] || return 0
    if [ ! -x "$bin/tram-controller" ]; then
        say "building the controller, whose records say what to remove"
        (cd "$root" && cargo build --locked -p tram-controller)
    fi
    local ids name id limit
    ids=$(desktop_ids)
    [ -n "$ids" ] || return 0
    "$root/.ci/libvirt" up "$data/libvirt.started"
    say "removing the demo's pools and their $(wc -w <<<"$ids") desktops"
    for name in $(controller admin pool list --json | json '[x["name"] for x in d]'); do
        controller admin pool delete "$name" --force >/dev/null
    done
    # What was put to disk is thrown away; the controller undefines the rest.
    setsid "$bin/tram-controller" --config "$data/tram.toml" --data "$data" server \
        >>"$data/controller.log" 2>&1 </dev/null &
    echo $! >"$data/controller.pid"
    limit=$(($(date +%s) + 180))
    while [ -n "$(desktop_ids)" ]; do
        running controller || {
            tail -n 15 "$data/controller.log" >&2
            fail "the controller ended before its desktops were gone; nothing else was removed"
        }
        [ "$(date +%s)" -lt "$limit" ] || fail "some desktops are still there; see $data/controller.log; nothing else was removed"
        sleep 0.5
    done
    stop_process controller
    for id in $ids; do
        ! vir dominfo "$id" >/dev/null 2>&1 || fail "the domain $id is still defined; nothing else was removed"
    done
}

stop_process agent
stop_process controller
remove_desktops
"$root/.ci/libvirt" down "$data/libvirt.started" || true
remove_folder "$disks"
remove_folder "$data"
echo "demo-clean: done (the caches in $TRAM_CACHE stay; remove that folder to free them)"
