# systemd units of a release: part of install.sh, which reads this file and sets prefix, user, units and unit_folder.
# shellcheck shell=sh disable=SC2154

control() {
    if [ -n "$user" ]; then systemctl --user "$@"; else systemctl "$@"; fi
}

systemd_runs() {
    [ -n "$units" ] || { no_systemd='--no-units was given'; return 1; }
    command -v systemctl >/dev/null || { no_systemd='there is no systemctl'; return 1; }
    if [ -n "$user" ]; then
        systemctl --user show-environment >/dev/null 2>&1 || { no_systemd='no systemd runs for this user'; return 1; }
    else
        [ -d /run/systemd/system ] || { no_systemd='systemd does not run here'; return 1; }
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
    control daemon-reload || return 1
    for name in $names; do
        case $name in *@.*) continue ;; esac
        control enable --quiet "$name" || return 1
        control restart "$name" || return 1
    done
}

units_run() { # RELEASE: none of its units has failed
    systemd_runs || return 0
    for name in $(unit_names "$1"); do
        case $name in *@.*) continue ;; esac
        if control is-failed --quiet "$name"; then
            say "the unit $name has failed; see: journalctl -u $name"
            return 1
        fi
    done
}
