#!/usr/bin/env bash
# The Windows recipe as far as it goes without Windows: what it writes stands against the schemas of answer files and
# of libvirt's domains, what a person may get wrong is refused with a sentence, and libvirt takes the machine. 5 s.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
recipe=$root/images/windows
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() {
    printf 'tests/windows: %s\n' "$*" >&2
    exit 1
}

"$recipe/build" --out "$scratch/out" >/dev/null
for answers in autounattend.xml tram/clone.xml; do
    xmllint --nonet --noout --relaxng "$recipe/unattend.rng" "$scratch/out/$answers" 2>"$scratch/said" || fail "$answers: $(cat "$scratch/said")"
done
# The schema would notice: a pass too much, an administrator, a command that setup would cut off.
for bent in 's/pass="specialize"/pass="specialise"/' 's/<Group>Users/<Group>Administrators/' \
    "s/cmd.exe/$(printf 'x%.0s' {1..200})cmd.exe/" 's/<ComputerName>\*/<ComputerName>a_name_much_too_long/'; do
    sed "$bent" "$scratch/out/tram/clone.xml" >"$scratch/bent.xml"
    ! xmllint --nonet --noout --relaxng "$recipe/unattend.rng" "$scratch/bent.xml" 2>/dev/null || fail "the schema lets $bent through"
done
virt-xml-validate "$scratch/out/install.xml" domain >/dev/null 2>&1 || fail "install.xml is no domain"
if [ -S /var/run/libvirt/libvirt-sock ]; then
    # A name of its own, and it is not started: there is no such disc.
    name=tram-windows-test-$$
    sed "s/tram-windows-golden/$name/; s/type=\"kvm\"/type=\"qemu\"/; s/host-passthrough/maximum/; /<hyperv/,/<\/hyperv>/d; /hypervclock/d" \
        "$scratch/out/install.xml" >"$scratch/define.xml"
    virsh -q -c qemu:///system define "$scratch/define.xml" >/dev/null
    virsh -q -c qemu:///system dumpxml "$name" >"$scratch/defined.xml"
    virsh -q -c qemu:///system undefine "$name" --nvram >/dev/null
    for part in secure-boot '<tpm '; do grep -q -- "$part" "$scratch/defined.xml" || fail "libvirt dropped $part"; done
fi
python3 - "$scratch/out" <<'PY' || fail "what a clone is told is wrong"
import base64, configparser, json, pathlib, re, sys
out = pathlib.Path(sys.argv[1])
told = json.loads((out / "tram/settings.json").read_text())
assert told["portal"].startswith("https://") and any("Hộ tịch" in b["name"] for b in told["bookmarks"]), told
for name in ("cloudbase-init.conf", "cloudbase-init-unattend.conf"):
    conf = configparser.RawConfigParser()
    conf.read_string((out / "tram" / name).read_bytes().decode())
    d = conf["DEFAULT"]
    assert "NoCloudConfigDriveService" in d["metadata_services"] and d["first_logon_behaviour"] == "no", name
    assert all(re.fullmatch(r"cloudbaseinit(\.\w+)+", p) for p in d["plugins"].split(",")), name
for name in ("autounattend.xml", "tram/clone.xml"):
    for secret in re.findall(r"<Value>([A-Za-z0-9+/=]+)</Value>\s*<PlainText>", (out / name).read_text()):
        assert base64.b64decode(secret).decode("utf-16-le") in ("Password", "AdministratorPassword"), name
for name in ("setup.ps1", "hostname.ps1"):
    script = (out / "tram" / name).read_bytes()
    assert script.startswith(b"\xef\xbb\xbf") and b"\r\n" in script, name
    text = script.decode("utf-8-sig")
    assert text.count("{") == text.count("}") and text.count("(") == text.count(")"), name
PY

refused() { # WORDS SED-EXPRESSION
    sed "$2" "$recipe/windows.toml" >"$scratch/wrong.toml"
    ! cmp -s "$recipe/windows.toml" "$scratch/wrong.toml" || fail "$2 changes nothing"
    ! "$recipe/build" --config "$scratch/wrong.toml" --out "$scratch/wrong" >"$scratch/said" 2>&1 || fail "$2 was taken"
    grep -qF -- "$1" "$scratch/said" || fail "$2: not said: $1; but: $(cat "$scratch/said")"
    [ ! -e "$scratch/wrong" ] || fail "$2: something was written"
}
refused "is not TOML" 's/^release = 11/release = /'
refused "windows.relase is not known" 's/^release/relase/'
refused "[dekstop] is not known" 's/^\[desktop\]/[dekstop]/'
refused "windows.release is 10 or 11" 's/^release = 11/release = 12/'
refused "edition must be" 's/Windows 11 Enterprise"/<Value>"/'
refused "user must be" 's/"canbo"/"cán bộ"/'
refused "a name of Windows's own" 's/"canbo"/"administrator"/'
refused "desktop.portal must be" "s|^portal = .*|portal = \"javascript:alert(1)\"|"
refused "the bookmark" 's|"https://hotichdientu.moj.gov.vn/"|"file:///C:/"|'
refused "five groups" 's/^# product_key = .*/product_key = "123"/'
refused "from 32 to 2048" 's/^disk_gib = 48/disk_gib = 8/'

# Media are compared before anything is written.
printf disc >"$scratch/Win11_Enterprise_x64.iso"
cp "$recipe/windows.toml" "$scratch/windows.toml"
media() { "$recipe/build" --config "$scratch/windows.toml" --out "$scratch/media" --check-media 2>&1 || true; }
[[ $(media) == *"SHA-256 of windows_iso is not filled in"* ]] || fail "an empty SHA-256 was taken: $(media)"
sed -i "s/^windows_sha256 = .*/windows_sha256 = \"$(printf '0%.0s' {1..64})\"/" "$scratch/windows.toml"
[[ $(media) == *"W-106"* ]] || fail "another disc was taken: $(media)"
sed -i "s/^windows_sha256 = .*/windows_sha256 = \"$(printf disc | sha256sum | cut -d' ' -f1)\"/" "$scratch/windows.toml"
[[ $(media) == *"virtio_iso is not filled in"* ]] || fail "the right disc was not taken: $(media)"
[ ! -e "$scratch/media" ] || fail "something was written although a disc is missing"
echo "windows: passed"
