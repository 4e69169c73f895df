# Units and health of a release: part of install.sh, which reads this file and sets prefix, user, units and unit_folder.
# shellcheck shell=sh disable=SC2154

unit_settle_s=${EDGE_MDDA_TEST_SETTLE_S:-5}

control() {
    if [ -n "$user" ]; then systemctl --user "$@"; else systemctl "$@"; fi
}

systemd_runs() {
    [ "$units" != no ] || { no_systemd='--no-units was given, or another prefix than /opt/edge-mdda'; return 1; }
    command -v systemctl >/dev/null || { no_systemd='there is no systemctl'; return 1; }
    if [ -n "$user" ]; then
        systemctl --user show-environment >/dev/null 2>&1 || { no_systemd='no systemd runs for this user'; return 1; }
    else
        [ -d "${EDGE_MDDA_TEST_SYSTEMD:-/run/systemd/system}" ] || { no_systemd='systemd does not run here'; return 1; }
        [ "$(id -u)" = 0 ] || { no_systemd='only root may change them'; return 1; }
    fi
}

unit_names() { # RELEASE: its units for this kind of installation
    for unit in "$prefix/releases/$1/units${user:+/user}"/*.*; do
        case $unit in
            *.service | *.socket | *.timer | *.path) [ ! -f "$unit" ] || basename -- "$unit" ;;
        esac
    done
}

install_units() { # RELEASE: its units take the place of those that are there, and are started anew
    names=$(unit_names "$1")
    [ -n "$names" ] || return 0
    if ! systemd_runs; then
        say "units were left out: $no_systemd"
        return 0
    fi
    mkdir -p "$unit_folder" || return 1
    for name in $names; do
        # A unit names the default prefix; here it may be another one.
        while IFS= read -r line || [ -n "$line" ]; do
            done_part=''
            while :; do
                case $line in
                    */opt/edge-mdda*) done_part=$done_part${line%%/opt/edge-mdda*}$prefix ;;
                    *) break ;;
                esac
                line=${line#*/opt/edge-mdda}
            done
            printf '%s\n' "$done_part$line"
        done <"$prefix/releases/$1/units${user:+/user}/$name" | write "$unit_folder/$name" 644 || return 1
    done
    for folder in "$prefix"/releases/*; do # units that only another release has would run without it
        for name in $(unit_names "$(basename -- "$folder")"); do
            [ ! -f "$unit_folder/$name" ] || [ -f "$prefix/releases/$1/units${user:+/user}/$name" ] || drop_unit "$name"
        done
    done
    control daemon-reload || return 1
    for name in $names; do
        case $name in *@.*) continue ;; esac
        control enable --quiet "$name" || return 1
        case $name in *-settle.service) continue ;; esac # for the next boot; it may be what calls this
        control restart "$name" || return 1
    done
}

units_run() { # RELEASE: its units run, and still do a little later (one that dies is started again and again)
    systemd_runs || return 0
    names=$(unit_names "$1")
    [ -n "$names" ] || return 0
    sleep "$unit_settle_s"
    for name in $names; do
        case $name in *@.* | *-settle.service) continue ;; esac
        if ! control is-active --quiet "$name"; then
            say "the unit $name does not run; see: journalctl -u $name"
            return 1
        fi
    done
}

drop_unit() { # UNIT
    control disable --now --quiet "$1" || true
    rm -f "$unit_folder/$1"
}

remove_units() { # the units of every release that is there
    systemd_runs || return 0
    for folder in "$prefix"/releases/*; do
        for name in $(unit_names "$(basename -- "$folder")"); do
            [ ! -f "$unit_folder/$name" ] || drop_unit "$name"
        done
    done
    control daemon-reload
}

healthy() { # RELEASE, which is the current one: it answers through the command that people use
    first=$(head -n 1 "$prefix/releases/$1/runtimes") || return 1
    if ! answer=$(cd / && "$prefix/bin/edge-mdda" selftest --runtime "$first" 2>&1 9>&-); then
        printf '%s\n' "$answer" >&2
        return 1
    fi
    units_run "$1"
}
