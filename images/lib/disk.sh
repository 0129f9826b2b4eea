# shellcheck shell=bash disable=SC2034,SC2154 # variables of images/build and the recipe
# Sourced by images/build: writes disks without a loop device and without a mount.

bios_type=21686148-6449-6E6F-744E-656564454649
esp_type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
root_type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
data_type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
# Fixed numbers, so that the same content gives the same bytes; a clone needs no other ones.
uuid_of() { printf '7b1c6c2e-6d0b-4f0e-9a55-%s%04d' 7472616d "$1"; }

u64le() { # number -> eight bytes, lowest first
    local n=$1 i
    for ((i = 0; i < 8; i++)); do printf '%b' "\\x$(printf '%02x' $((n >> (8 * i) & 255)))"; done
}

# write_table DISK MIB "NAME TYPE SIZE_MIB"...: a GPT; the last size may be 0 for the rest.
# Sets start_of[NAME] and size_of[NAME], in MiB.
declare -A start_of size_of
write_table() {
    local disk=$1 mib=$2 at=1 number=1 name type size
    shift 2
    rm -f "$disk"
    truncate -s "${mib}M" "$disk"
    {
        echo "label-id: $(uuid_of 1)"
        for entry; do
            read -r name type size <<<"$entry"
            number=$((number + 1))
            # The last MiB belongs to the backup table.
            [ "$size" -gt 0 ] || size=$((mib - at - 1))
            start_of[$name]=$at size_of[$name]=$size
            echo "start=${at}MiB, size=${size}MiB, type=$type, uuid=$(uuid_of "$number"), name=$name"
            at=$((at + size))
        done
    } >"$disk.table"
    sfdisk --quiet --label gpt "$disk" <"$disk.table" || fail B-207 "the partition table could not be written"
    rm -f "$disk.table"
}

# put_file DISK NAME FILE: into that partition.
put_file() {
    local bytes
    bytes=$(stat -c %s "$3")
    [ "$bytes" -le $((size_of[$2] * 1048576)) ] || fail B-208 "$2 has ${size_of[$2]} MiB, its content needs $((bytes / 1048576 + 1))"
    dd if="$3" of="$1" bs=1M seek="${start_of[$2]}" conv=notrunc,sparse status=none
}

# target_mke2fs ROOT ARGUMENT...: the image's own mke2fs if it is there: a later one writes the same bytes twice.
target_mke2fs() {
    local from=$1 loader=$1/lib64/ld-linux-x86-64.so.2
    shift
    if [ -x "$loader" ] && [ -x "$from/usr/sbin/mke2fs" ] && [ "$(uname -m)" = x86_64 ]; then
        MKE2FS_CONFIG=$from/etc/mke2fs.conf "$loader" --library-path "$from/usr/lib/x86_64-linux-gnu:$from/lib/x86_64-linux-gnu" \
            "$from/usr/sbin/mke2fs" "$@"
    else
        mke2fs "$@"
    fi
}

# put_ext4 DISK NAME LABEL ROOT TOOLS [FOLDER]: a file system with FOLDER's content (none: empty), by TOOLS' mke2fs.
# Features that the boot loader of an older host cannot read are off; tables are written now, so that no
# clone fills them in by itself.
put_ext4() {
    local disk=$1 name=$2 label=$3 tools=$4 from=${5:-}
    target_mke2fs "$tools" -q -F -t ext4 -L "$label" ${from:+-d "$from"} -m 1 \
        -U "$(uuid_of 1000)" -O ^metadata_csum_seed,^orphan_file \
        -E "offset=$((start_of[$name] * 1048576)),lazy_itable_init=0,lazy_journal_init=0,hash_seed=$(uuid_of 1001)" \
        "$disk" "${size_of[$name]}M" >"$logs/mke2fs" 2>&1 || { explain "$logs/mke2fs"; fail B-207 "mke2fs failed (see above)"; }
}

# put_bios DISK NAME PREFIX MODULE...: GRUB's first sector and its core image in that partition.
put_bios() {
    local disk=$1 lba=$((start_of[$2] * 2048)) prefix=$3
    shift 3
    grub-mkimage -O i386-pc -p "$prefix" -o "$work/core.img" biosdisk part_gpt linux normal minicmd "$@"
    # The first sector of the core image is told where the rest lies; the boot sector where that one is.
    u64le $((lba + 1)) | dd of="$work/core.img" bs=1 seek=$((0x1f4)) conv=notrunc status=none
    dd if="$work/core.img" of="$disk" bs=512 seek=$lba conv=notrunc status=none
    cp /usr/lib/grub/i386-pc/boot.img "$work/boot.img"
    u64le $lba | dd of="$work/boot.img" bs=1 seek=$((0x5c)) conv=notrunc status=none
    printf '\x90\x90' | dd of="$work/boot.img" bs=1 seek=$((0x66)) conv=notrunc status=none
    dd if="$work/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
}

# steady COMMAND...: with the clock at SOURCE_DATE_EPOCH if that can be had, for tools that write the time of day.
steady() {
    if command -v faketime >/dev/null; then faketime -f "@$(date -ud "@$SOURCE_DATE_EPOCH" '+%F %T')" "$@"; else "$@"; fi
}

# put_esp DISK NAME FOLDER: a FAT file system with FOLDER's content.
put_esp() {
    local disk=$1 name=$2 from=$3 fat=$work/esp.img
    rm -f "$fat"
    truncate -s "${size_of[$name]}M" "$fat"
    mkfs.vfat -F 32 -n TRAM-BOOT -i 7472616d --invariant "$fat" >/dev/null
    find "$from" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    (cd "$from" && find . -mindepth 1 -type d | LC_ALL=C sort | while read -r d; do TZ=UTC steady mmd -i "$fat" "::$d"; done
        find . -type f | LC_ALL=C sort | while read -r f; do TZ=UTC steady mcopy -m -i "$fat" "$f" "::$f"; done)
    put_file "$disk" "$name" "$fat"
    rm -f "$fat"
}

# efi_files ROOT FOLDER: Debian's own signed first stages, so that Secure Boot may stay on.
efi_files() {
    mkdir -p "$2/EFI/BOOT" "$2/EFI/debian"
    cp "$1/usr/lib/shim/shimx64.efi.signed" "$2/EFI/BOOT/BOOTX64.EFI"
    cp "$1/usr/lib/shim/mmx64.efi.signed" "$2/EFI/BOOT/mmx64.efi"
    cp "$1/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$2/EFI/BOOT/grubx64.efi"
}

# newest_kernel ROOT: sets kernel (its version).
newest_kernel() {
    kernel=$(find "$1/boot" -name 'vmlinuz-*' -printf '%f\n' | sort -V | tail -n1)
    kernel=${kernel#vmlinuz-}
    [ -s "$1/boot/initrd.img-$kernel" ] || fail B-209 "no kernel with an initramfs in the image"
}
