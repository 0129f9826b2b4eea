#!/usr/bin/env bash
# The Debian packages in a bare Debian with a real systemd: installed, configured, upgraded with all data kept, removed,
# purged; the agent enrols at the controller. 1 min for each suite; needs root.
#   tests/nspawn/packages.sh [trixie|bookworm]...     default: trixie
#   TRAM_PACKAGES=FOLDER    packages made by packaging/build (default: made here from the debug build)
# shellcheck disable=SC2016 # what stands in single quotes is for the shell in there
set -euo pipefail
# shellcheck source=tests/nspawn/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/nspawn/privileges.sh
. "$(dirname "${BASH_SOURCE[0]}")/privileges.sh"
spawn_root "$0" "$@"

[ $# -gt 0 ] || set -- trixie
packages=${TRAM_PACKAGES:-$CARGO_TARGET_DIR/packages-test}
if [ -z "${TRAM_PACKAGES:-}" ]; then
    rm -rf "$packages"
    TRAM_PACKAGE_PROFILE=dev TRAM_PACKAGE_VERSION=0.9.0 "$root/packaging/build" "$packages" >/dev/null
    TRAM_PACKAGE_PROFILE=dev TRAM_PACKAGE_VERSION=0.9.1 "$root/packaging/build" "$packages" >/dev/null
fi
old=$(find "$packages" -name 'tram-controller_*.deb' | sort -V | head -n1)
new=$(find "$packages" -name 'tram-controller_*.deb' | sort -V | tail -n1)
old=${old##*/tram-controller_} new=${new##*/tram-controller_}

# expect WHAT COMMAND...: says what holds, or ends the test.
expect() {
    local what=$1
    shift
    "$@" >/dev/null 2>&1 || fail "not so: $what (${*@Q})"
    echo "    ok: $what"
}
refuse() {
    local what=$1
    shift
    ! "$@" >/dev/null 2>&1 || fail "not so: $what (${*@Q})"
    echo "    ok: $what"
}
# until_true SECONDS WHAT COMMAND...
until_true() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -gt "$limit" ]; then
            spawn_run journalctl --no-pager -n 30 -u 'tram-*' >&2 || true
            fail "waited in vain: $what (${*@Q})"
        fi
        sleep 0.3
    done
    echo "    ok: $what"
}
apt() { spawn_run apt-get -qq -y -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" >"$machine/root/apt.log" 2>&1 || { tail -n 30 "$machine/root/apt.log" >&2; fail "apt-get $*"; }; }
in_there() { spawn_run sh -c "$1"; }
healthy() { in_there 'curl -fsk https://127.0.0.1:8443/readyz'; }
exposure() { spawn_run systemd-analyze security --no-pager "$1" | sed -n 's/.*Overall exposure level[^:]*: \([0-9.]*\).*/\1/p'; }

try() {
    local suite=$1 token exposed
    say "$suite: bare, then both packages"
    spawn_name=pkg spawn_address=$spawn_net.10 spawn_neighbours=()
    spawn_boot "$suite"
    mkdir "$machine/deb"
    cp "$packages"/*.deb "$machine/deb/"
    apt update
    apt install --no-install-recommends "/deb/tram-controller_$old" "/deb/tram-agent_$old"
    expect "no warning of a missing file" spawn_run dpkg --verify tram-controller tram-agent
    refuse "the controller is not started before it is set up" spawn_run systemctl is-active tram-controller
    expect "the agent is enabled and keeps still" spawn_run systemctl is-enabled tram-agent
    expect "settings are the controller's to read, root's to write" \
        in_there '[ "$(stat -c %U:%G:%a /etc/tram/controller.toml)" = root:tram:640 ]'
    expect "the manual is there" in_there 'test -s /usr/share/man/man8/tram-controller.8.gz && test -s /usr/share/man/man8/tram-agent.8.gz'

    say "$suite: set up by root, run by its own user"
    # As docs/operations/install.md says.
    in_there "sed -i 's|^#listen = .*|listen = \"0.0.0.0:8443\"|; s|^#agent_listen = .*|agent_listen = \"0.0.0.0:8444\"|;
        s|^#public_url = .*|public_url = \"https://pkg:8443\"|' /etc/tram/controller.toml"
    spawn_run tram-controller admin init-tls --names localhost,127.0.0.1
    spawn_run systemctl enable -q --now tram-controller
    until_true 60 "the controller is ready" healthy
    expect "what root's commands made belongs to the controller" in_there '[ -z "$(find /var/lib/tram ! -user tram)" ]'
    spawn_run tram-controller admin site import --builtin hanoi-2016 >/dev/null
    spawn_run tram-controller admin user add lan --role officer --site 00463 --generate >/dev/null
    token=$(spawn_run tram-controller admin endpoint token --site 00463)
    spawn_run env "TRAM_ENROL_TOKEN=$token" tram-agent enrol --controller https://127.0.0.1:8444
    spawn_run systemctl start tram-agent
    until_true 60 "the agent is linked" spawn_run tram-agent status
    expect "its key is its own user's" in_there '[ "$(stat -c %U:%a /var/lib/tram-agent/identity.json)" = tram-agent:600 ]'
    refuse "a used token is refused" spawn_run env "TRAM_ENROL_TOKEN=$token" tram-agent enrol --replace --controller https://127.0.0.1:8444
    # However full this machine's disk is.
    until_true 60 "the hardened agent sees the disk" in_there 'grep -qaE "disk_(ok|low|full)" /var/lib/tram/tram.db*'
    refuse "and does not take its root for read-only" in_there 'grep -qa disk_read_only /var/lib/tram/tram.db*'
    expect "the updater runs since before that, and the agent from where it points" in_there \
        'systemctl is-active -q tram-updater && [ "$(readlink /var/lib/tram-updater/current)" = /usr/bin ] &&
            [ "$(stat -c %U /var/lib/tram-updater/current)" = tram-updater ]'
    until_true 60 "the updater is heard at the controller" in_there \
        'test -s /var/lib/tram-updater/state.json && ! journalctl -u tram-updater | grep -q "asked:"'
    for unit in tram-controller tram-agent tram-updater; do
        exposed=$(exposure $unit.service)
        echo "    systemd-analyze security $unit.service: $exposed"
        expect "$unit is exposed 2.0 at most" awk "BEGIN { exit !(${exposed:-10} <= 2.0) }"
    done
    echo "    systemd-analyze security tram-node.service: $(exposure tram-node.service)"
    try_privileges "$suite"

    say "$suite: upgraded, with a setting of the administrator's"
    in_there 'echo "# ours" >>/etc/tram/controller.toml'
    local before
    before=$(spawn_run systemctl show -p MainPID --value tram-controller)
    apt install --no-install-recommends "/deb/tram-controller_$new" "/deb/tram-agent_$new"
    expect "the new version is there" in_there "dpkg -s tram-controller | grep -q '^Version: ${new%_*}$'"
    until_true 60 "the controller is ready again" healthy
    refuse "it is the new program" [ "$(spawn_run systemctl show -p MainPID --value tram-controller)" = "$before" ]
    expect "the setting is kept" grep -q '^# ours$' "$machine/etc/tram/controller.toml"
    expect "the account is kept" in_there 'tram-controller admin user list --json | grep -q "\"lan\""'
    until_true 120 "the agent comes back by itself" spawn_run tram-agent status

    say "$suite: removed, installed again, purged"
    apt remove tram-controller tram-agent
    refuse "nothing runs" in_there 'pgrep -x "tram-controller|tram-agent|tram-updater"'
    expect "the data stays" in_there 'test -s /var/lib/tram/tram.db && test -s /var/lib/tram-agent/identity.json && test -s /etc/tram/controller.toml'
    apt install --no-install-recommends "/deb/tram-controller_$new" "/deb/tram-agent_$new"
    spawn_run systemctl start tram-controller
    until_true 60 "the controller has its data again" in_there 'curl -fsk https://127.0.0.1:8443/readyz && tram-controller admin user list --json | grep -q "\"lan\""'
    until_true 120 "and the agent its identity" spawn_run tram-agent status
    in_there 'mkdir -p /var/lib/libvirt/images/tram && touch /var/lib/libvirt/images/tram/kept'
    apt purge tram-controller tram-agent
    refuse "settings and data are gone" in_there 'ls -d /etc/tram /var/lib/tram /var/lib/tram-agent /var/lib/tram-updater /etc/systemd/system/multi-user.target.wants/tram-* /etc/systemd/system/tram-*'
    expect "images outside stay" test -e "$machine/var/lib/libvirt/images/tram/kept"
    expect "nothing failed" in_there '[ -z "$(systemctl --failed --no-legend --plain)" ]'
    spawn_end pkg
}

spawn_network $$
for suite; do try "$suite"; done
say "packages: all passed on $*"
