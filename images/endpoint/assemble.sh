# shellcheck shell=bash disable=SC2154 # variables of images/build and the recipe
# Sourced by the recipe: squashfs, kernel and initramfs; a stick image with slots A and B; the way over HTTP.

assemble() { # root, folder for the result
    local root=$1 out=$2 squash=$2/tram-endpoint.squashfs mib disk=$2/tram-endpoint.img slot
    progress disk "squashfs" "$estimate_disk"
    cp "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
    # What /boot holds is beside the squashfs; the version says which modules belong to it.
    nice mksquashfs "$root" "$squash" -noappend -quiet -no-progress -comp zstd -Xcompression-level "${TRAM_SQUASH_LEVEL:-12}" \
        -b 256K -wildcards -e 'boot/*' 'root/tram-agent.deb' 'usr/lib/grub/*' >"$logs/squash" 2>&1 \
        || { explain "$logs/squash"; fail B-207 "mksquashfs failed (see above)"; }
    # The initramfs is told what to expect: so whoever trusts the kernel and its initramfs trusts the root too.
    mkdir -p "$work/sum/conf"
    printf '%s  %s\n' "$(sha256sum <"$squash" | cut -d' ' -f1)" "$(stat -c %s "$squash")" >"$work/sum/conf/tram-root.sum"
    find "$work/sum" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    (cd "$work/sum" && find . | LC_ALL=C sort | cpio --quiet --reproducible -R 0:0 -H newc -o) >"$work/sum.cpio"
    # A second archive begins at a multiple of four bytes.
    cp "$root/boot/initrd.img-$kernel" "$out/initrd.img"
    truncate -s %4 "$out/initrd.img"
    cat "$work/sum.cpio" >>"$out/initrd.img"

    progress compress "the stick: two slots, state" 30
    mib=$((1 + 1 + esp_mib + 2 * slot_mib + state_mib + 1))
    write_table "$disk" "$mib" "bios $bios_type 1" "tram-boot $esp_type $esp_mib" "tram-a $data_type $slot_mib" \
        "tram-b $data_type $slot_mib" "tram-state $data_type 0"
    put_file "$disk" tram-a "$squash"
    put_file "$disk" tram-b "$squash"
    put_ext4 "$disk" tram-state tram-state "$root"
    efi_files "$root" "$work/esp"
    mkdir -p "$work/esp/grub"
    for slot in a b; do
        mkdir -p "$work/esp/tram/$slot"
        cp "$out/vmlinuz" "$out/initrd.img" "$work/esp/tram/$slot/"
    done
    sed "s|@CMDLINE@|$cmdline|" "$recipe_folder/grub.cfg" >"$work/esp/grub/grub.cfg"
    # shellcheck disable=SC2016 # GRUB's own variables
    printf 'search --no-floppy --label TRAM-BOOT --set=root\nset prefix=($root)/grub\nconfigfile $prefix/grub.cfg\n' >"$work/esp/EFI/debian/grub.cfg"
    grub-editenv "$work/esp/grub/grubenv" create
    grub-editenv "$work/esp/grub/grubenv" set slot=a
    cp "$recipe_folder/enrol.txt" "$work/esp/enrol.txt"
    put_esp "$disk" tram-boot "$work/esp"
    put_bios "$disk" bios '(hd0,gpt2)/grub' fat loadenv test search search_label configfile echo sleep
    sed "s|@CMDLINE@|$cmdline|" "$recipe_folder/boot.ipxe" >"$out/boot.ipxe"
    # UEFI without iPXE: the same first stage, and the GRUB that finds the rest over the network.
    cp "$root/usr/lib/shim/shimx64.efi.signed" "$out/shimx64.efi"
    cp "$root/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed" "$out/grubx64.efi"
    sed "s|@CMDLINE@|$cmdline|" "$recipe_folder/netboot.cfg" >"$out/grub.cfg"
    chmod 0444 "$out"/*
}
