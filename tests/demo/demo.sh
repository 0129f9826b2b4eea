#!/usr/bin/env bash
# `make demo`: from a clean Debian to a virtual desktop in the browser.
#   tests/demo/demo.sh                runs in the foreground, Ctrl-C stops all it started
#   tests/demo/demo.sh --background   returns when the desktops run; --stop ends it
#   DEMO_ONCE=1 tests/demo/demo.sh    starts, checks that all three roles get in, stops
# Settings: TRAM_DEMO_ADDRESS (default 127.0.0.1), TRAM_DEMO_PORT (8443), TRAM_DEMO_ACCEL (auto|kvm|tcg),
#           TRAM_DEMO_DATA, TRAM_DEMO_DISKS, TRAM_DEMO_POOL.
set -euo pipefail
# shellcheck source=tests/demo/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

mode=foreground
for arg; do
    case $arg in
        --background) mode=background ;;
        --stop) mode=stop ;;
        --built) ;;
        *) fail "unknown option $arg (there are --background and --stop)" ;;
    esac
done
began=${TRAM_DEMO_BEGAN:-$(date +%s)}
step() { # number, what, usual duration
    say "$(printf '[%d/8] %s (%d s so far; usually %s)' "$1" "$2" $(($(date +%s) - began)) "$3")"
}

# --- 1 to 4: as the user who called ---------------------------------------------------------------

build() {
    if [ -x "$bin/tram-controller" ]; then room "$TRAM_CACHE" 2048 "the demo"; else room "$TRAM_CACHE" 9000 "the demo"; fi
    step 1 "packages" "1 s, 3 min on a fresh machine"
    "$root/.ci/setup" demo
    step 2 "web console" "1 s, 40 s the first time"
    "$root/.ci/console"
    step 3 "controller and agent" "2 s, 5 to 10 min the first time"
    (cd "$root" && cargo build --locked -p tram-controller -p tram-agent)
    step 4 "test desktop image" "1 s, 3 min the first time"
    "$root/images/test/build"
}

# --- 5: libvirt ----------------------------------------------------------------------------------

own_folder() { # folder, mode: made by us, or marked as ours, or refused
    if [ -d "$1" ] && [ ! -e "$1/$mark" ] && [ -n "$(ls -A "$1")" ]; then
        fail "$1 is there and was not made by the demo: move it away, or set TRAM_DEMO_DATA / TRAM_DEMO_DISKS"
    fi
    mkdir -p "$1"
    chmod "$2" "$1"
    : >"$1/$mark"
}

# --- 6: controller -------------------------------------------------------------------------------

port_free() {
    python3 - "$address" "$1" <<'PY'
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    s.bind((sys.argv[1], int(sys.argv[2])))
except OSError:
    sys.exit(1)
PY
}

# The port of last time (the agent knows it), the wished one, or the next two that are free.
choose_ports() {
    port=$(sed -n 's/^listen = ".*:\([0-9]*\)"$/\1/p' "$data/tram.toml" 2>/dev/null || true)
    [ -z "${TRAM_DEMO_PORT:-}" ] || port=$TRAM_DEMO_PORT
    port=${port:-8443}
    local wanted=$port
    until port_free "$port" && port_free $((port + 1)); do
        [ -z "${TRAM_DEMO_PORT:-}" ] || fail "port $port or $((port + 1)) on $address is taken; choose another TRAM_DEMO_PORT"
        port=$((port + 10))
        [ "$port" -lt $((wanted + 200)) ] || fail "no free pair of ports from $wanted on; set TRAM_DEMO_PORT"
    done
    [ "$port" = "$wanted" ] || echo "port $wanted is taken by another program: using $port"
    local name=$address
    [ "$address" != 127.0.0.1 ] || name=localhost
    url=https://$name:$port
    agent_url=https://$name:$((port + 1))
}

write_config() {
    cat >"$data/tram.toml" <<EOF
# Written by make demo on each start.
[server]
listen = "$address:$port"
agent_listen = "$address:$((port + 1))"
public_url = "$url"

[images]
dir = "$disks/images"

[disks]
dir = "$disks/disks"

[log]
format = "text"
EOF
}

password() { python3 -c 'import secrets; a="abcdefghijkmnpqrstuvwxyz23456789"; print("-".join("".join(secrets.choice(a) for _ in range(4)) for _ in range(4)))'; }

# name role site display: the password is drawn once and kept, so that a second run shows the same.
account() {
    local name=$1 role=$2 code=$3 display=$4 secret
    secret=$(awk -v n="$name" '$1 == n {print $2}' "$data/accounts")
    if [ -z "$secret" ]; then
        secret=$(password)
        printf '%s %s %s\n' "$name" "$secret" "$role" >>"$data/accounts"
    elif controller admin user list --json | json '[x["username"] for x in (d if isinstance(d, list) else [d])]' | grep -qx "$name"; then
        return
    fi
    printf '%s' "$secret" | controller admin user add "$name" --role "$role" ${code:+--site "$code"} \
        --display "$display" --replace --password-stdin >/dev/null
}

prepare() {
    controller admin init-tls --names "localhost,127.0.0.1,$address" >/dev/null
    local csv=$root/controller/data/hanoi-sites.csv sum
    sum=$(sha256sum <"$csv")
    if [ "$sum" != "$(cat "$data/sites.imported" 2>/dev/null)" ]; then
        controller admin site import "$csv" --valid-from 2016-01-01
        echo "$sum" >"$data/sites.imported"
    fi
    (umask 077 && touch "$data/accounts")
    account vanhanh operator "" "Vận hành trung tâm"
    account hotro support "" "Hỗ trợ kỹ thuật"
    account canbo officer "$site" "Cán bộ xã Cổ Loa"
}

start_process() { # name, command...
    local name=$1
    shift
    # A session of its own: Ctrl-C reaches this script, which then stops things in their order.
    setsid "$@" >>"$data/$name.log" 2>&1 </dev/null 9>&- &
    echo $! >"$data/$name.pid"
}

tail_log() {
    echo "--- the last lines of $data/$1.log" >&2
    tail -n 15 "$data/$1.log" >&2
}

wait_for() { # seconds, what, process, command...
    local limit=$(($(date +%s) + $1)) what=$2 process=$3
    shift 3
    until "$@"; do
        if ! running "$process"; then
            tail_log "$process"
            fail "tram-$process ended while waiting for $what"
        fi
        if [ "$(date +%s)" -gt "$limit" ]; then
            tail_log "$process"
            fail "$what did not come in time"
        fi
        sleep 0.3
    done
}

# shellcheck disable=SC2317 # called by wait_for
healthy() { curl -fs --max-time 5 --cacert "$data/tls/ca.pem" -o /dev/null "$url/readyz"; }

start_controller() {
    start_process controller "$bin/tram-controller" --config "$data/tram.toml" --data "$data" server
    wait_for 60 "the controller" controller healthy
}

# --- 7: pool and endpoint -------------------------------------------------------------------------

make_pool() {
    controller admin host add --name may-chu --uri "$uri" --accel "${TRAM_DEMO_ACCEL:-auto}" >/dev/null
    local image manifest version
    image=$("$root/images/test/build" --path)
    manifest=${image%.qcow2}.json
    version=$(json 'd["built_at"][:10] + "-" + d["recipe"][:8]' <"$manifest")
    if ! controller admin image list --json | json '[x["version"] for x in d]' | grep -qxF -- "$version"; then
        controller admin image add --name tram-test --version "$version" --file "$image"
    fi
    if ! controller admin pool list --json | json '[x["name"] for x in d]' | grep -qxF -- "$pool"; then
        controller admin pool create --name "$pool" --site "$site" --image tram-test --size 2 \
            --vcpus 2 --memory-mib 768
    fi
}

start_agent() {
    if [ "$agent_url" != "$(cat "$data/agent.enrolled" 2>/dev/null)" ]; then
        local token
        token=$(controller admin endpoint token --site "$site" --json | json 'd["token"] if isinstance(d, dict) else d[0]["token"]')
        # The token itself names the authority that the agent must find at the other end.
        TRAM_ENROL_TOKEN=$token agent enrol --controller "$agent_url" --replace
        echo "$agent_url" >"$data/agent.enrolled"
    fi
    start_process agent "$bin/tram-agent" --state "$data/agent" run
}

# --- 8: wait, and say what to do ------------------------------------------------------------------

wait_desktops() {
    local seen='' now limit=$(($(date +%s) + 900))
    while :; do
        now=$(controller admin desktop list --json | json '" ".join(x["name"] + "=" + x["state"] for x in sorted(d, key=lambda x: x["name"])) + " "')
        if [ "$now" != "$seen" ]; then
            printf '    %4d s  %s\n' $(($(date +%s) - began)) "${now:- (none yet)}"
            seen=$now
        fi
        # Two of them, all running.
        if [ "$(grep -o '=running ' <<<"$now" | wc -l)" -ge 2 ]; then return; fi
        if ! running controller; then
            tail_log controller
            fail "the controller ended"
        fi
        [ "$(date +%s)" -le "$limit" ] || {
            tail_log controller
            fail "the desktops did not come up in 15 minutes"
        }
        sleep 1
    done
}

# The guest agent answers before the desktop is painted. A PNG of a black screen or of boot messages is
# small, one of a desktop with windows is not.
wait_pictures() {
    local id shot=$data/.screen.png limit=$(($(date +%s) + 600))
    for id in $(desktop_ids); do
        until vir screenshot "$id" "$shot" >/dev/null 2>&1 && [ "$(stat -c %s "$shot")" -gt 20000 ]; do
            if [ "$(date +%s)" -gt "$limit" ]; then
                echo "    the desktops run, but one shows no picture yet: look at it as the operator"
                break 2
            fi
            sleep 1
        done
    done
    rm -f "$shot"
    printf '    %4d s  their screens are there\n' $(($(date +%s) - began))
}

# sign_in NAME: prints the role the API gives that account.
sign_in() {
    local jar secret
    jar=$(mktemp)
    secret=$(awk -v n="$1" '$1 == n {print $2}' "$data/accounts")
    printf '{"username":"%s","password":"%s"}' "$1" "$secret" \
        | curl -fsS --max-time 20 --cacert "$data/tls/ca.pem" -c "$jar" -H "Origin: $url" \
            -H 'content-type: application/json' --data-binary @- "$url/api/v1/login" | json 'd["user"]["role"]'
    rm -f "$jar"
}

verify() {
    local name secret role
    while read -r name secret role; do
        [ "$(sign_in "$name")" = "$role" ] || fail "$name did not get in as $role"
        echo "    $name signs in as $role"
    done <"$data/accounts"
    curl -fsS --cacert "$data/tls/ca.pem" "$url/console/" | grep -q '<div id="root"' \
        || fail "the console is not built in"
    running agent || { tail_log agent; fail "the agent ended"; }
}

box() {
    local role_of
    echo
    echo "  Tram is running:  $url"
    echo "  (the certificate is the demo's own: the browser asks once; its CA is $data/tls/ca.pem)"
    echo
    while read -r name secret role; do
        case $role in
            officer) role_of="commune officer of Xã Cổ Loa: press the one button, type Vietnamese (Telex) in the desktop" ;;
            operator) role_of="operator: hosts, images, pools; make a pool, resize it, rebuild a desktop" ;;
            *) role_of="support: the endpoint of Cổ Loa and its health" ;;
        esac
        printf '  %-8s  %s   %s\n' "$name" "$secret" "$role_of"
    done <"$data/accounts"
    echo
    echo "  To try: close the officer's tab and sign in again: the same desktop, the text still there."
    echo "          Stop the agent (kill \$(cat $data/agent.pid)): support sees the silence within 80 s."
    echo "          make demo starts it again."
    echo "  Logs: $data/controller.log, $data/agent.log.   Remove everything again: make demo-clean"
    if [ "$address" = 127.0.0.1 ]; then
        echo "  From another computer: ssh -L $port:localhost:$port $(hostname), or TRAM_DEMO_ADDRESS=<this machine's address> make demo"
    fi
    echo
}

# --- the walk ------------------------------------------------------------------------------------

if [ "$mode" = stop ]; then
    become_root "$@"
    stop_all
    exit 0
fi

if [ "${1:-}" != --built ]; then
    build
    export TRAM_DEMO_BEGAN=$began
    [ "$(id -u)" -eq 0 ] || become_root --built "$@"
fi

own_folder "$data" 0700
exec 9>"$data/lock"
flock -n 9 || fail "the demo is running already (its log: $data/controller.log); stop it with Ctrl-C or tests/demo/demo.sh --stop"
if running controller || running agent; then
    fail "the demo is running in the background; stop it with tests/demo/demo.sh --stop"
fi

# shellcheck disable=SC2317 # called by trap
on_exit() {
    local status=$?
    trap - EXIT INT TERM HUP
    if [ "$mode" = background ] && [ "$status" -eq 0 ]; then exit 0; fi
    say "stopping what the demo started"
    stop_all
    exit "$status"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

room "$(dirname "$disks")" 2048 "the demo"
own_folder "$disks" 0711
mkdir -p "$disks/images" "$disks/disks"
chmod 0711 "$disks/images" "$disks/disks"

step 5 "libvirt" "1 s"
"$root/.ci/libvirt" up "$data/libvirt.started"

step 6 "controller: certificate, sites, accounts" "5 s"
choose_ports
write_config
prepare
start_controller

step 7 "host, image, pool of two desktops, endpoint" "10 s"
make_pool
start_agent

step 8 "the desktops start" "20 s; the first time 2 min on emulated processors"
wait_desktops
wait_pictures

if [ -n "${DEMO_ONCE:-}" ]; then
    verify
    say "demo: all works ($(($(date +%s) - began)) s)"
    exit 0
fi
box
say "ready after $(($(date +%s) - began)) s"
[ "$mode" = foreground ] || exit 0
say "Ctrl-C stops everything"
# The agent may be ended on purpose, to see its silence noticed; the controller may not.
while running controller; do sleep 1; done
tail_log controller
fail "the controller ended by itself"
