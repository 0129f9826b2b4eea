#!/usr/bin/env bash
# A newcomer's first hour on a bare Debian with a real systemd, as a user who has sudo: clone, `make demo`, again
# `make demo`, `make demo-clean`. Everything is installed, fetched and built in there; nothing of this machine's
# caches is used but the Rust toolchain (with --own-rust not even that). 15 to 40 min; needs root.
#   tests/nspawn/newcomer.sh [trixie|bookworm] [--setup-only] [--own-rust]
set -euo pipefail
# shellcheck source=tests/nspawn/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "$(id -u)" -eq 0 ] || fail "this needs root"

suite=trixie
setup_only=
own_rust=
for arg; do
    case $arg in
        trixie | bookworm) suite=$arg ;;
        --setup-only) setup_only=1 ;;
        --own-rust) own_rust=1 ;;
        *) fail "usage: tests/nspawn/newcomer.sh [trixie|bookworm] [--setup-only] [--own-rust]" ;;
    esac
done

binds=()
path=
if [ -z "$own_rust" ]; then
    binds+=(--bind-ro="$(cd "$root" && rustc --print sysroot):/opt/rust")
    path=/opt/rust/bin:
fi
spawn_boot "$suite" "${binds[@]}"
git clone -q --bare "$root" "$machine/opt/tram.git"
say "$suite is up: $(spawn_run systemctl is-system-running || true)"
spawn_run systemctl --failed --no-legend --plain
spawn_run adduser --quiet --disabled-password --gecos '' van-hanh
spawn_run sh -c 'echo "van-hanh ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/van-hanh'
as_user() { spawn_as van-hanh "export PATH=$path\$PATH; cd tram && $1"; }
timed() { # what, command line of the user
    local began=$SECONDS
    say "$1"
    as_user "$2"
    say "$1: $((SECONDS - began)) s"
}
spawn_as van-hanh 'git config --global --add safe.directory "*" && git clone -q /opt/tram.git tram'

if [ -n "$setup_only" ]; then
    timed "make setup, from nothing" "make setup"
    timed "make setup, again" "make setup"
    timed "libvirt, by systemd" ".ci/libvirt up /tmp/note && sudo virsh -c qemu:///system version"
    spawn_run systemctl is-active libvirtd.service virtlogd.service
    as_user ".ci/libvirt down /tmp/note"
else
    timed "make demo, cold" "DEMO_ONCE=1 make demo"
    timed "make demo, again" "DEMO_ONCE=1 make demo"
    timed "make demo-clean" "make demo-clean </dev/null"
    left=$(spawn_run sh -c 'ls -A /home/van-hanh/.local/share /var/lib/libvirt/images 2>/dev/null; ls /etc/libvirt/qemu/*.xml 2>/dev/null' || true)
    case $left in *tram*) fail "demo-clean left something: $left" ;; esac
fi
say "newcomer: all passed on $suite"
