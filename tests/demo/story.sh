#!/usr/bin/env bash
# The three roles' story in Chromium against a real desktop: a demo of its own (folders, pool, port)
# is started, walked through, and removed again, whatever happened. Pictures are kept.
#   TRAM_SHOTS=folder   where the pictures go (default: story/ in the cargo target folder)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
export TRAM_DEMO_DATA=$scratch/data
# Names of its own: two runs on one machine, or a run beside a demo, must not meet.
export TRAM_DEMO_DISKS=${TRAM_DEMO_DISKS:-/var/lib/libvirt/images/tram-story-$$}
export TRAM_DEMO_POOL=story-$$
unset DEMO_ONCE
# shellcheck source=tests/demo/common.sh
. "$here/common.sh"

finish() {
    local status=$?
    trap - EXIT INT TERM
    if [ "$status" -ne 0 ]; then
        tail -n 40 "$data/controller.log" "$data/agent.log" >&2 2>/dev/null || true
    fi
    "$here/demo.sh" --stop || status=1
    "$here/clean.sh" || status=1
    as_root rm -rf --one-file-system -- "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "the console against a mock of the API (about 90 s)"
TRAM_SHOTS="" node "$root/tests/browser/ui.mjs"

"$here/demo.sh" --background
[ -r "$data/accounts" ] || as_root chown -R "$(id -u)" "$data"
awk 'BEGIN { printf "{" }
     { printf "%s\"%s\": {\"username\": \"%s\", \"password\": \"%s\"}", (NR > 1 ? ", " : ""), $3, $1, $2 }
     END { print "}" }' "$data/accounts" >"$scratch/accounts.json"

TRAM_URL=$(sed -n 's/^public_url = "\(.*\)"$/\1/p' "$data/tram.toml")
export TRAM_URL
export TRAM_ACCOUNTS=$scratch/accounts.json
export TRAM_SHOTS=${TRAM_SHOTS:-$CARGO_TARGET_DIR/story}
mkdir -p "$TRAM_SHOTS"
# The agent is root's, as the demo is: only root can end it, to see its silence noticed.
[ "$(id -u)" -ne 0 ] || TRAM_AGENT_PID=$(cat "$data/agent.pid")
export TRAM_AGENT_PID=${TRAM_AGENT_PID:-}
node "$root/tests/browser/story.mjs"
echo "story: pictures in $TRAM_SHOTS"
