# shellcheck shell=bash
# Sourced by the tests of the recipes: tools, packages, and the machines they run against.

# shellcheck source=tests/nspawn/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../nspawn/lib.sh"

# A server with what Ansible needs to get in.
bare=$bare,openssh-server,python3,python3-apt
recipes=$root/ansible
scratch=

# ansible_tools: Ansible of the pinned version, in the cache.
ansible_tools() {
    local home
    home=$TRAM_CACHE/ansible-$(sha256sum <"$recipes/requirements.txt" | cut -c1-8)
    if [ ! -e "$home/ready" ]; then
        say "installing Ansible into $home (30 s)"
        rm -rf "$home"
        python3 -m venv "$home"
        "$home/bin/pip" install --quiet --disable-pip-version-check --requirement "$recipes/requirements.txt"
        touch "$home/ready"
    fi
    PATH=$home/bin:$PATH
    export ANSIBLE_CONFIG=$recipes/ansible.cfg ANSIBLE_HOME=$home/home ANSIBLE_NOCOLOR=1 NO_COLOR=1
}

# ansible_packages FOLDER: versions 0.9.0 and 0.9.1 from the debug build, and 0.9.2 whose controller ends at once.
ansible_packages() {
    local version broken=$scratch/broken
    for version in 0.9.0 0.9.1; do
        TRAM_PACKAGE_PROFILE=dev TRAM_PACKAGE_VERSION=$version "$root/packaging/build" "$1" >/dev/null
    done
    dpkg-deb --raw-extract "$1"/tram-controller_0.9.1_*.deb "$broken"
    sed -i 's/^Version: .*/Version: 0.9.2/' "$broken/DEBIAN/control"
    printf '#!/bin/sh\necho "a release that does not work" >&2\nexit 1\n' >"$broken/usr/bin/tram-controller"
    dpkg-deb --root-owner-group -Zxz -z0 --build "$broken" "$1/tram-controller_0.9.2_$(dpkg --print-architecture).deb" >/dev/null
}

# ansible_machine NAME SUITE ADDRESS: boots it with our key inside, in the network of spawn_network: in a container, or
# with TRAM_ANSIBLE_GUESTS as a virtual machine with a kernel of its own.
ansible_machine() {
    local tries=0
    spawn_name=$1 spawn_address=$3
    ssh-keygen -q -R "$3" -f "$scratch/known_hosts" >/dev/null 2>&1 || true
    if [ -n "${TRAM_ANSIBLE_GUESTS:-}" ]; then
        ansible_guest "$1" "$2"
    else
        local archives=$TRAM_CACHE/roots/archives/$1-$2
        mkdir -p "$archives/partial" # what apt has fetched once
        spawn_boot "$2" --bind="$archives:/var/cache/apt/archives"
        ansible_key "$machine"
    fi
    until ssh-keyscan -T 10 -t ed25519 "$3" >>"$scratch/known_hosts" 2>/dev/null && grep -q "^$3 " "$scratch/known_hosts"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 600 ] || [ ! -d "/proc/$spawned" ]; then
            tail -n 20 "$machine.log" >&2
            fail "no SSH answers at $3 ($1)"
        fi
        sleep 0.5
    done
}

# ansible_key ROOT: lets us in.
ansible_key() {
    install -d -m 700 "$1/root/.ssh"
    install -m 600 "$scratch/key.pub" "$1/root/.ssh/authorized_keys"
}

# ansible_guest NAME SUITE: the same root on a disk, started by QEMU; it ends with spawn_end as a container does. It has
# no virtualization of its own: emulated, that would be there and too slow for anything.
ansible_guest() {
    local kernel number=${spawn_address##*.} archives=$TRAM_CACHE/roots/archives/$1-$2
    bare=$bare,linux-image-amd64 spawn_unpack "$2" "$1"
    ansible_key "$machine"
    echo '/dev/vda / ext4 defaults 0 1' >"$machine/etc/fstab"
    # What apt has fetched for a container of this name: it asks for the same.
    [ ! -d "$archives" ] || find "$archives" -maxdepth 1 -name '*.deb' -exec cp -t "$machine/var/cache/apt/archives" {} +
    kernel=$(find "$machine/boot" -name 'vmlinuz-*' | head -n1)
    cp "$kernel" "$machine/boot/initrd.img-${kernel##*/vmlinuz-}" "$scratch/"
    mke2fs -q -t ext4 -d "$machine" "$machine.disk" 12G >/dev/null
    find "$machine" -mindepth 1 -delete
    # The machine's end of the cable is QEMU's own: it is gone with it, however it ends.
    # shellcheck disable=SC2016 # the script's own argument
    printf '#!/bin/sh\nexec ip link set "$1" master %s up\n' "$spawn_bridge" >"$scratch/plug"
    chmod 755 "$scratch/plug"
    qemu-system-x86_64 -accel "${TRAM_ANSIBLE_ACCEL:-tcg}" -cpu max,vmx=off,svm=off -smp 2 -m 2048 -display none \
        -chardev "file,id=log,path=$machine.log,append=on" -serial chardev:log \
        -kernel "$scratch/${kernel##*/}" -initrd "$scratch/initrd.img-${kernel##*/vmlinuz-}" \
        -append 'root=/dev/vda rw console=ttyS0 audit=0 systemd.unit=multi-user.target' \
        -drive "file=$machine.disk,format=raw,if=virtio,cache=unsafe" \
        -netdev "tap,id=n,ifname=${spawn_bridge}n$number,script=$scratch/plug,downscript=no" -device "virtio-net-pci,netdev=n,mac=52:54:00:00:00:$(printf %02x "$number")" \
        -device virtio-rng-pci </dev/null >>"$machine.log" 2>&1 &
    spawned=$!
    spawn_all[$1]="$machine - $spawned"
}

# ansible_on ADDRESS COMMAND...: as root there.
ansible_on() {
    local address=$1
    shift
    ssh -i "$scratch/key" -o "UserKnownHostsFile=$scratch/known_hosts" -o BatchMode=yes -o LogLevel=ERROR "root@$address" -- "${*@Q}" </dev/null
}

# ansible_inventory FILE: all on one machine, a gateway of its own, and an office computer.
ansible_inventory() {
    cat >"$1" <<YAML
all:
  vars:
    ansible_user: root
    ansible_ssh_private_key_file: $scratch/key
    ansible_ssh_common_args: -o UserKnownHostsFile=$scratch/known_hosts -o ControlPath=$scratch/%C
    tram_packages: $scratch/packages
    tram_version: ${2:-0.9.0}
    endpoint_controller: https://$spawn_net.10:8444
  children:
    postgresql:
      hosts: {tram-1: {}}
      vars:
        postgres_listen: ["$spawn_net.10"]
        postgres_clients: ["$spawn_net.0/24"]
    controllers:
      hosts: {tram-1: {ansible_host: $spawn_net.10}}
      vars:
        controller_public_url: https://tram-1.tram.test:8443
        controller_cookie_domain: tram.test
        controller_names: [tram-1, tram-1.tram.test, gw-1.tram.test, $spawn_net.10]
        controller_database_host: $spawn_net.10
        controller_sites: hanoi-2016
        controller_operators: [truc-ban]
        controller_settings: {sessions: {idle_minutes: 20}}
    gateways:
      hosts:
        tram-1: {gateway_public_url: "https://tram-1.tram.test:9443", gateway_agent_url: "https://$spawn_net.10:9444"}
        gw-1: {ansible_host: $spawn_net.12, gateway_public_url: "https://gw-1.tram.test:9443", gateway_agent_url: "https://$spawn_net.12:9444"}
    hypervisors:
      hosts: {tram-1: {}}
      vars:
        libvirt_host_emulation: true
        libvirt_host_accel: tcg
    monitoring:
      hosts: {tram-1: {}}
    endpoints:
      children: {site_00505: {}}
    site_00505:
      vars: {endpoint_site: "00505"}
      hosts: {co-loa-1: {ansible_host: $spawn_net.11}}
    wave_01:
      children: {site_00505: {}}
YAML
}
