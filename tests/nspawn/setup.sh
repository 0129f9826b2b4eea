#!/usr/bin/env bash
# `make setup` and libvirt on a bare Debian with a real systemd, as a user who has sudo: the packages are found
# and installed, libvirt comes up by its own units, a domain of ours starts and stops. 3 to 5 min; needs root.
#   tests/nspawn/setup.sh [trixie|bookworm]
set -euo pipefail
# shellcheck source=tests/nspawn/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(id -u)" -eq 0 ] || fail "this needs root"

suite=${1:-trixie}
# Rust itself is not what is tried here: 500 MB that this machine has.
rust=$(cd "$root" && rustc --print sysroot)
spawn_boot "$suite" --bind-ro="$rust:/opt/rust" --bind-ro="$root:/opt/tram"
say "$suite is up: $(spawn_run systemctl is-system-running || true)"
spawn_run adduser --quiet --disabled-password --gecos '' van-hanh
spawn_run sh -c 'echo "van-hanh ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/van-hanh'
as_user() { spawn_as van-hanh "export PATH=/opt/rust/bin:\$PATH; $1"; }
as_user 'git config --global --add safe.directory "*" && git clone -q /opt/tram tram'

say "make setup, from nothing"
began=$SECONDS
as_user 'cd tram && .ci/setup test'
echo "    $((SECONDS - began)) s"
say "and again, with all there"
began=$SECONDS
as_user 'cd tram && .ci/setup test'
echo "    $((SECONDS - began)) s"

say "libvirt, by systemd"
as_user 'cd tram && .ci/libvirt up /tmp/note && sudo virsh -c qemu:///system version'
spawn_run systemctl is-active libvirtd.service libvirtd.socket virtlogd.service virtlogd.socket || true
as_user 'cat >probe.xml <<XML
<domain type="qemu"><name>probe</name><memory unit="MiB">64</memory><vcpu>1</vcpu>
<os><type arch="x86_64" machine="q35">hvm</type></os>
<devices><graphics type="vnc"><listen type="none"/></graphics><graphics type="spice"><listen type="none"/></graphics></devices></domain>
XML
sudo virsh -c qemu:///system create probe.xml && sudo virsh -c qemu:///system domstate probe \
    && sudo virsh -c qemu:///system destroy probe'
as_user 'cd tram && .ci/libvirt down /tmp/note'
say "setup: all passed on $suite"
