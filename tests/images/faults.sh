#!/usr/bin/env bash
# Builds of a very small image that go wrong: a mirror that falls silent or breaks off, a disk that fills up in every
# step, an interrupted, a stopped and a killed build, a snapshot and a lock. After each fault nothing half-made may be published,
# what was published before still verifies, and the next build succeeds. Needs root (a file system in memory) and a
# Debian mirror; about 3 min.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=.ci/env
. "$root/.ci/env"
[ "$(id -u)" -eq 0 ] || exec sudo env "PATH=$PATH" "$0" "$@"

scratch=$(mktemp -d)
cache=$scratch/cache
mirror_process=''
# shellcheck disable=SC2317 # called by trap
stop() {
    [ -z "$mirror_process" ] || kill "$mirror_process" 2>/dev/null || true
    ! mountpoint -q "$cache" || umount "$cache"
    rm -rf --one-file-system "$scratch"
}
trap stop EXIT
trap 'exit 130' INT TERM
began=$SECONDS
count=0
ok() {
    count=$((count + 1))
    echo "    [$((SECONDS - began)) s] ok: $*"
}
wrong() {
    tail -n 25 "$scratch/said" >&2
    fail "$*"
}

# --- a recipe of our own, beside the others in a copy -----------------------------------------------

cp -a "$root/images" "$scratch/images"
recipe=$scratch/images/tiny
mkdir "$recipe"
echo e2fsprogs >"$recipe/packages.list"
# shellcheck disable=SC2016 # the recipe's own variable
printf 'disk_mib=900 need_mib=${TINY_NEED_MIB:-1} security_updates=no estimate_packages=20 estimate_customize=1 estimate_disk=5\n' >"$recipe/recipe"
# It need not start: what is tested is how it is made.
printf '#!/bin/sh\nset -eu\necho kernel >/boot/vmlinuz-0-tiny\necho initramfs >/boot/initrd.img-0-tiny\n' >"$recipe/customize"
sed -i 's/^IMAGES = (/&"tiny", /' "$scratch/images/lib/services.py"

mkdir -p "$cache" "$scratch/mirror"
upstream=${TRAM_DEBIAN_MIRROR:-http://deb.debian.org/debian}
behave() { echo "$*" >"$scratch/mirror/mode"; }
behave pass
python3 -B "$root/tests/images/mirror.py" "$scratch/mirror" "$upstream" >"$scratch/port" 2>"$scratch/mirror/log" &
mirror_process=$!
until [ -s "$scratch/port" ]; do
    [ -d "/proc/$mirror_process" ] || fail "the test's mirror did not start: $(cat "$scratch/mirror/log")"
    sleep 0.1
done
site=http://127.0.0.1:$(cat "$scratch/port")
unset TRAM_DEBIAN_SNAPSHOT TRAM_IMAGE_KEY TRAM_DEBIAN_KEYRING TRAM_IMAGE_LIBREOFFICE
export XDG_CACHE_HOME=$cache TRAM_DEBIAN_MIRROR=$site/debian TRAM_MIRROR_TIMEOUT_S=3 SOURCE_DATE_EPOCH=1750000000

tiny=$cache/tram/images/tiny
build() { "$scratch/images/build" tiny "$@" >"$scratch/said" 2>&1 </dev/null; }
size() { if mountpoint -q "$cache"; then mount -o "remount,size=${1}M" "$cache"; else mount -t tmpfs -o "size=${1}M" tmpfs "$cache"; fi; }
verified() { "$scratch/images/verify" --key "$cache/tram/images/keys/image-signing.pub" "$tiny" >/dev/null; }
# settled WHAT: no leavings; what is published is whole, or nothing is.
settled() {
    local left
    left=$(find "$tiny" -maxdepth 1 \( -name 'work.*' -o -name '*.new' -o -name '*.part' \))
    [ -z "$left" ] || wrong "$1 left behind: $left"
    if [ -n "${published:-}" ]; then
        verified || wrong "after $1 the former image does not verify"
        [ "$(sha256sum <"$tiny/tram-tiny.qcow2")" = "$published" ] || wrong "$1 changed the published image"
    else
        left=$(find "$tiny" -maxdepth 1 \( -name 'tram-tiny*' -o -name 'SHA256SUMS*' \))
        [ -z "$left" ] || wrong "$1 published: $left"
    fi
}
# breaks CODE WHAT ARGUMENT...: the build ends with that code, and leaves nothing.
breaks() {
    local code=$1 what=$2 status=0
    shift 2
    build "$@" || status=$?
    [ "$status" -eq 1 ] || wrong "$what: status $status"
    grep -q "^images/build tiny: $code: " "$scratch/said" || wrong "$what: not said $code"
    [ "$(grep -c '^images/build tiny: B-' "$scratch/said")" = 1 ] || wrong "$what: more than one reason"
    settled "$what"
    ok "$what: $(sed -n 's/^images\/build tiny: \(B-[0-9]*: [^;,(]*\).*/\1/p' "$scratch/said")"
}
archives() { find "$tiny/archives" -name '*.deb' | wc -l; }

# --- before anything is there ---------------------------------------------------------------------

size 900
published=''
behave silent 0
breaks B-203 "a mirror that says nothing"
behave silent 20
breaks B-203 "a mirror that falls silent in the middle"
behave cut 40
breaks B-203 "a mirror that breaks off within a package"
[ "$(archives)" -ge 20 ] || wrong "of what was downloaded only $(archives) packages were kept"
ok "$(archives) downloaded packages were kept"
behave pass
TINY_NEED_MIB=2000 breaks B-201 "too small a disk"
for mib in 90 170 250 310; do
    size $mib
    breaks B-202 "a disk of $mib MiB, full"
done
size 900

# in_time COMMAND...: until it succeeds; two minutes are more than any machine needs.
in_time() {
    local tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || return 1
        sleep 0.1
    done
}
gone() { [ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"; }
# shellcheck disable=SC2009 # any process at all, by what it works on
idle() { ! ps -eo args | grep -F "$tiny/work" | grep -qv grep; }
# stopped SIGNAL WHAT: it says so and leaves nothing, and nobody works on.
stopped() {
    local status=0
    in_time gone "$building" || { kill -KILL "$building"; wrong "$2: told by $1 to stop, it goes on"; }
    wait "$building" 2>/dev/null || status=$?
    [ "$status" -eq 130 ] || wrong "$2: status $status after $1"
    grep -q '^images/build tiny: stopped; what was downloaded is kept' "$scratch/said" || wrong "$2: not said that it was stopped"
    settled "$2, stopped by $1"
    in_time idle || wrong "$2: somebody still works after $1"
    ok "$1 $2: only downloaded packages stay"
}
set -m
for signal in INT TERM KILL; do
    "$scratch/images/build" tiny >"$scratch/said" 2>&1 </dev/null &
    building=$!
    until grep -q '^\[2/' "$scratch/said" && compgen -G "$tiny/work.*/root/var/lib/dpkg/status" >/dev/null; do
        [ -d "/proc/$building" ] || wrong "it ended before it could be stopped"
        sleep 0.1
    done
    case $signal in
        # Ctrl-C reaches all of them, a service manager's or a person's kill only the one.
        INT) kill -INT -- "-$building" ;;
        *) kill "-$signal" "$building" ;;
    esac
    if [ $signal = KILL ]; then wait "$building" 2>/dev/null || true; else stopped $signal "while packages are installed"; fi
done
set +m
build || wrong "after all that a build does not succeed"
published=$(sha256sum <"$tiny/tram-tiny.qcow2")
settled "the build after the killed one"
ok "the next build cleans up after the killed one, and succeeds ($(stat -c %s "$tiny/tram-tiny.qcow2") bytes)"
build
grep -q 'up to date' "$scratch/said" || wrong "built again although nothing has changed"
ok "nothing to do the second time"

echo 'touch /begun; sleep 100000' >>"$recipe/customize"
set -m
"$scratch/images/build" tiny >"$scratch/said" 2>&1 </dev/null &
building=$!
set +m
until compgen -G "$tiny/work.*/root/begun" >/dev/null; do
    [ -d "/proc/$building" ] || wrong "it ended before its customize began"
    sleep 0.1
done
kill -TERM "$building"
stopped TERM "while a script of the recipe runs"
sed -i '/begun/d' "$recipe/customize"

# --- what is published stays whole ----------------------------------------------------------------

touch "$scratch/images/tiny/new"
echo "echo changed >/etc/changed" >>"$recipe/customize"
used=$(df --output=used -m "$cache" | tail -n1 | tr -d ' ')
for more in 60 150 230; do
    size $((used + more))
    breaks B-202 "a change, with $more MiB left"
done
size 900
echo false >>"$recipe/customize"
breaks B-206 "a customize that fails"
sed -i '/^false$/d; /changed/d' "$recipe/customize"
rm "$scratch/images/tiny/new"

# --- the same again -------------------------------------------------------------------------------

cp "$tiny/tram-tiny.json" "$scratch/lock.json"
export TRAM_DEBIAN_SNAPSHOT=20261101T000000Z TRAM_SNAPSHOT_SITE=$site/archive
TRAM_DEBIAN_SNAPSHOT=2026-11-01 breaks B-108 "a snapshot that is no time" --force
sed 's/"e2fsprogs": "[^"]*"/"e2fsprogs": "1.0-1"/' "$scratch/lock.json" >"$scratch/other.json"
breaks B-111 "a lock the archive can't keep" --force --lock "$scratch/other.json"
grep -q '^e2fsprogs: locked 1.0-1, here 1\.' "$scratch/said" || wrong "not said which package"
echo '{}' >"$scratch/none.json"
breaks B-110 "a lock that is none" --lock "$scratch/none.json"
build --force --lock "$scratch/lock.json" || wrong "a locked build of a snapshot does not succeed"
python3 - "$scratch/lock.json" "$tiny/tram-tiny.json" "$site" <<'PY' || wrong "the locked build is another one"
import json, sys
was, now = (json.load(open(path)) for path in sys.argv[1:3])
assert now["snapshot"] == "20261101T000000Z" and now["mirror"] == f"{sys.argv[3]}/archive/debian/20261101T000000Z", now["mirror"]
assert now["packages"] == was["packages"]
for name in ("etc/apt/preferences.d/tram-lock",):
    assert name not in now["files"]
print("    same bytes" if now["sha256"] == was["sha256"] else "    same packages, other bytes")
PY
ok "the snapshot, held to the manifest of the first build"
say "tests/images: $count faults met in $((SECONDS - began)) s"
