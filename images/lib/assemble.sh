# shellcheck shell=bash disable=SC2034,SC2154 # variables of images/build and the recipe
# Sourced by images/build: one disk that boots by itself, as a qcow2 file. Settings of the recipe: disk_mib, cmdline,
# efi (yes: an EFI partition too; the root is last, so that it can grow).

# extra_mark: more that decides the result; a recipe may say its own.
declare -F extra_mark >/dev/null || extra_mark() { :; }

assemble_disk() { # root, folder for the result
    local root=$1 out=$2 disk=$work/disk.img number=2 partitions=("bios $bios_type 1")
    progress disk "writing the file system" "$estimate_disk"
    if [ "${efi:-no}" = yes ]; then
        partitions+=("esp $esp_type 63")
        number=3
    fi
    # The names in /boot change with the kernel; GRUB's file and a later kernel's removal do not need them.
    mkdir -p "$root/boot/grub"
    cat >"$root/boot/grub/grub.cfg" <<CFG
set timeout=0
linux /boot/vmlinuz-$kernel root=LABEL=root ro $cmdline
initrd /boot/initrd.img-$kernel
boot
CFG
    touch --date="@$SOURCE_DATE_EPOCH" "$root/boot/grub/grub.cfg" "$root/boot/grub" "$root/boot"
    write_table "$disk" "$disk_mib" "${partitions[@]}" "root $root_type 0"
    put_ext4 "$disk" root root "$root" "$root"
    put_bios "$disk" bios "(hd0,gpt$number)/boot/grub" ext2
    if [ "${efi:-no}" = yes ]; then
        efi_files "$root" "$work/esp"
        # The signed GRUB looks here; the rest is the same for both ways of starting.
        # shellcheck disable=SC2016 # GRUB's own variables
        printf 'search --no-floppy --label root --set=root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' \
            >"$work/esp/EFI/debian/grub.cfg"
        put_esp "$disk" esp "$work/esp"
    fi
    progress compress "compressing" "$estimate_disk"
    qemu-img convert -q -f raw -O qcow2 -c -o compression_type=zstd,lazy_refcounts=off "$disk" "$out/$product" \
        2>"$logs/convert" || { explain "$logs/convert"; fail B-207 "qemu-img failed (see above)"; }
    qemu-img check -q "$out/$product"
    rm -f "$disk"
    chmod 0444 "$out/$product"
}
