#!/usr/bin/env bash
# Do the recipes of images/ build on other hosts? In a bare root of each images/build is asked what it lacks, exactly that
# is installed, and a very small image is built with every tool and every option that the real recipes use. Needs root and
# the mirrors; 2 min each. Ubuntu's also needs the package ubuntu-archive-keyring.
#   tests/images/hosts.sh [--booted] [bookworm trixie noble...]
# --booted: then the same build in a virtual machine of that root, under its own kernel and systemd: the same bytes, or it
# fails. 10 min more each, emulated.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=.ci/env
. "$root/.ci/env"
[ "$(id -u)" -eq 0 ] || exec sudo env "PATH=$PATH" "$0" "$@"
# What is mounted below is in a name space of its own.
[ -n "${TRAM_HOSTS_INSIDE:-}" ] || exec env TRAM_HOSTS_INSIDE=1 unshare --mount "$0" "$@"
booted=
[ "${1:-}" != --booted ] || { booted=yes && shift; }
[ $# -gt 0 ] || set -- bookworm trixie noble

scratch=$(mktemp -d)
trap 'umount -R "$scratch"/*/dev "$scratch"/*/proc "$scratch"/*/sys 2>/dev/null || true; rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 130' INT TERM

# A recipe that uses what all of them use: GPT, BIOS and EFI, ext4, FAT, squashfs, an initramfs with a second archive.
recipe() {
    mkdir -p "$1"
    printf '%s\n' e2fsprogs shim-signed grub-efi-amd64-signed >"$1/packages.list"
    printf '#!/bin/sh\nset -eu\nmkdir -p /boot\necho kernel >/boot/vmlinuz-0-tiny\necho initramfs >/boot/initrd.img-0-tiny\n' >"$1/customize"
    cp "$root/images/endpoint/"{grub.cfg,boot.ipxe,netboot.cfg,enrol.txt,assemble.sh} "$1/"
    cat >"$1/recipe" <<'RECIPE'
# shellcheck shell=bash disable=SC2034
security_updates=no need_mib=1 efi=yes disk_mib=1200 slot_mib=200 state_mib=32 esp_mib=64
estimate_packages=20 estimate_customize=1 estimate_disk=10
. "$recipe_folder/assemble.sh"
eval "stick_$(declare -f assemble)"
assemble() {
    stick_assemble "$@"
    chmod u+w "$2"/*
    assemble_disk "$@"
}
products() { printf '%s\n' tram-tiny.qcow2 tram-endpoint.img tram-endpoint.squashfs; }
RECIPE
}

# boot SUITE: starts the root in $where as a machine that builds the image once more, and reads what it says.
boot() {
    local kernel=linux-image-amd64 machine=$scratch/$1.disk said=$scratch/$1.serial
    [ "$1" != noble ] || kernel=linux-image-virtual
    say "$1: a kernel and systemd of its own"
    inside sh -c "apt-get -q -y --no-install-recommends install $kernel initramfs-tools systemd-sysv apparmor iproute2 kmod" >"$scratch/apt" 2>&1 || { tail "$scratch/apt" >&2; fail "$1 has no kernel"; }
    # Its packages stay: what is to be seen is the build, not the line.
    find "$where/root/.cache/tram/images/tiny" -mindepth 1 -maxdepth 1 ! -name archives -exec rm -rf {} +
    cat >"$where/root/build-tiny" <<'BUILD'
#!/bin/sh
set -eu
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
rm -f /etc/resolv.conf
echo nameserver 10.0.2.3 >/etc/resolv.conf
echo "under $(uname -sr)"
/root/images/build tiny
/root/images/verify --key /root/.cache/tram/images/keys/image-signing.pub /root/.cache/tram/images/tiny
cd /root/.cache/tram/images/tiny
sha256sum tram-tiny.qcow2 tram-endpoint.squashfs
echo "built under its own kernel"
BUILD
    chmod 755 "$where/root/build-tiny"
    cat >"$where/etc/systemd/system/build-tiny.service" <<'UNIT'
[Unit]
Description=Build a very small image
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin SOURCE_DATE_EPOCH=1750000000
ExecStart=/root/build-tiny
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
UNIT
    mkdir -p "$where/etc/systemd/system/multi-user.target.wants"
    ln -sf /etc/systemd/system/build-tiny.service "$where/etc/systemd/system/multi-user.target.wants/"
    echo '/dev/vda / ext4 defaults 0 1' >"$where/etc/fstab"
    umount "$where/sys" "$where/proc" "$where/dev"
    kernel=$(find "$where/boot" -name 'vmlinuz-*' | sort | head -n1)
    cp "$kernel" "$scratch/$1.kernel"
    cp "$where/boot/initrd.img-${kernel##*/vmlinuz-}" "$scratch/$1.initrd"
    mke2fs -q -t ext4 -d "$where" "$machine" 12G >/dev/null
    say "$1: building in it (10 min, emulated)"
    timeout 3600 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 2048 -display none -no-reboot -serial "file:$said" \
        -kernel "$scratch/$1.kernel" -initrd "$scratch/$1.initrd" \
        -append 'root=/dev/vda rw console=ttyS0 net.ifnames=0 systemd.unit=multi-user.target systemd.mask=serial-getty@ttyS0.service systemd.show_status=false quiet' \
        -drive "file=$machine,format=raw,if=virtio,cache=unsafe" -nic user,model=virtio-net-pci -device virtio-rng-pci </dev/null || true
    rm -f "$machine" "$scratch/$1.kernel" "$scratch/$1.initrd"
    tr -d '\r' <"$said" | grep -E '^under |built under' || { tail -n 25 "$said" >&2; fail "$1: the machine has not built it"; }
    tr -d '\r' <"$said" | grep -q '^built under its own kernel' || { tail -n 25 "$said" >&2; fail "$1: the build fails under its own kernel"; }
    tr -d '\r' <"$said" | grep -E '^[0-9a-f]{64}  ' | cmp - "$scratch/$1.sums" || fail "$1: other bytes under its own kernel"
    say "$1: the same bytes under its own kernel"
}

for suite; do
    where=$scratch/$suite
    case $suite in
        bookworm | trixie) sources=("deb http://deb.debian.org/debian $suite main" "deb http://deb.debian.org/debian $suite-updates main") keyring=/usr/share/keyrings/debian-archive-keyring.gpg ;;
        *) sources=("deb http://archive.ubuntu.com/ubuntu $suite main universe" "deb http://archive.ubuntu.com/ubuntu $suite-updates main universe") keyring=${TRAM_UBUNTU_KEYRING:-/usr/share/keyrings/ubuntu-archive-keyring.gpg} ;;
    esac
    [ -s "$keyring" ] || fail "$suite needs $keyring"
    say "$suite: a bare root"
    mmdebstrap --quiet --variant=minbase --include=apt,ca-certificates --keyring="$keyring" "$suite" "$where" "${sources[@]}"
    cp -a "$root/images" "$where/root/images"
    recipe "$where/root/images/tiny"
    sed -i 's/^IMAGES = (/&"tiny", /' "$where/root/images/lib/services.py"
    mount --bind /dev "$where/dev"
    mount -t proc proc "$where/proc"
    mount -t sysfs sys "$where/sys"
    cp --remove-destination /etc/resolv.conf /etc/hosts "$where/etc/"
    inside() { env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH=1750000000 chroot "$where" "$@"; }
    tries=0
    until inside /root/images/build tiny >"$scratch/said" 2>&1; do
        missing=$(sed -n 's/.*B-106: missing packages: \(.*\) (.*/\1/p' "$scratch/said")
        tries=$((tries + 1))
        if [ -z "$missing" ] || [ "$tries" -gt 2 ]; then
            tail -n 25 "$scratch/said" >&2
            fail "$suite: the build fails"
        fi
        say "$suite: installing what it asks for: $missing"
        # shellcheck disable=SC2086 # names of packages
        inside sh -c "apt-get -q update && apt-get -q -y --no-install-recommends install $missing" >"$scratch/apt" 2>&1 || { tail "$scratch/apt" >&2; fail "$suite has not all of: $missing"; }
    done
    inside /root/images/verify --key /root/.cache/tram/images/keys/image-signing.pub /root/.cache/tram/images/tiny
    inside qemu-img --version | head -n1
    (cd "$where/root/.cache/tram/images/tiny" && sha256sum tram-tiny.qcow2 tram-endpoint.squashfs) | tee "$scratch/$suite.sums"
    if [ -n "$booted" ]; then boot "$suite"; else umount "$where/sys" "$where/proc" "$where/dev"; fi
    rm -rf --one-file-system "$where"
done
say "tests/images: builds on $*"
