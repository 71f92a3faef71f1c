# Functions of kernel/fetch, kernel/build and scripts in tools/, which source this file.
# shellcheck shell=bash

# The cache folder (docs/architecture.md).
cache_dir() {
    echo "${CLOUDE_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/cloude}"
}

# is_tested LANGUAGE: fails for a language that only `make test-full` tests: one without programs in the corpus whose VM has
# more than 256 MiB. `is_tested` of crates/e2e/src/binaries.rs has the same rule.
is_tested() {
    local memory
    memory=$(sed -n 's/^memory_mib = //p' "languages/$1/language.toml")
    [ -d "crates/e2e/corpus/$1" ] || [ "${memory:-512}" -le 256 ]
}

# Prints progress to standard error if that is a terminal. Standard output is for results.
say() {
    if [ -t 2 ]; then printf '%s: %s\n' "${0##*/}" "$*" >&2; fi
}

warn() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    warn "$@"
    exit 1
}

# need COMMAND PACKAGE…: fails with the packages to install if the command is missing. Also looks in /sbin, which is not
# in every user's PATH.
need() {
    local command=$1
    shift
    PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null ||
        die "needs the command $command: run tools/setup (package $*)"
}

# The version of PACKAGE that apt would install; empty if there is none.
apt_candidate() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null |
        awk '$1 == "Candidate:" && $2 != "(none)" { print $2; exit }'
}

# Follows a metapackage to the kernel image package it depends on; prints NAME.
resolve_kernel_package() {
    local package=$1 next
    for _ in 1 2 3; do
        next=$(LC_ALL=C apt-cache show --no-all-versions "$package" 2>/dev/null |
            sed -n 's/^Depends: //p' | tr ',|' '\n\n' | awk '{ print $1 }' |
            grep -E '^linux-image-(unsigned-)?[0-9]+\.[0-9]+\.[0-9]+.*$' | head -n 1) || true
        if [ -z "$next" ]; then break; fi
        package=$next
    done
    case $package in
    linux-image-*[0-9].[0-9]*) echo "$package" ;;
    *) return 1 ;;
    esac
}

# The distribution's kernel for virtual machines, the leanest first. Prints NAME.
find_kernel_package() {
    local meta real
    for meta in linux-image-6.12-cloud-amd64 linux-image-cloud-amd64 linux-image-kvm \
        linux-image-virtual linux-image-generic linux-image-amd64; do
        if [ -n "$(apt_candidate "$meta")" ] && real=$(resolve_kernel_package "$meta"); then
            echo "$real"
            return
        fi
    done
    return 1
}

# download_package PACKAGE DIR: unpacks it into DIR. No root: nothing is installed.
download_package() {
    local package=$1 dir=$2 debs
    debs=$(mktemp -d "$dir/.debs.XXXXXX")
    # The user _apt cannot enter a private folder. Without this option apt, run as root, warns about that.
    if ! (cd "$debs" && apt-get -qq -o APT::Sandbox::User=root download "$package") >&2; then
        rm -rf "$debs"
        return 1
    fi
    dpkg -x "$debs"/*.deb "$dir"
    rm -rf "$debs"
}

# unpack_kernel_package PACKAGE DIR: unpacks the kernel image and its modules, which may be a package of their own, into
# DIR/boot/vmlinuz-* and DIR/lib, and runs depmod there. Prints the release.
unpack_kernel_package() {
    local package=$1 dir=$2 release extra
    download_package "$package" "$dir" ||
        die "cannot download $package: is the network up, and was 'apt-get update' run?"
    release=$(basename "$(ls "$dir"/boot/vmlinuz-*)")
    release=${release#vmlinuz-}
    for extra in "linux-modules-$release" "linux-modules-extra-$release"; do
        if [ -n "$(apt_candidate "$extra")" ]; then
            download_package "$extra" "$dir" || die "cannot download $extra"
        fi
    done
    # A merged-/usr distribution may keep the modules there.
    if [ ! -d "$dir/lib/modules/$release" ] && [ -d "$dir/usr/lib/modules/$release" ]; then
        mkdir -p "$dir/lib"
        mv "$dir/usr/lib/modules" "$dir/lib/modules"
    fi
    [ -d "$dir/lib/modules/$release" ] || die "$package holds no modules for $release"
    PATH="$PATH:/usr/sbin:/sbin" depmod -b "$dir" "$release"
    echo "$release"
}

# collect_module TREE RELEASE MODULE DIR: copies MODULE and its dependencies to DIR, uncompressed, and appends them to
# DIR/modules.list in the order of insertion. Does nothing for a built-in module. Fails if the kernel lacks MODULE.
collect_module() {
    local tree=$1 release=$2 module=$3 dir=$4 steps action path name
    steps=$(PATH="$PATH:/usr/sbin:/sbin" modprobe -d "$tree" -S "$release" --show-depends "$module" 2>/dev/null) ||
        return 1
    while read -r action path _; do
        [ "$action" = insmod ] || continue
        name=$(basename "$path")
        name=${name%%.ko*}.ko
        if [ -e "$dir/$name" ]; then continue; fi
        case $path in
        *.ko) cp "$path" "$dir/$name" ;;
        *.ko.xz) xz -dc "$path" >"$dir/$name" ;;
        *.ko.zst) zstd -dcq "$path" >"$dir/$name" ;;
        *.ko.gz) gzip -dc "$path" >"$dir/$name" ;;
        *) die "cannot unpack $path" ;;
        esac
        echo "$name" >>"$dir/modules.list"
    done <<<"$steps"
}

# install_dir NEW FINAL: replaces the folder FINAL by NEW.
install_dir() {
    local new=$1 final=$2 old=
    if [ -e "$final" ]; then
        old=$(mktemp -d "$(dirname "$final")/.old.XXXXXX")
        mv -T "$final" "$old/it"
    fi
    mv -T "$new" "$final"
    if [ -n "$old" ]; then rm -rf "$old"; fi
}
