# shellcheck shell=bash disable=SC2034,SC2154 # variables of images/build and the recipe
# Sourced by images/build: where things are, what is said while they are made, where packages come from.
# `image` is set by the one who sources it.

# What tools say is read here.
export LC_ALL=C.UTF-8
lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images=$(cd "$lib/.." && pwd)
: "${image:=}"

# fail CODE WORDS...: the codes stand in docs/operations/images.md.
fail() {
    local code=$1
    shift
    printf 'images/build %s: %s: %s\n' "$image" "$code" "$*" >&2
    # Also from a subshell it is known that this was said.
    said=$code
    [ ! -d "${logs:-}" ] || : >"$logs/said"
    exit 1
}

# --- progress -------------------------------------------------------------------------------------

steps=0
step=0
began=$SECONDS
step_name=
step_began=0

# done_step: keeps how long the step took, as the next build's estimate.
done_step() {
    [ -n "$step_name" ] || return 0
    local kept
    kept=$(grep -v "^$step_name	" "$cache/times" 2>/dev/null || true)
    printf '%s\n%s\t%d\n' "$kept" "$step_name" $((SECONDS - step_began)) | sed '/^$/d' >"$cache/times.new"
    mv -f "$cache/times.new" "$cache/times"
    step_name=
}

progress() { # short name, what, estimate in seconds for a machine that never did it
    done_step
    step=$((step + 1))
    local usual
    usual=$(sed -n "s/^$1\t//p" "$cache/times" 2>/dev/null || true)
    printf '[%d/%d] %s (usually about %d s; %d s so far)\n' "$step" "$steps" "$2" "${usual:-$3}" $((SECONDS - began))
    step_name=$1
    step_began=$SECONDS
}

# disk_full [LOG]: ends with that reason if it is the reason. A tool that is stopped by a full disk does not always say so.
disk_full() {
    if { [ -n "${1:-}" ] && grep -qiE 'no space left|failure writing output|you don.t have enough free space|disk quota exceeded' "$1"; } \
        || [ "$(df --output=avail -k "$cache" | tail -n1 | tr -d ' ')" -lt 1024 ]; then
        fail B-202 "the disk of $cache is full; free some space and run it again: downloaded packages are kept"
    fi
}

# explain LOG: what a failed step's own words mean for the one who reads them.
explain() {
    tail -n 20 "$1" >&2
    echo >&2
    disk_full "$1"
    if grep -qE 'Could not (resolve|connect)|Failed to connect|Operation too slow|timed out after|Recv failure|transfer closed|Empty reply|Failed to fetch|Connection (failed|timed out|refused)|Temporary failure|Unable to connect|File has unexpected size|Hash Sum mismatch' "$1"; then
        fail B-203 "the mirror $mirror does not answer, or broke off; run it again later (downloaded packages are kept), or set TRAM_DEBIAN_MIRROR to another one"
    fi
}

# --- packages -------------------------------------------------------------------------------------

keyring=${TRAM_DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}

# shellcheck disable=SC2016 # $(REPO_URI) is apt's own syntax
host_mirror() { # label, default: the archive this machine itself installs from
    local found
    found=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 2>/dev/null \
        | awk -v label="$1" '$2 == "Debian" && $3 == label && $1 ~ /^https?:/ {print $1; exit}')
    found=${found:-$2}
    echo "${found%/}"
}

# How long a mirror may say nothing.
patience=${TRAM_MIRROR_TIMEOUT_S:-30}

# choose_mirrors: sets mirror, sources (deb lines) and apt_options.
choose_mirrors() {
    local security options="" scheme proxy
    if [ -n "${TRAM_DEBIAN_SNAPSHOT:-}" ]; then
        [[ $TRAM_DEBIAN_SNAPSHOT =~ ^[0-9]{8}T[0-9]{6}Z$ ]] \
            || fail B-108 "TRAM_DEBIAN_SNAPSHOT is a time such as 20261101T000000Z, not $TRAM_DEBIAN_SNAPSHOT"
        mirror=${TRAM_SNAPSHOT_SITE:-http://snapshot.debian.org/archive}/debian/$TRAM_DEBIAN_SNAPSHOT
        security=${TRAM_SNAPSHOT_SITE:-http://snapshot.debian.org/archive}/debian-security/$TRAM_DEBIAN_SNAPSHOT
        # Its Release files are past their date by nature; their signatures still count.
        options='[check-valid-until=no] '
    else
        mirror=${TRAM_DEBIAN_MIRROR:-$(host_mirror Debian http://deb.debian.org/debian)}
        mirror=${mirror%/}
        security=${TRAM_DEBIAN_SECURITY_MIRROR:-$(host_mirror Debian-Security http://deb.debian.org/debian-security)}
    fi
    sources=("deb ${options}$mirror $suite main")
    [ "$security_updates" = no ] || sources+=("deb ${options}$mirror $suite-updates main" "deb ${options}$security $suite-security main")
    apt_options=('Acquire::Retries "1"' 'Acquire::Languages "none"' \
        "Acquire::http::Timeout \"$patience\"" "Acquire::https::Timeout \"$patience\"")
    for scheme in http https; do
        proxy=$(apt-config dump --format '%v%n' "Acquire::$scheme::Proxy" 2>/dev/null | head -n1 || true)
        [ -z "$proxy" ] || apt_options+=("Acquire::$scheme::Proxy \"$proxy\"")
    done
}

# asks CURL-ARGUMENT...: with apt's own proxy; gives up when nothing comes for a while.
asks() {
    local proxy
    proxy=$(printf '%s\n' "${apt_options[@]}" | sed -nE 's/^Acquire::http::Proxy "(.*)"$/\1/p')
    [[ $mirror != http:* || -z $proxy || $proxy == DIRECT ]] || set -- --proxy "$proxy" "$@"
    curl --fail --silent --show-error --location --connect-timeout "$patience" --speed-limit 1 --speed-time "$patience" "$@"
}

# fetch_packages NAME...: into the kept archives, four at a time, with apt's own sums. apt itself would wait for a
# silent mirror once for each package, for hours.
fetch_packages() {
    local uri name size sum partial=$cache/archives/partial config=$work/fetch missing=() count=0 bytes=0
    rm -rf "$partial"
    mkdir "$partial"
    APT_CONFIG=$cache/apt/apt.conf apt-get -q -y -o Acquire::ForceHash=SHA256 --print-uris install '?essential' apt "$@" >"$work/uris" 2>"$logs/uris" \
        || { explain "$logs/uris"; fail B-105 "these packages can't be installed together (see above)"; }
    : >"$config"
    while read -r uri name size sum; do
        [ "$(stat -c %s "$cache/archives/$name" 2>/dev/null)" != "$size" ] || continue
        printf 'url = "%s"\noutput = "%s"\n' "$uri" "$partial/$name" >>"$config"
        missing+=("$name ${sum#SHA256:}")
        count=$((count + 1)) bytes=$((bytes + size))
    done < <(sed -nE "s/^'([^']+)' (\S+) ([0-9]+) (SHA256:[0-9a-f]{64})$/\1 \2 \3 \4/p" "$work/uris")
    [ "$count" -gt 0 ] || return 0
    echo "      $count packages to download, $((bytes / 1048576)) MiB"
    local status=0
    asks --parallel --parallel-max 4 --fail-early --retry 2 --retry-delay 2 --config "$config" >"$logs/fetch" 2>&1 || status=$?
    # What is whole is kept, however it ended.
    for name in "${missing[@]}"; do
        read -r name sum <<<"$name"
        [ ! -f "$partial/$name" ] || [ "$(sha256sum <"$partial/$name")" != "$sum  -" ] || mv "$partial/$name" "$cache/archives/"
    done
    rm -rf "$partial"
    if [ "$status" -ne 0 ]; then
        explain "$logs/fetch"
        fail B-203 "the mirror $mirror does not answer, or broke off; run it again later (downloaded packages are kept), or set TRAM_DEBIAN_MIRROR to another one"
    fi
}

# check_packages NAME...: would they install? Asked before anything is built. The lists are kept for six hours.
check_packages() {
    local apt=$cache/apt stamp
    stamp=$(printf '%s\n' "${sources[@]}")
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/etc"
    printf '%s;\n' "${apt_options[@]}" >"$apt/apt.conf"
    cat >>"$apt/apt.conf" <<CONF
Dir::State "$apt"; Dir::State::lists "$apt/lists"; Dir::State::status "$apt/status"; Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "-"; Dir::Etc::preferences "$apt/preferences"; Dir::Etc::preferencesparts "-";
Dir::Etc::trusted "$keyring"; Dir::Etc::trustedparts "-"; Debug::NoLocking "true"; APT::Sandbox::User "root";
APT::Architecture "amd64"; APT::Architectures "amd64"; APT::Install-Recommends "false"; APT::Update::Error-Mode "any";
CONF
    : >"$apt/status"
    printf '%s\n' "${preferences:-}" >"$apt/preferences"
    if [ "$(cat "$apt/sources.list" 2>/dev/null)" != "$stamp" ] || [ -z "$(find "$apt/fresh" -mmin -360 2>/dev/null)" ]; then
        rm -f "$apt/fresh"
        # apt asks a silent mirror again and again, for each of its files.
        asks -o /dev/null "$mirror/dists/$suite/InRelease" >"$apt/log" 2>&1 \
            || { explain "$apt/log"; fail B-203 "the mirror $mirror does not answer, or has no $suite (see above)"; }
        printf '%s\n' "$stamp" >"$apt/sources.list"
        APT_CONFIG=$apt/apt.conf apt-get -q update >"$apt/log" 2>&1 \
            || { explain "$apt/log"; fail B-203 "no package lists from $mirror (see above)"; }
        touch "$apt/fresh"
    fi
    if ! APT_CONFIG=$apt/apt.conf apt-get -q -s install "$@" >"$apt/log" 2>&1; then
        local unknown
        unknown=$(sed -nE "s/^E: (Unable to locate package|Couldn't find any package by (glob|regex)) '?([^' ]+)'?.*/\3/p; s/^E: Package '([^']+)' has no installation candidate/\1/p" "$apt/log" | sort -u | paste -sd' ')
        [ -z "$unknown" ] || fail B-104 "Debian $suite has no package called: $unknown (in $image/packages.list or a manifest of services)"
        tail -n 12 "$apt/log" >&2
        fail B-105 "these packages can't be installed together (see above)"
    fi
    if [ -n "${lock:-}" ] && ! "$lib/lock.py" "$lock" --simulated "$apt/log"; then
        fail B-111 "$mirror does not have the locked packages (see above): ask an archive of that day (TRAM_DEBIAN_SNAPSHOT)"
    fi
}

# --- marks of contents ----------------------------------------------------------------------------

# tree_hash FOLDER PATH...: of paths, execute bits and contents: exactly what decides a result.
tree_hash() {
    local from=$1
    shift
    (cd "$from" && find "$@" -type f -printf '%p %m\n' -o -type l -printf '%p -> %l\n' \
        | sed -E 's/ [0-7]*[1357][0-7][0-7]$/ x/; s/ [0-7]+$/ -/' | LC_ALL=C sort \
        | while read -r path mode; do
            printf '%s %s ' "$path" "$mode"
            [[ $mode == '->'* ]] || sha256sum <"$path"
        done) | sha256sum | cut -d' ' -f1
}
