# shellcheck shell=bash disable=SC2034,SC2154 # variables of images/build and the recipe
# Sourced by images/build: where things are, what is said while they are made, where packages come from.
# `image` is set by the one who sources it.

lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
images=$(cd "$lib/.." && pwd)
: "${image:=}"

fail() {
    printf 'images/build %s: %s\n' "$image" "$*" >&2
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

# explain LOG: what a failed step's own words mean for the one who reads them.
explain() {
    tail -n 20 "$1" >&2
    if grep -qi 'no space left' "$1"; then
        fail "the disk of $cache is full; free some space and run it again: downloaded packages are kept"
    elif grep -qE 'Could not (resolve|connect)|Failed to fetch|Connection (failed|timed out|refused)|Temporary failure|Unable to connect|File has unexpected size|Hash Sum mismatch' "$1"; then
        fail "the mirror $mirror does not answer, or broke off; run it again later (downloaded packages are kept), or set TRAM_DEBIAN_MIRROR to another one"
    fi
}

# --- packages -------------------------------------------------------------------------------------

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# shellcheck disable=SC2016 # $(REPO_URI) is apt's own syntax
host_mirror() { # label, default: the archive this machine itself installs from
    local found
    found=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 2>/dev/null \
        | awk -v label="$1" '$2 == "Debian" && $3 == label && $1 ~ /^https?:/ {print $1; exit}')
    found=${found:-$2}
    echo "${found%/}"
}

# choose_mirrors: sets mirror, sources (deb lines) and apt_options.
choose_mirrors() {
    local security options="" scheme proxy
    if [ -n "${TRAM_DEBIAN_SNAPSHOT:-}" ]; then
        [[ $TRAM_DEBIAN_SNAPSHOT =~ ^[0-9]{8}T[0-9]{6}Z$ ]] \
            || fail "TRAM_DEBIAN_SNAPSHOT is a time such as 20261101T000000Z, not $TRAM_DEBIAN_SNAPSHOT"
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
    apt_options=('Acquire::Retries "3"' 'Acquire::Languages "none"' 'Acquire::http::Timeout "30"' 'Acquire::https::Timeout "30"')
    for scheme in http https; do
        proxy=$(apt-config dump --format '%v%n' "Acquire::$scheme::Proxy" 2>/dev/null | head -n1 || true)
        [ -z "$proxy" ] || apt_options+=("Acquire::$scheme::Proxy \"$proxy\"")
    done
}

# check_packages NAME...: would they install? Asked before anything is built. The lists are kept for six hours.
check_packages() {
    local apt=$cache/apt stamp
    stamp=$(printf '%s\n' "${sources[@]}")
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/etc"
    printf '%s;\n' "${apt_options[@]}" >"$apt/apt.conf"
    cat >>"$apt/apt.conf" <<CONF
Dir::State "$apt"; Dir::State::lists "$apt/lists"; Dir::State::status "$apt/status"; Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list"; Dir::Etc::sourceparts "-"; Dir::Etc::preferencesparts "-";
Dir::Etc::trusted "$keyring"; Dir::Etc::trustedparts "-"; Debug::NoLocking "true"; APT::Sandbox::User "root";
APT::Architecture "amd64"; APT::Architectures "amd64"; APT::Install-Recommends "false"; APT::Update::Error-Mode "any";
CONF
    : >"$apt/status"
    if [ "$(cat "$apt/sources.list" 2>/dev/null)" != "$stamp" ] || [ -z "$(find "$apt/fresh" -mmin -360 2>/dev/null)" ]; then
        rm -f "$apt/fresh"
        printf '%s\n' "$stamp" >"$apt/sources.list"
        APT_CONFIG=$apt/apt.conf apt-get -q update >"$apt/log" 2>&1 \
            || { explain "$apt/log"; fail "no package lists from $mirror (see above)"; }
        touch "$apt/fresh"
    fi
    if ! APT_CONFIG=$apt/apt.conf apt-get -q -s install "$@" >"$apt/log" 2>&1; then
        local unknown
        unknown=$(sed -nE "s/^E: (Unable to locate package|Couldn't find any package by (glob|regex)) '?([^' ]+)'?.*/\3/p; s/^E: Package '([^']+)' has no installation candidate/\1/p" "$apt/log" | sort -u | paste -sd' ')
        [ -z "$unknown" ] || fail "Debian $suite has no package called: $unknown (in $image/packages.list or a manifest of services)"
        tail -n 12 "$apt/log" >&2
        fail "these packages can't be installed together (see above)"
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
