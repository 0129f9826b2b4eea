#!/usr/bin/env bash
# What can be said of the images without building one: manifests of services good and bad, the probe program, signatures.
# A few seconds, no root, no network.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
count=0
ok() { count=$((count + 1)); }
fail() { echo "tests/images: $*" >&2; exit 1; }
# refuses WORDS COMMAND...: it must fail, and say these words.
refuses() {
    local words=$1 said
    shift
    if said=$("$@" 2>&1); then fail "was accepted: $*"; fi
    [[ $said == *"$words"* ]] || fail "$* said '$said', not '$words'"
    ok
}

# --- manifests ------------------------------------------------------------------------------------

services() { python3 -B "$root/images/lib/services.py" "$@"; }
ours=$root/images/services.toml
for image in desktop test endpoint bare; do
    services "$image" "$ours" --check
    ok
done
services desktop "$ours" --packages | grep -x firefox-esr >/dev/null || fail "the desktop has no browser"
if services desktop "$ours" --packages | grep libreoffice >/dev/null; then fail "LibreOffice is there unasked"; fi
TRAM_IMAGE_LIBREOFFICE=1 services desktop "$ours" --packages | grep -x libreoffice-writer >/dev/null || fail "LibreOffice can't be had"
ok

bad() { # words, text of one service
    printf '%s\n' "$2" >"$scratch/bad.toml"
    refuses "$1" services desktop "$ours" "$scratch/bad.toml" --check
}
entry() { printf '[[service]]\nid = "mot-cua"\nname = "Một cửa"\n%s\n' "$1"; }
bad 'either package or url' "$(entry '')"
bad 'either package or url' "$(entry $'package = "gedit"\nurl = "https://x.example/"\nprobe = "true"')"
bad 'probe is missing' "$(entry 'package = "gedit"')"
bad 'no name of a Debian package' "$(entry $'package = "gedit; reboot"\nprobe = "true"')"
bad 'begins with http' "$(entry 'url = "javascript:alert(1)"')"
bad 'deadline_s must be 1 to 120' "$(entry $'url = "https://x.example/"\ndeadline_s = 4000')"
bad 'deadline_s has the wrong type' "$(entry $'url = "https://x.example/"\ndeadline_s = "20"')"
bad 'unknown key' "$(entry $'url = "https://x.example/"\ncolour = "red"')"
bad "no image 'phone'" "$(entry $'url = "https://x.example/"\nimages = ["phone"]')"
bad 'two services are called' "$(entry 'url = "https://x.example/"')
$(entry 'url = "https://y.example/"')"
bad 'must be one line' "$(entry $'package = "gedit"\nprobe = "true\\nfalse"')"
bad 'unknown key' '[[services]]'
bad 'bad.toml' 'id = '
printf '[[service]]\nid = "x"\n' >"$scratch/alone.toml"
refuses 'name is missing' services desktop "$scratch/alone.toml" --check

# One of a data centre's own, and where it comes out.
entry 'url = "https://motcua.example.vn/a?b=1&c=%20"' >"$scratch/own.toml"
services desktop "$ours" "$scratch/own.toml" --into "$scratch/root"
python3 - "$scratch/root" <<'PY'
import json, pathlib, sys
root = pathlib.Path(sys.argv[1])
policies = json.loads((root / "etc/firefox/policies/policies.json").read_text())["policies"]
assert policies["Homepage"]["URL"] == policies["ManagedBookmarks"][1]["url"], "the portal is not the start page"
assert any(mark.get("url") == "https://motcua.example.vn/a?b=1&c=%20" for mark in policies["ManagedBookmarks"])
assert policies["DisableTelemetry"] and not policies["CaptivePortal"]
icons = list((root / "usr/local/share/tram/icons").glob("*-mot-cua.desktop"))
assert len(icons) == 1 and "c=%%20" in icons[0].read_text(), "an icon's % must be doubled"
assert any(line.startswith("mot-cua\t20\tfar\t") for line in (root / "usr/local/share/tram/probes.tsv").read_text().splitlines())
PY
ok

# --- probes ---------------------------------------------------------------------------------------

printf 'good\t5\there\ttrue\nbad\t5\there\tfalse\nmute\t1\there\tsleep 60\naway\t5\tfar\tfalse\n' >"$scratch/probes.tsv"
said=$(TRAM_PROBES=$scratch/probes.tsv "$root/images/lib/guest/probe") && fail "broken programs were called fine"
python3 - "$said" <<'PY'
import json, sys
seen = {one["id"]: one for one in map(json.loads, sys.argv[1].splitlines())}
assert {name: one["state"] for name, one in seen.items()} == {"good": "ok", "bad": "failed", "mute": "late", "away": "failed"}, seen
PY
TRAM_PROBES=$scratch/probes.tsv "$root/images/lib/guest/probe" good away >/dev/null || fail "what is far away must not count as broken here"
ok

# --- signatures -----------------------------------------------------------------------------------

openssl genpkey -algorithm ed25519 -out "$scratch/key.pem" 2>/dev/null
openssl pkey -in "$scratch/key.pem" -pubout -out "$scratch/key.pub"
openssl genpkey -algorithm ed25519 -out "$scratch/other.pem" 2>/dev/null
openssl pkey -in "$scratch/other.pem" -pubout -out "$scratch/other.pub"
published=$scratch/published
mkdir "$published"
head -c 100000 /dev/urandom >"$published/tram-x.qcow2"
echo '{}' >"$published/tram-x.json"
TRAM_IMAGE_KEY=$scratch/key.pem "$root/images/sign" "$published"
verify() { "$root/images/verify" --key "$scratch/key.pub" "$published" "$@"; }
verify >/dev/null
verify tram-x.qcow2 >/dev/null
ok
refuses 'not by this key' "$root/images/verify" --key "$scratch/other.pub" "$published"
refuses 'not among the signed files' verify tram-y.qcow2
cp -a "$published" "$scratch/whole"
again() { rm -rf "$published"; cp -a "$scratch/whole" "$published"; }
printf x | dd of="$published/tram-x.qcow2" bs=1 seek=500 conv=notrunc status=none
refuses 'altered or missing: tram-x.qcow2' verify
refuses 'was altered or is missing' verify tram-x.qcow2
(cd "$published" && sha256sum tram-x.json tram-x.qcow2 >SHA256SUMS)
refuses 'not by this key' verify
again
rm "$published/SHA256SUMS.sig"
refuses 'is not signed' verify
again
rm "$published/tram-x.qcow2"
refuses 'altered or missing' verify
again
: >"$published/SHA256SUMS"
refuses 'has no SHA256SUMS' verify

# --- locks ----------------------------------------------------------------------------------------

lock() { "$root/images/lib/lock.py" "$@"; }
printf '{"name": "tram-x", "packages": {\n"libc6": "2.41-12",\n"libss2": "1:1.47.2-3+b1"\n}}\n' >"$scratch/lock.json"
[ "$(lock "$scratch/lock.json" --preferences | grep -c '^Pin: version ')" = 2 ] || fail "a lock does not pin each of its packages"
printf 'Inst libc6 (2.41-12 Debian:13.2/stable [amd64])\nConf libc6 (2.41-12 Debian:13.2/stable [amd64])\n' >"$scratch/apt"
lock "$scratch/lock.json" --simulated "$scratch/apt"
printf 'Inst libc6 (2.41-13 Debian:13.2/stable [amd64])\nInst new (1 Debian:13.2/stable [all])\n' >"$scratch/apt"
refuses 'libc6: locked 2.41-12, here 2.41-13' lock "$scratch/lock.json" --simulated "$scratch/apt"
refuses 'new: locked not at all, here 1' lock "$scratch/lock.json" --simulated "$scratch/apt"
printf 'libc6 2.41-12\nlibss2 1:1.47.2-3+b1\n' >"$scratch/list"
lock "$scratch/lock.json" --installed "$scratch/list"
lock "$scratch/list" --installed "$scratch/list"
ok
sed -i '/libss2/d' "$scratch/list"
refuses 'libss2: locked 1:1.47.2-3+b1, here not at all' lock "$scratch/lock.json" --installed "$scratch/list"
printf '{"packages": {"a; reboot": "1"}}' >"$scratch/bad.json"
refuses 'no package with its version' lock "$scratch/bad.json" --preferences
printf '{}' >"$scratch/bad.json"
refuses 'no packages in it' lock "$scratch/bad.json" --preferences

# --- recipes --------------------------------------------------------------------------------------

for recipe in "$root"/images/*/recipe; do
    bash -n "$recipe"
    name=$(basename "$(dirname "$recipe")")
    [ -n "$("$root/images/build" "$name" --path)" ] || fail "$name has no path"
    for part in packages.list customize; do [ -s "$root/images/$name/$part" ] || fail "$name has no $part"; done
    ok
done
refuses 'B-101: there is no such image' "$root/images/build" nothing
refuses 'B-102: --services: no such file' "$root/images/build" desktop --services "$scratch/absent.toml"
refuses 'B-102: --lock: no such file' "$root/images/build" desktop --lock "$scratch/absent.json"
refuses 'B-110: --lock: ' "$root/images/build" desktop --lock "$scratch/bad.json"
TRAM_DEBIAN_SNAPSHOT=yesterday refuses 'B-108: ' "$root/images/build" desktop --check
grep -hoE '\bB-[0-9]{3}\b' "$root"/images/build "$root"/images/lib/*.sh "$root"/images/*/recipe "$root"/images/*/assemble.sh | sort -u | while read -r code; do
    grep -q "$code" "$root/docs/operations/images.md" || fail "$code stands in no table of docs/operations/images.md"
done
[ "$(TRAM_IMAGE_LIBREOFFICE=1 "$root/images/build" desktop --path)" != "$("$root/images/build" desktop --path)" ] || fail "with LibreOffice it takes the other's place"
ok

echo "tests/images: $count checks passed"
