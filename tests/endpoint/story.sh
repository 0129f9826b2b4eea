#!/usr/bin/env bash
# An officer's day at an endpoint against a real desktop: the agent in a network namespace of its own behind a
# thin line (4/1 Mbit/s), a kiosk browser and a viewer on Xvfb, a demo of its own at the other end. The line is
# cut for 20 s and for 3 min; the controller is killed, which nobody notices, as two gateways carry by themselves; then
# the gateway that carries. Pictures are kept. About 5 to 9 min; needs root.
#   TRAM_SHOTS=folder   where the pictures go (default: story-endpoint/ in the cargo target folder)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ "$(id -u)" -ne 0 ]; then
    exec sudo env "PATH=$PATH" "HOME=$HOME" ${CARGO_TARGET_DIR:+"CARGO_TARGET_DIR=$CARGO_TARGET_DIR"} "$0" "$@"
fi
scratch=$(mktemp -d)
space=tram-desk-$$
link=td$(($$ % 100000))
# A network for tests (RFC 2544); one of its own for each run.
net=198.18.$(($$ % 250 + 1))
export TRAM_DEMO_DATA=$scratch/data TRAM_DEMO_ADDRESS=$net.1 TRAM_DEMO_POOL=desk-$$
export TRAM_DEMO_DISKS=${TRAM_DEMO_DISKS:-/var/lib/libvirt/images/tram-desk-$$}
unset DEMO_ONCE
# shellcheck source=tests/demo/common.sh
. "$here/../demo/common.sh"
shots=${TRAM_SHOTS:-$CARGO_TARGET_DIR/story-endpoint}
mkdir -p "$shots"
started=()

finish() {
    local status=$?
    trap - EXIT INT TERM
    if [ "$status" -ne 0 ]; then
        picture at-the-fault || true
        view >&2 || true
        tail -n 30 "$scratch/desk.log" "$data/controller.log" >&2 2>/dev/null || true
    fi
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    "$root/tests/demo/demo.sh" --stop || status=1
    "$root/tests/demo/clean.sh" || status=1
    ip netns delete "$space" 2>/dev/null || true
    ip link delete "$link" 2>/dev/null || true
    rm -rf --one-file-system -- "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

inside() { ip netns exec "$space" "$@"; }

# What the page shows, asked as the page asks.
view() {
    local address
    address=$(sed -n 's|.*url=http://\([^"]*\)".*|\1|p' "$scratch/tram-desk/start.html" 2>/dev/null)
    inside curl -fs --max-time 10 -H "X-Tram-Desk: ${address#*/#}" "http://${address%%/*}/api/view"
}
phase() { view | json 'd["view"]["phase"]' 2>/dev/null || true; }
front() { xdotool getactivewindow getwindowname 2>/dev/null || true; }
viewer() { pgrep -P "$desk" -f 'viewer' | head -n 1; }

until_is() { # seconds, wanted, command...
    local limit=$((SECONDS + $1)) wanted=$2
    shift 2
    until [[ $("$@") == *"$wanted"* ]]; do
        [ "$SECONDS" -le "$limit" ] || fail "waited in vain for $* to say $wanted; it says $("$@")"
        sleep 0.5
    done
}

count=0
picture() {
    count=$((count + 1))
    xwd -root -silent -out "$scratch/screen.xwd"
    convert "$scratch/screen.xwd" "$shots/$count-$1.png"
    rm "$scratch/screen.xwd"
}

# Until the guest's own picture is there: a boot screen has few colours.
guest_picture() {
    local limit=$((SECONDS + 120))
    until xwd -root -silent -out "$scratch/screen.xwd" && [ "$(convert "$scratch/screen.xwd" -format %k info:)" -gt 50 ]; do
        [ "$SECONDS" -le "$limit" ] || fail "the guest's picture did not come"
        sleep 1
    done
    picture "$1"
}

say "a thin line: $net.2 behind 4/1 Mbit/s"
ip netns add "$space"
ip link add "$link" type veth peer name uplink netns "$space"
ip address add "$net.1/24" dev "$link"
ip link set "$link" up
inside ip address add "$net.2/24" dev uplink
inside ip link set lo up
inside ip link set uplink up
tc qdisc add dev "$link" root tbf rate 4mbit burst 16kb latency 400ms
inside tc qdisc add dev uplink root tbf rate 1mbit burst 16kb latency 400ms

"$root/tests/demo/demo.sh" --background
read -r name secret < <(awk '$3 == "officer" {print $1, $2}' "$data/accounts")
listen=$(sed -n 's/^agent_listen = "\(.*\)"$/\1/p' "$data/tram.toml")

say "two gateways of their own"
gateways=()
gateway() { # number
    TRAM_GATEWAY_NAME=story-$1 TRAM_GATEWAY_LISTEN=$net.1:$((9433 + $1 * 10)) \
        TRAM_GATEWAY_AGENT_LISTEN=$net.1:$((9434 + $1 * 10)) \
        setsid "$bin/tram-controller" --config "$data/tram.toml" --data "$data" gateway >>"$scratch/gateway-$1.log" 2>&1 </dev/null &
    gateways[$1]=$!
    started+=($!)
}
gateway 1
gateway 2
# Number of the gateway that carries the session.
carrier() { controller admin gateway list --json | json '[g["name"].removeprefix("story-") for g in d if g["sessions"] and g["name"].startswith("story-")]'; }
live() { controller admin gateway list --json | json 'str(sum(g["name"].startswith("story-") and g["state"] == "live" for g in d))'; }
until_is 60 2 live

say "the endpoint enrols over the line"
TRAM_ENROL_TOKEN=$(controller admin endpoint token --site "$site" --json | json 'd["token"] if isinstance(d, dict) else d[0]["token"]')
export TRAM_ENROL_TOKEN
inside "$bin/tram-agent" --state "$scratch/state" enrol --controller "https://$listen"
unset TRAM_ENROL_TOKEN

say "its screen"
Xvfb -displayfd 3 -screen 0 1280x800x24 -nolisten tcp 3>"$scratch/display" >/dev/null 2>&1 &
started+=($!)
until [ -s "$scratch/display" ]; do sleep 0.2; done
DISPLAY=:$(cat "$scratch/display")
export DISPLAY
openbox >/dev/null 2>&1 &
started+=($!)
cat >"$scratch/agent.toml" <<TOML
[desk]
browser = ["/usr/bin/chromium", "--kiosk", "--no-sandbox", "--incognito", "--no-first-run", "--noerrdialogs", "--disable-gpu"]
TOML
# No helper in between: the desk's own children are looked for below.
ip netns exec "$space" env "XDG_RUNTIME_DIR=$scratch" "HOME=$scratch" \
    "$bin/tram-agent" --config "$scratch/agent.toml" --state "$scratch/state" desk >"$scratch/desk.log" 2>&1 &
desk=$!
started+=("$desk")
until_is 60 sign_in phase
until_is 60 "Tram desk" front
until_is 60 '"cause":"fine"' view
picture sign-in

say "the officer signs in"
xdotool type --delay 40 "$name"
xdotool key Tab
xdotool type --delay 40 "$secret"
xdotool key Return
until_is 240 desktop phase
guest_picture desktop
xdotool type --delay 200 "coong vieejc cuar tooi "
before=$(viewer)

# The officer is told at once, and their viewer waits: the same one goes on when the line is back.
cut_line() { # seconds, a word for it
    say "the line is cut for $2"
    local cut=$SECONDS back
    ip link set "$link" down
    until_is 60 lost phase
    until_is 30 "Tram desk" front
    picture "line-lost-$1"
    sleep $((SECONDS - cut < $1 ? $1 - (SECONDS - cut) : 0))
    ip link set "$link" up
    back=$SECONDS
    until_is 60 desktop phase
    echo "    back $((SECONDS - back)) s after the line"
    [ "$(viewer)" = "$before" ] || fail "another viewer runs than before the cut"
    guest_picture "line-back-$1"
}
cut_line 20 "20 s"
cut_line 180 "3 min"

say "the controller is killed: the officer notices nothing"
kill -KILL "$(cat "$data/controller.pid")"
sleep 8
[ "$(phase)" = desktop ] || fail "the officer sees $(phase) when the controller is killed"
[ "$(viewer)" = "$before" ] || fail "another viewer runs than before the controller was killed"
xdotool type --delay 200 "khoong ai bieest "
guest_picture controller-killed
setsid "$bin/tram-controller" --config "$data/tram.toml" --data "$data" server >>"$data/controller.log" 2>&1 </dev/null &
echo $! >"$data/controller.pid"
until_is 60 2 live

say "the gateway is killed: the same desktop by the other one"
holder=$(carrier)
kill -KILL "${gateways[$holder]}"
back=$SECONDS
until [ "$(viewer)" != "$before" ] && [ -n "$(viewer)" ] && [ "$(phase)" = desktop ]; do
    [ $((SECONDS - back)) -lt 60 ] || fail "the desktop did not come back after the gateway was killed"
    sleep 0.2
done
echo "    back $((SECONDS - back)) s after the gateway was killed"
guest_picture gateway-killed

say "the officer's password, tokens and tickets are nowhere to be read"
found=$( { for pid in "$desk" $(pgrep -P "$desk"); do cat "/proc/$pid/cmdline" "/proc/$pid/environ"; done
    find "$scratch/tram-desk" "$scratch/desk.log" -type f -exec cat {} +; } 2>/dev/null | grep -a -c -e "$secret" -e tds1_ -e vdt1_ || true)
[ "$found" = 0 ] || fail "a secret can be read"

say "support ends the session"
read -r helper password < <(awk '$3 == "support" {print $1, $2}' "$data/accounts")
url=$(sed -n 's/^public_url = "\(.*\)"$/\1/p' "$data/tram.toml")
call() { curl -fs --cacert "$data/tls/ca.pem" --cookie "$scratch/jar" --cookie-jar "$scratch/jar" "$@"; }
csrf=$(printf '{"username": "%s", "password": "%s"}' "$helper" "$password" \
    | call -H 'content-type: application/json' --data-binary @- "$url/api/v1/login" | json 'd["csrf"]')
id=$(call "$url/api/v1/sessions?live=true" | json 'd["items"][0]["id"]')
call -X DELETE -H "x-tram-csrf: $csrf" "$url/api/v1/sessions/$id"
until_is 60 left phase
until_is 10 end_staff view
until_is 30 "Tram desk" front
picture ended-by-support
say "story-endpoint: pictures in $shots"
