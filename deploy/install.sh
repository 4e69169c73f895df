#!/bin/sh
# Installs edge-mdda on a board, without a network; updates it, rolls it back, removes it. See --help.
#
# Needs a POSIX shell, coreutils (or busybox) and the system's python3, nothing else. A release is built beside the
# running one and comes into force by one atomic change of a symbolic link; whatever kills this script, and a power
# cut too, leaves a release that runs, and the next call goes on from there.
set -eu
umask 022
LC_ALL=C
export LC_ALL
unset CDPATH PYTHONPATH PYTHONHOME PYTHONSTARTUP EDGE_MDDA_MODELS EDGE_MDDA_KERNELS EDGE_MDDA_KERNELS_DIR \
    EDGE_MDDA_TRUSTED_KEYS EDGE_MDDA_RUNTIME EDGE_MDDA_THREADS EDGE_MDDA_PRESET

NOTICE='A referral aid, never a diagnosis: a clinician decides.'

usage() {
    cat <<'END'
usage: sh install.sh [install] [ARCHIVE] [options]     verify a bundle, install it, switch to it
       sh install.sh rollback [options]                go back to the release before this one
       sh install.sh status [--json] [options]         what is installed
       sh install.sh settle [options]                  finish what a power cut interrupted; its unit does so at boot
       sh install.sh uninstall [--purge] [options]     remove it; --purge: its settings and trusted key too

  --prefix DIR             where it is installed (/opt/edge-mdda)
  --user                   for this user alone, without root: $XDG_DATA_HOME/edge-mdda
  --pubkey FILE            the public key that the bundle must be signed with (first installation)
  --trust-fingerprint F    in place of it: the key's fingerprint, SHA256:...
  --python FILE            the Python to use (python3)
  --bin-dir DIR            where a link to the command goes (/usr/local/bin, ~/.local/bin with --user; none with --prefix)
  --units, --no-units      start its systemd units, or leave systemd alone (another --prefix leaves it alone by default)
  --force-board            install on another CPU than the bundle was made for
  --no-space-check         do not ask how much room the disk has
  --allow-downgrade        install a release that is older than one that was in force here; logged
  --allow-expired          install a bundle whose time is over; logged

examples:
  tar xf edge-mdda-0.1.0-rpi4-bookworm.tar.gz
  sudo sh edge-mdda-0.1.0-rpi4-bookworm/install.sh --pubkey clinic.pub
  sudo edge-mdda-install edge-mdda-0.2.0-rpi4-bookworm.tar.gz      an update, checked by what is installed already
  sudo edge-mdda-install rollback

Without ARCHIVE, the folder that this script lies in is installed. Exit status: 0 done, 1 refused or failed (the release
that ran before still runs), 2 wrong usage. A referral aid, never a diagnosis: a clinician decides.
END
}

say() { printf 'edge-mdda: %s\n' "$*"; }
die() { printf 'edge-mdda: %s\n' "$*" >&2; exit 1; }
misused=''
misuse() { misused=yes; printf 'edge-mdda: %s; see: sh install.sh --help\n' "$*" >&2; exit 2; }

# For the tests alone: dies here as in a power cut, without a chance to clean up.
step() {
    if [ "${EDGE_MDDA_INSTALL_STOP_AT:-}" = "$1" ]; then
        kill -9 $$
    fi
}

# -- options ----------------------------------------------------------------------------------------------------------

command=install archive='' prefix='' user='' pubkey='' fingerprint='' python='' bin_dir='' units='' purge='' json=''
force_board='' no_space_check='' allow='' seen=''
while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --pubkey | --trust-fingerprint | --python | --bin-dir)
            [ $# -ge 2 ] || misuse "$1 needs a value"
            [ -n "$2" ] || misuse "$1 needs a value"
            case $1 in
                --prefix) prefix=$2 ;;
                --pubkey) pubkey=$2 ;;
                --trust-fingerprint) fingerprint=$2 ;;
                --python) python=$2 ;;
                --bin-dir) bin_dir=$2 ;;
            esac
            shift
            ;;
        --user) user=yes ;;
        --units) units=yes ;;
        --no-units) units=no ;;
        --purge) purge=yes ;;
        --json) json=--json ;;
        --force-board) force_board=--force-board ;;
        --no-space-check) no_space_check=--no-space-check ;;
        --allow-downgrade) allow="$allow --allow downgrade" ;;
        --allow-expired) allow="$allow --allow expired" ;;
        -h | --help) usage; exit 0 ;;
        -*) misuse "unknown option $1" ;;
        install | rollback | settle | status | uninstall)
            if [ -z "$seen" ]; then command=$1; else misuse "two commands: $command and $1"; fi
            seen=yes
            ;;
        *)
            [ -z "$archive" ] || misuse "two archives: $archive and $1"
            archive=$1
            ;;
    esac
    shift
done
[ -z "$archive" ] || [ "$command" = install ] || misuse "$command takes no archive"
[ -z "$prefix" ] || [ -z "$user" ] || misuse '--prefix and --user exclude each other'

here=$(cd -- "$(dirname -- "$0")" && pwd -P)
if [ -n "$user" ]; then
    prefix=${XDG_DATA_HOME:-${HOME:?}/.local/share}/edge-mdda
    : "${bin_dir:=$HOME/.local/bin}"
    unit_folder=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
else
    [ -n "$prefix" ] || : "${bin_dir:=/usr/local/bin}"
    : "${prefix:=/opt/edge-mdda}"
    # Two installations cannot share the names of their units: only the usual one has them, unless it is asked for.
    if [ "$prefix" != /opt/edge-mdda ]; then : "${units:=no}"; fi
    unit_folder=${EDGE_MDDA_TEST_UNITS:-/etc/systemd/system}
fi
case $prefix in
    /) misuse '--prefix must be a folder of its own' ;;
    /*) prefix=${prefix%/} ;;
    *) prefix=$(pwd -P)/${prefix%/} ;;
esac
case $prefix in
    *[!A-Za-z0-9/._+@:-]*) misuse "the prefix $prefix may hold letters, digits and / . _ + @ : - only" ;;
esac

# -- tools ------------------------------------------------------------------------------------------------------------

find_python() {
    : "${python:=$(command -v python3 || true)}"
    [ -n "$python" ] || die 'python3 is missing: install it, or name one with --python FILE'
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        die "$python does not run, or is older than Python 3.10: name another with --python FILE"
}

helper() { "$python" -B -E -s -S "$here/setup/helper.py" "$@"; }

# The lock belongs to the open file: it ends with this process, however that ends.
take_lock() {
    mkdir -p "$prefix/releases" 2>/dev/null ||
        die "cannot write to $prefix: run this with sudo, or add --user or --prefix DIR"
    # Tried first: a shell ends without a word where "exec" cannot open a file.
    (: >>"$prefix/.lock") 2>/dev/null || die "cannot write to $prefix: run this with sudo, or look at the disk (mount)"
    exec 9>"$prefix/.lock"
    helper lock 9 || exit 1
}

release_of() { # current or previous -> name of the release, or nothing
    if [ -L "$prefix/$1" ]; then
        basename -- "$(readlink "$prefix/$1")"
    fi
}

write() { # FILE MODE: standard input becomes the file, wholly or not at all
    cat >"$1.new" && chmod "$2" "$1.new" && helper place "$1.new" "$1"
}

selftest() { # RELEASE: what it computes is what the reference machine computed
    (
        EDGE_MDDA_MODELS=$prefix/releases/$1/models
        EDGE_MDDA_KERNELS_DIR=$prefix/releases/$1/kernels
        EDGE_MDDA_TRUSTED_KEYS=$prefix/releases/$1/signer.pub
        EDGE_MDDA_KERNELS=native
        export EDGE_MDDA_MODELS EDGE_MDDA_KERNELS_DIR EDGE_MDDA_TRUSTED_KEYS EDGE_MDDA_KERNELS
        folder=$prefix/releases/$1
        set --
        while read -r runtime; do set -- "$@" --runtime "$runtime"; done <"$folder/runtimes"
        cd / && exec "$folder/venv/bin/python" -I -m edge_mdda selftest "$@" 9>&-
    )
}

# -- units and commands -----------------------------------------------------------------------------------------------

# shellcheck source=deploy/setup/units.sh
. "$here/setup/units.sh"
# shellcheck source=deploy/setup/commands.sh
. "$here/setup/commands.sh"

# -- releases ---------------------------------------------------------------------------------------------------------

pinned=''
go_back() { # OLD: the release before is in force again; none after a first installation
    if [ -n "$1" ]; then
        helper link "releases/$1" "$prefix/current"
        install_units "$1" || say 'a unit of the release before cannot be started; see: journalctl -e'
    else
        remove_units
        rm -f "$prefix/current"
        [ -z "$pinned" ] || rm -f "$prefix/etc/trusted.pub" # nothing of it is in force: another key may come
    fi
    rm -f "$prefix/pending"
}

settled=''
finish_pending() { # an earlier call was killed between switching and the end of the health check; says what it was
    [ -f "$prefix/pending" ] || return 0
    { read -r old || true; read -r settled || true; } <"$prefix/pending"
    current=$(release_of current)
    if [ "$current" != "$old" ] && [ -n "$current" ]; then
        say "an earlier call was interrupted: checking $current"
        if install_units "$current" && healthy "$current"; then
            [ -z "$old" ] || helper link "releases/$old" "$prefix/previous"
        else
            say "$current is not healthy: going back to ${old:-nothing}"
            go_back "$old"
            settled=back
        fi
    else
        settled=''
    fi
    rm -f "$prefix/pending"
}

activate() { # RELEASE: switch to it, check it, go back by itself if it is not healthy
    old=$(release_of current)
    write_commands
    if [ ! -f "$prefix/etc/trusted.pub" ]; then
        # Every key of the file that was given: the second is for the day on which the first is lost.
        write "$prefix/etc/trusted.pub" 644 <"${pubkey:-$prefix/releases/$1/signer.pub}"
        pinned=yes
    fi
    [ -f "$prefix/etc/edge-mdda.env" ] || write "$prefix/etc/edge-mdda.env" 644 <"$prefix/releases/$1/config.env"
    step configured
    if [ "$old" != "$1" ]; then
        printf '%s\n%s\n' "$old" "$command" | write "$prefix/pending" 644
        step pending
        helper link "releases/$1" "$prefix/current"
        step switched
    fi
    if install_units "$1" && step restarted && healthy "$1"; then
        step healthy
    elif [ "$old" = "$1" ]; then
        die "$1 is installed but not healthy; see: edge-mdda doctor"
    else
        go_back "$old"
        [ -z "$drop" ] || drop_release "$drop"
        die "$1 is not healthy: ${old:-nothing} is in force again"
    fi
    if [ "$old" != "$1" ]; then
        [ -z "$old" ] || helper link "releases/$old" "$prefix/previous"
        step previous
    fi
    rm -f "$prefix/pending"
    step confirmed
    adopt
    step adopted
}

adopt() { # what the release in force says of its number and of keys counts from now on
    helper adopt "$prefix" || exit 1
}

get_ready() { # alone, and with what a call before this one left undone
    take_lock
    rm -rf "$prefix"/releases/.new-*
    finish_pending
    adopt
}

drop_release() { # RELEASE: a kill halfway leaves no half of one that looks whole
    [ -d "$prefix/releases/${1:?}" ] || return 0
    rm -rf "$prefix/releases/.new-drop"
    mv "$prefix/releases/$1" "$prefix/releases/.new-drop"
    rm -rf "$prefix/releases/.new-drop"
}

prune() { # only the current and the previous release stay
    for folder in "$prefix"/releases/*; do
        case $(basename -- "$folder") in
            "$(release_of current)" | "$(release_of previous)") ;;
            *) drop_release "$(basename -- "$folder")" ;;
        esac
    done
}

new=''
clean_up() {
    status=$?
    [ -z "$new" ] || rm -rf "$new"
    # Where a file cannot be made, the shell ends with the status that is kept for wrong usage.
    [ "$status" != 2 ] || [ -n "$misused" ] || exit 1
}

verify() { # SOURCE -> $new/bundle, and what the installer needs to know of it
    set -- "$1" "$new/bundle"
    if [ -f "$prefix/etc/trusted.pub" ]; then
        [ -z "$pubkey" ] || helper keys-agree "$pubkey" "$prefix/etc/trusted.pub" "$prefix" || exit 1
        set -- "$@" --keys "$prefix/etc/trusted.pub"
    elif [ -n "$pubkey" ]; then
        set -- "$@" --keys "$pubkey"
    elif [ -n "$fingerprint" ]; then
        set -- "$@" --fingerprint "$fingerprint"
    fi
    # shellcheck disable=SC2086 # none of them, or several words
    facts=$(helper unpack "$@" --prefix "$prefix" $force_board $no_space_check $allow) || exit 1
    version='' sums='' runtimes=''
    while IFS='=' read -r name value; do
        case $name in
            version) version=$value ;;
            sums) sums=$value ;;
            runtimes) runtimes=$value ;;
        esac
    done <<END
$facts
END
}

build() { # the release, in $new/release
    "$python" -I -m venv --without-pip "$new/release/venv" || die "$python cannot make an environment; see above"
    step venv
    "$new/release/venv/bin/python" -B -E -s "$here/setup/helper.py" wheels "$new/bundle" ||
        die 'the wheels cannot be unpacked; the release that ran before still runs'
    step wheels
    for packages in "$new"/release/venv/lib/python*/site-packages; do
        helper trim "$new/bundle/manifest.json" "$packages"
        "$new/release/venv/bin/python" -I -m compileall -q "$packages/edge_mdda"
    done
    rm -rf "$new/bundle/wheels"
    mv "$new"/bundle/* "$new/release/"
    IFS='+'
    for runtime in $runtimes; do printf '%s\n' "$runtime"; done >"$new/release/runtimes"
    unset IFS
    step placed
}

do_install() {
    source=${archive:-$here}
    [ -e "$source" ] || die "$source: there is no such file"
    [ -n "$archive" ] || [ -d "$here/wheels" ] || misuse 'name the archive to install'
    get_ready
    new=$prefix/releases/.new-$$
    mkdir "$new"
    step started
    say "checking $source"
    verify "$source"
    step verified
    release=$version-$sums
    current=$(release_of current)
    drop=''
    case $current in
        "$release" | "$release".[0-9]*) release=$current ;;
    esac
    if [ -d "$prefix/releases/$release" ] && selftest "$release" >/dev/null 2>&1; then
        say "$release is there already"
    else
        if [ "$release" = "$current" ]; then # it is broken, but in force: the new one goes beside it
            number=2
            while [ -e "$prefix/releases/$version-$sums.$number" ]; do number=$((number + 1)); done
            release=$version-$sums.$number
        fi
        drop_release "$release"
        say "installing $release"
        build
        helper rename "$new/release" "$prefix/releases/$release"
        drop=$release
        step renamed
        if ! selftest "$release"; then
            drop_release "$release"
            die "the self-test failed: nothing was switched, ${current:-no release} is in force"
        fi
    fi
    rm -rf "$new"
    step tested
    activate "$release"
    prune
    step pruned
    say "$release is in force; try: ${bin_dir:-$prefix/bin}/edge-mdda screen --demo"
    say "$NOTICE"
}

do_rollback() {
    get_ready
    if [ "$settled" = rollback ] || [ "$settled" = back ]; then # it was this very change that was interrupted
        say "$(release_of current) is in force"
        return 0
    fi
    release=$(release_of previous)
    current=$(release_of current)
    drop=''
    if [ -z "$release" ] || [ "$release" = "$current" ] || [ ! -d "$prefix/releases/$release" ]; then
        die 'there is no release to go back to'
    fi
    helper require-signer "$prefix" "$release" || exit 1
    selftest "$release" || die "$release fails its self-test: $current stays in force"
    activate "$release"
    say "$release is in force again, in place of $current"
}

do_settle() {
    [ -f "$prefix/pending" ] || return 0
    get_ready
    say "$(release_of current) is in force"
}

do_uninstall() {
    [ -d "$prefix/releases" ] || die "nothing is installed in $prefix"
    take_lock
    remove_units
    for name in edge-mdda edge-mdda-install; do
        if [ -n "$bin_dir" ] && [ "$(readlink "$bin_dir/$name" || true)" = "$prefix/bin/$name" ]; then
            rm -f "$bin_dir/$name"
        fi
    done
    rm -f "$prefix/current" "$prefix/previous" "$prefix/pending"
    rm -rf "${prefix:?}/bin" "${prefix:?}/releases"
    if [ -n "$purge" ]; then
        rm -rf "${prefix:?}/etc"
    elif [ -d "$prefix/etc" ]; then
        say "settings and trusted key stay in $prefix/etc (uninstall --purge removes them)"
    fi
    rm -f "$prefix/.lock"
    rmdir "$prefix" 2>/dev/null || true
    say "removed from $prefix"
}

trap clean_up EXIT
trap 'exit 130' INT HUP TERM
find_python
case $command in
    install) do_install ;;
    rollback) do_rollback ;;
    settle) do_settle ;;
    status) helper status "$prefix" $json ;;
    uninstall) do_uninstall ;;
esac
