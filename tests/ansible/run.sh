#!/usr/bin/env bash
# The recipes of ansible/ against bare Debian machines with a real systemd: lint, specifications, bad inventories; then
# site.yml stopped half-way, finished, repeated (nothing changes), checked; officer's path, monitoring, dynamic inventory,
# stale token, rollout with a computer that is off, backup, the controller destroyed and restored, upgrade, and an
# upgrade that goes wrong. 6 min on a quiet machine; the machines need root.
#   tests/ansible/run.sh [--static]      --static: only what needs no machine (1 min)
#   TRAM_ANSIBLE_SUITES="trixie bookworm"   of the controller's and of the office's machine
#   TRAM_ANSIBLE_GUESTS=1                   virtual machines instead of containers (make test-infra; an hour without KVM)
#   TRAM_ANSIBLE_ACCEL=kvm                  theirs (default tcg: a /dev/kvm that is there need not work)
# shellcheck disable=SC2016 # what stands in single quotes is for the shell in there
set -euo pipefail
# shellcheck source=tests/ansible/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ "${1:-}" = --static ] || spawn_root TRAM_ANSIBLE_SUITES="${TRAM_ANSIBLE_SUITES:-}" TRAM_ANSIBLE_GUESTS="${TRAM_ANSIBLE_GUESTS:-}" TRAM_ANSIBLE_ACCEL="${TRAM_ANSIBLE_ACCEL:-}" "$0" "$@"

read -r controllers_suite offices_suite <<<"${TRAM_ANSIBLE_SUITES:-trixie bookworm}"
scratch=$(mktemp -d)
spawn_scratch=$scratch
trap spawn_stop EXIT
began=$SECONDS
step() { say "[$((SECONDS - began)) s] $*"; }
ok() { echo "    ok: $*"; }

# play NAME ARGUMENT...: runs a playbook, what it says goes to a file that is shown when it fails.
log=$scratch/play.log
# An emulated machine takes its time at each door.
[ -z "${TRAM_ANSIBLE_GUESTS:-}" ] || export ANSIBLE_TIMEOUT=90
play() {
    local status=0
    (cd "$recipes" && ansible-playbook -i "$scratch/hosts.yml" "$@") >"$log" 2>&1 </dev/null || status=$?
    return "$status"
}
must() {
    play "$@" || { tail -n 60 "$log" >&2; fail "ansible-playbook $* failed"; }
}
# must_fail WORDS ARGUMENT...: fails, and says these words.
must_fail() {
    local words=$1
    shift
    ! play "$@" || fail "ansible-playbook $* should have failed"
    # The words may be broken over lines.
    tr -s ' \n' '  ' <"$log" | grep -qF -- "$words" || { tail -n 40 "$log" >&2; fail "ansible-playbook $* failed, but did not say: $words"; }
    ok "refused: $words"
}
changed_nothing() {
    ! grep -E '^[^ ]+ +: ok=.* changed=[1-9]' "$log" || { grep -B3 '^changed:' "$log" >&2 || true; fail "$1 changed something"; }
    ok "$1 changes nothing"
}
until_true() { # SECONDS WHAT COMMAND...
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    # An emulated machine takes its time.
    [ -z "${TRAM_ANSIBLE_GUESTS:-}" ] || limit=$((limit + 600))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -le "$limit" ] || { vain || true; fail "waited in vain: $what (${*@Q})"; }
        sleep 0.5
    done
    ok "$what"
}

# What the one who reads of a vain wait wants to know next.
vain() {
    df -h "$scratch" /var/lib
    [ -z "$(type -t admin)" ] || for what in host pool desktop; do admin "$what" list; done
    [ -z "$(type -t on_controller)" ] || on_controller journalctl --no-pager --lines 40 -u 'tram-*' -u 'libvirt*' -u 'virt*'
} >&2

# says WORDS COMMAND...: the command's output has these words.
says() {
    local words=$1
    shift
    [[ $("$@" 2>/dev/null) == *"$words"* ]]
}

step "lint, syntax, specifications"
ansible_tools
(cd "$recipes" && ansible-lint -q >&2)
(cd "$recipes" && for book in *.yml; do ansible-playbook --syntax-check -i inventories/example "$book" >/dev/null; done)
python3=$(command -v ansible-playbook)
"${python3%/*}/python3" "$root/tests/ansible/specs.py" "$recipes/roles"
"${python3%/*}/python3" "$root/tests/ansible/inventory_test.py"

step "inventories with faults"
spawn_net=198.18.0
ansible_inventory "$scratch/good.yml"
refused() { # WORDS SED-EXPRESSION
    sed "$2" "$scratch/good.yml" >"$scratch/hosts.yml"
    must_fail "$1" preflight.yml
}
refused "several hosts stand at one address: tram-1, co-loa-1" "s/$spawn_net\\.11/$spawn_net.10/"
refused "duplicate" "s/^    wave_01:/    site_00505: {hosts: {co-loa-1: {}}}\n    wave_01:/"
refused "no role knows controller_lissten" "s/controller_sites:/controller_lissten: x\n        controller_sites:/"
refused "stands in several communes: site_00001, site_00505" "s/^    wave_01:/    site_00001: {hosts: {co-loa-1: {}}}\n    wave_01:/"
cp "$scratch/good.yml" "$scratch/hosts.yml"
must preflight.yml
ok "and one without"
if [ "${1:-}" = --static ]; then
    say "ansible: static part passed"
    exit 0
fi
step "packages and machines: $controllers_suite and $offices_suite, bare"
ssh-keygen -q -t ed25519 -N '' -f "$scratch/key"
mkdir "$scratch/packages"
ansible_packages "$scratch/packages"
spawn_network $$
spawn_neighbours=("$spawn_net.10 tram-1" "$spawn_net.11 co-loa-1" "$spawn_net.12 gw-1")
ansible_machine tram-1 "$controllers_suite" "$spawn_net.10"
ansible_machine co-loa-1 "$offices_suite" "$spawn_net.11"
ansible_machine gw-1 "$controllers_suite" "$spawn_net.12"
ansible_inventory "$scratch/hosts.yml"
on_controller() { ansible_on "$spawn_net.10" "$@"; }
on_gateway() { ansible_on "$spawn_net.12" "$@"; }
on_endpoint() { ansible_on "$spawn_net.11" "$@"; }
admin() { on_controller tram-controller admin "$@"; }

step "a host without virtualization is told so"
on_controller grep -qEw 'vmx|svm' /proc/cpuinfo || must_fail "offers no virtualization" site.yml --limit tram-1 --tags preflight -e '{"libvirt_host_emulation": false}'

step "site.yml, stopped half-way"
# A process group of its own, ended whole, as with a terminal that is closed.
(cd "$recipes" && exec setsid ansible-playbook -i "$scratch/hosts.yml" site.yml) >"$log" 2>&1 </dev/null &
playing=$!
until grep -q 'TASK \[controller : Make a certificate\]' "$log" || [ ! -d "/proc/$playing" ]; do sleep 0.2; done
kill -TERM -- "-$playing" 2>/dev/null || true
wait "$playing" || true
grep -q 'TASK \[controller : Make a certificate\]' "$log" || { tail -n 40 "$log" >&2; fail "it ended before"; }
! grep -q 'PLAY RECAP' "$log" || fail "it was not stopped"
ok "stopped while the controller was set up"

step "site.yml again, to the end"
must site.yml
step "a second time"
must site.yml
changed_nothing "a second run"
must site.yml --check
changed_nothing "a check"

step "the officer's path"
on_controller cat /var/lib/tram/tls/ca.pem >"$scratch/ca.pem"
curl=(curl --silent --show-error --max-time 20 --cacert "$scratch/ca.pem" --resolve "tram-1:8443:$spawn_net.10")
until_true 30 "the controller answers by its name and certificate" "${curl[@]}" --fail https://tram-1:8443/readyz
password=$(admin user add lan --role officer --site 00505 --generate --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["password"])')
"${curl[@]}" --fail --output "$scratch/login" --json "{\"username\": \"lan\", \"password\": \"$password\"}" https://tram-1:8443/api/v1/login
grep -q '"officer"' "$scratch/login" || fail "the officer could not sign in"
ok "an officer signs in"
# A debug build reads the console from its source tree, so in here it only says that it has none.
says Tram "${curl[@]}" --fail https://tram-1:8443/console/ || fail "no console"
ok "the console's address answers"
on_controller stat -c %U:%a /root/tram-passwords/truc-ban | grep -qx root:600 || fail "the operator's first password is not root's alone"
! grep -qE 'postgres://[^ ]*:[^ ]*@' "$log" || fail "the database's password is in the log"
on_controller sh -c 'stat -c %U:%G:%a /etc/tram/controller.toml' | grep -qx root:tram:640 || fail "settings are open"
ok "secrets are root's and the controller's alone"

step "monitoring and the host"
asked() { on_controller curl --silent --fail --get --data-urlencode "query=$1" http://127.0.0.1:9090/api/v1/query; }
until_true 90 "Prometheus hears the controller" says '"instance"' asked 'up{job="tram"} == 1'
on_controller tram-controller status --json | grep -q '"state": "up"' || fail "the hypervisor host is not up"
ok "the node's host is up"

step "gateways: one beside the controller, one on a machine of its own"
for gateway in "tram-1 $spawn_net.10" "gw-1 $spawn_net.12"; do
    read -r name address <<<"$gateway"
    "${curl[@]}" --fail --resolve "$name.tram.test:9443:$address" "https://$name.tram.test:9443/readyz" >/dev/null || fail "$name is not ready"
done
ok "browsers reach both by their names, with a certificate for them"
admin gateway list --json | python3 -c 'import json,sys; text=sys.stdin.read(); rows=json.loads(text) if text.startswith("[") else [json.loads(l) for l in text.splitlines()]; names=sorted(r["name"] for r in rows if r["state"]=="live"); assert {"gw-1", "tram-1-gateway"} <= set(names), rows' ||
    fail "Tram does not count on both: $(admin gateway list)"
ok "Tram counts on both"
on_gateway sh -c '! grep -rl "PRIVATE KEY" /var/lib/tram/device-ca.pem /var/lib/tram/node-ca.pem 2>/dev/null' >/dev/null || fail "an authority's key stands on the gateway"
on_gateway stat -c %U:%a /var/lib/tram/gateway-nodes.pem /var/lib/tram/tls/server.key /etc/tram/controller.toml | tr '\n' ' ' |
    grep -qx 'tram:600 tram:600 root:640 ' || fail "the gateway's files are open: $(on_gateway ls -l /var/lib/tram /etc/tram)"
on_gateway sh -c '! systemctl is-active --quiet tram-controller.service' || fail "a controller runs on the gateway's machine"
on_controller systemctl stop tram-controller.service
"${curl[@]}" --fail --resolve "gw-1.tram.test:9443:$spawn_net.12" https://gw-1.tram.test:9443/readyz >/dev/null || fail "the gateway does not outlive the controller"
on_controller systemctl start tram-controller.service
until_true 30 "it is ready without a controller, and has no authority's key" "${curl[@]}" --fail https://tram-1:8443/readyz

step "the inventory that asks the controller"
on_controller cat /root/tram-passwords/truc-ban >"$scratch/password"
export TRAM_INVENTORY_URL=https://$spawn_net.10:8443 TRAM_INVENTORY_USER=truc-ban TRAM_INVENTORY_PASSWORD_FILE=$scratch/password TRAM_INVENTORY_CA=$scratch/ca.pem
(cd "$recipes" && ansible-inventory -i inventories/tram_inventory.py --list) >"$scratch/list.json"
python3 - "$scratch/list.json" "$spawn_net.11" <<'PY' || fail "the dynamic inventory is wrong: $(cat "$scratch/list.json")"
import json, sys
d = json.load(open(sys.argv[1]))
host = d["_meta"]["hostvars"]["co-loa-1"]
assert host["ansible_host"] == sys.argv[2] and host["endpoint_site"] == "00505", host
for group in ("endpoints", "site_00505", "district_017", "phase_1"):
    assert d[group]["hosts"] == ["co-loa-1"], group
PY
ok "it knows the office's computer, its commune, district and phase"
TRAM_INVENTORY_USER=nobody "$recipes/inventories/tram_inventory.py" --list >/dev/null 2>"$scratch/said" && fail "a wrong account was let in"
grep -q 'A-101' "$scratch/said" || fail "not said why: $(cat "$scratch/said")"
ok "a wrong account is told so"

step "a stale token"
used=$(admin endpoint token --site 00505)
on_endpoint env "TRAM_ENROL_TOKEN=$used" tram-agent --state /tmp/other enrol --controller "https://$spawn_net.10:8444" >/dev/null
on_endpoint sh -c 'systemctl stop tram-agent; mv /var/lib/tram-agent/identity.json /root/'
must_fail "co-loa-1 is not enrolled:" site.yml --limit co-loa-1 -e "endpoint_token=$used"
! grep -qF "$used" "$log" || fail "the token is in the log"
on_endpoint sh -c 'mv /root/identity.json /var/lib/tram-agent/'
must site.yml --limit co-loa-1
ok "with its identity back it is linked"

step "rollout: a wave with a computer that is off"
sed -i "s|^    wave_01:|    site_00001:\n      vars: {endpoint_site: \"00001\"}\n      hosts: {off-1: {ansible_host: $spawn_net.99}}\n    wave_00:\n      children: {site_00001: {}}\n    wave_01:|" "$scratch/hosts.yml"
[ -n "${TRAM_ANSIBLE_GUESTS:-}" ] || export ANSIBLE_TIMEOUT=5
must_fail "the rollout stops" rollout.yml
grep -q 'off-1: it can not be reached' "$log" || fail "it did not say which"
! grep -q 'included: endpoint for co-loa-1' "$log" || fail "the next wave was touched"
must rollout.yml -e rollout_from=wave_01
grep -q '1 of 1 are up' "$log" || fail "the gate said nothing"
ok "the next wave was left alone; from there on it goes"
[ -n "${TRAM_ANSIBLE_GUESTS:-}" ] || unset ANSIBLE_TIMEOUT
ansible_inventory "$scratch/hosts.yml"

step "a pool, a backup; then the controller's machine is gone"
on_controller sh -c 'qemu-img create -q -f qcow2 /tmp/golden.qcow2 1G && chmod 644 /tmp/golden.qcow2'
admin image add --name thu --version 1 --file /tmp/golden.qcow2 >/dev/null
# Small ones: a virtual machine has 2 GiB for itself and them.
admin pool create --name co-loa --site 00505 --image thu --size 2 --vcpus 1 --memory-mib 256 --no-start >/dev/null
desktops() { admin desktop list --json | python3 -c 'import json,sys; print(sorted(d["id"] for d in json.load(sys.stdin)))'; }
two() { [[ $(desktops) == *,* ]]; }
until_true 60 "two desktops are written down" two
admin desktop start co-loa-01 >/dev/null
until_true 90 "libvirt runs one of them for the node" says co-loa-01 on_controller virsh -q -c qemu:///system list --state-running
admin desktop stop co-loa-01 --force >/dev/null
before=$(desktops)
must backup.yml -e "backup_to=$scratch/backups" -e '{"backup_images": true}'
kept=$(echo "$scratch"/backups/tram-*)
[ "$(stat -c %a "$kept/controller.tar")" = 600 ] || fail "the backup is open to others"
ok "backup: $(du -sh "$kept" | cut -f1)"
spawn_end tram-1
spawn_neighbours=("$spawn_net.10 tram-1" "$spawn_net.11 co-loa-1" "$spawn_net.12 gw-1")
ansible_machine tram-1 "$controllers_suite" "$spawn_net.10"

step "a bare machine at its address, site.yml, restore.yml"
must site.yml --limit tram-1
must_fail "restore_replaces=all" restore.yml -e "restore_from=$kept"
cp -r "$kept" "$scratch/altered"
printf x >>"$scratch/altered/database.dump"
must_fail "SHA256SUMS" restore.yml -e "restore_from=$scratch/altered" -e restore_replaces=all
must restore.yml -e "restore_from=$kept" -e restore_replaces=all
[ "$(desktops)" = "$before" ] || fail "the desktops' rows are others: $before before, $(desktops) now"
on_controller sh -c 'test -n "$(find /var/lib/tram/images -type f)"' || fail "the image's file is gone"
ok "the desktops' rows and the image are there"
says '"state": "up"' on_controller tram-controller status --json || fail "the host's node was not taken over"
ok "the host, whose certificate another authority had made, is up"
"${curl[@]}" --fail --output "$scratch/login" --json "{\"username\": \"lan\", \"password\": \"$password\"}" https://tram-1:8443/api/v1/login
ok "the officer signs in with the former password, and the certificate is the former one"
until_true 60 "the gateway has found the way to the new database" "${curl[@]}" --fail --resolve "gw-1.tram.test:9443:$spawn_net.12" https://gw-1.tram.test:9443/readyz

step "upgrade"
must upgrade.yml -e tram_version=0.9.1
on_controller dpkg-query -W -f '${Version}' tram-controller | grep -qx 0.9.1 || fail "not upgraded"
until_true 30 "0.9.1 is healthy" "${curl[@]}" --fail https://tram-1:8443/readyz
must_fail "which is newer than 0.9.0: write the present release into the inventory" site.yml --limit tram-1 --tags controller
on_gateway dpkg-query -W -f '${Version}' tram-controller | grep -qx 0.9.1 || fail "the gateway was not upgraded"
until_true 30 "and the gateway" "${curl[@]}" --fail --resolve "gw-1.tram.test:9443:$spawn_net.12" https://gw-1.tram.test:9443/readyz
step "an upgrade that goes wrong"
must_fail "runs 0.9.1 again" upgrade.yml -e tram_version=0.9.2 -e upgrade_wait_s=5
on_controller dpkg-query -W -f '${Version}' tram-controller | grep -qx 0.9.1 || fail "not put back"
until_true 30 "0.9.1 is healthy again" "${curl[@]}" --fail https://tram-1:8443/readyz
[ "$(desktops)" = "$before" ] || fail "the desktops' rows are gone"
# It asks again after five minutes at most, and others were busy with its controller meanwhile.
until_true 420 "the agent has come back by itself, to the restored authority" on_endpoint tram-agent status

say "ansible: all passed in $((SECONDS - began)) s"
