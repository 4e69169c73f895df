# The commands that people use: part of install.sh, which reads this file and sets prefix, user and bin_dir.
# shellcheck shell=sh disable=SC2154

strange() { say "no link was made: $bin_dir/$name is something else"; }

write_commands() {
    mkdir -p "$prefix/bin" "$prefix/etc"
    write "$prefix/bin/edge-mdda" 755 <<END
#!/bin/sh
# Written by install.sh. Runs the current release with the settings of etc/edge-mdda.env.
prefix='$prefix'
release=\$prefix/\$(readlink "\$prefix/current") || {
    echo "edge-mdda: no release is in force; install a bundle" >&2
    exit 1
}
while IFS='=' read -r name value || [ -n "\$name" ]; do
    value=\${value%"\$(printf '\\r')"}
    case \$name in
        EDGE_MDDA_*[!A-Z_]* | '' | '#'*) continue ;;
        EDGE_MDDA_*) eval "[ -n \"\\\${\$name+set}\" ]" || export "\$name=\$value" ;;
    esac
done <"\$prefix/etc/edge-mdda.env"
: "\${EDGE_MDDA_MODELS:=\$release/models}" "\${EDGE_MDDA_KERNELS_DIR:=\$release/kernels}"
: "\${EDGE_MDDA_TRUSTED_KEYS:=\$prefix/etc/trusted.pub}"
export EDGE_MDDA_MODELS EDGE_MDDA_KERNELS_DIR EDGE_MDDA_TRUSTED_KEYS PYTHONSAFEPATH=1
exec "\$release/venv/bin/python" -I -m edge_mdda "\$@"
END
    if [ -n "$user" ]; then where=--user; else where="--prefix '$prefix'"; fi
    [ -z "$bin_dir" ] || where="$where --bin-dir '$bin_dir'"
    case $units in
        yes) where="$where --units" ;;
        no) where="$where --no-units" ;;
    esac
    [ "$python" = "$(command -v python3 || true)" ] || where="$where --python '$python'"
    write "$prefix/bin/edge-mdda-install" 755 <<END
#!/bin/sh
# Written by install.sh. The installer of the current release: it checks an update before anything of it runs.
exec sh '$prefix/current/install.sh' $where "\$@"
END
    [ -n "$bin_dir" ] || return 0
    mkdir -p "$bin_dir" || { say "no link was made: $bin_dir cannot be made"; return 0; }
    for name in edge-mdda edge-mdda-install; do
        case $(readlink "$bin_dir/$name" || true) in
            "$prefix/bin/$name") ;;
            '') if [ ! -e "$bin_dir/$name" ]; then helper link "$prefix/bin/$name" "$bin_dir/$name"; else strange; fi ;;
            *) strange ;;
        esac
    done
}
