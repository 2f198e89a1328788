#!/bin/sh
# Installs what landrecords needs from the operating system, and nothing when it is all there.
#
#   infra/bootstrap.sh                 Python 3.11-3.14 with venv, Ghostscript, make
#   infra/bootstrap.sh --tests         the same, and sshd and PostGIS (the tests start their own)
#   infra/bootstrap.sh --find-python   print the interpreter that .venv is made from
#
# Debian and Ubuntu through apt-get (as root or by `sudo -n`), macOS through brew. Where it cannot, it says the
# command to run. POSIX sh: macOS has bash 3.2, and a bare image may have no bash at all.
# shellcheck disable=SC2046,SC2086 # parts and packages are lists of words, split on purpose
set -eu

PATH=$PATH:/usr/sbin:/sbin # Debian keeps sshd and systemctl's friends out of an ordinary user's PATH
PYTHON_NAMES="python3.11 python3.12 python3.13 python3.14 python3"
APT_TRIES=2 # beside the three of each download

say() { printf 'bootstrap: %s\n' "$*" >&2; }
stop() {
    say "$*"
    exit 1
}

# --- What is there -------------------------------------------------------------------------------------------------

# Runs the interpreter rather than looking at its name: a pyenv shim exists for versions that are not active, and
# Debian's python3 has no ensurepip until python3-venv is installed.
python_serves() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

find_python() {
    for name in $PYTHON_NAMES; do
        if command -v "$name" >/dev/null && python_serves "$name"; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

# The server and its extension: tests/fakes/debian_postgres.py looks in the same places.
has_postgis() {
    for control in /usr/share/postgresql/*/extension/postgis.control; do
        version=${control%/extension/*}
        [ -e "$control" ] && [ -x "/usr/lib/postgresql/${version##*/}/bin/postgres" ] && return 0
    done
    return 1
}

# Prints one word for each missing part, of those named.
missing_of() {
    for part in "$@"; do
        case $part in
        python) find_python >/dev/null || echo python ;;
        postgis) has_postgis || echo postgis ;;
        *) command -v "$part" >/dev/null || echo "$part" ;;
        esac
    done
}

# --- Debian and Ubuntu ---------------------------------------------------------------------------------------------

# A version's own package (python3.12-venv) rather than python3-venv: Ubuntu 22.04's python3 is 3.10, but it also has
# 3.11. Debian and Ubuntu releases of the last years have one or two of these.
apt_python() {
    for version in 3.11 3.12 3.13 3.14; do
        if apt-cache show "python$version-venv" >/dev/null 2>&1; then
            echo "python$version-venv"
            return
        fi
    done
    echo python3-venv
}

apt_packages() {
    for part in "$@"; do
        case $part in
        python) apt_python ;;
        gs) echo ghostscript ;;
        sshd) echo openssh-server ;;
        postgis) echo postgresql-postgis ;; # the release's version of both, 30 s; nothing here needs gdal-bin
        *) echo "$part" ;;
        esac
    done
}

may_be_root() { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

# `env` inside sudo, which drops the caller's environment. NEEDRESTART_MODE: Ubuntu's needrestart asks on a terminal.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a \
        apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}

# A mirror in the middle of its own update fails for a minute, then works. apt's words are shown only when it gave up.
apt_retried() {
    log=$(mktemp)
    try=1
    until apt_get "$@" </dev/null >"$log" 2>&1; do
        if [ "$try" -ge "$APT_TRIES" ]; then
            tail -n 15 "$log" >&2
            rm -f "$log"
            return 1
        fi
        try=$((try + 1))
        sleep 10
    done
    rm -f "$log"
}

# The openssh-server package starts a server and enables it at boot; the tests need the program alone. The links are
# what `systemctl mask` makes: the package enables its unit even where systemd comes later (an image built in a
# container). policy-rc.d is how a package's own scripts are told to start nothing now.
keep_sshd_off() {
    as_root mkdir -p /etc/systemd/system
    for unit in ssh.service ssh.socket; do
        [ -e "/etc/systemd/system/$unit" ] || as_root ln -sf /dev/null "/etc/systemd/system/$unit"
    done
    [ -e /usr/sbin/policy-rc.d ] && return
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 130' INT TERM
    as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d'
}

# The package would make a cluster and start it at boot. This says so in a file of our own: dpkg would ask about a
# createcluster.conf that was there before it. Who has PostgreSQL already keeps things as they are.
keep_cluster_off() {
    [ -e /etc/postgresql-common ] && return
    as_root mkdir -p /etc/postgresql-common/createcluster.d
    as_root sh -c 'echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/landrecords.conf'
}

install_by_apt() {
    # A failed update is not the end: one dead third-party source fails it, and the packages may be known all the same.
    apt_retried -o APT::Update::Error-Mode=any update || true
    case " $* " in *" sshd "*) keep_sshd_off ;; esac
    case " $* " in *" postgis "*) keep_cluster_off ;; esac
    apt_retried install -y --no-install-recommends $(apt_packages "$@") || return 1
    case " $* " in
    *" sshd "*)
        as_root update-rc.d ssh disable >/dev/null 2>&1 || true # a machine without systemd
        say "the system's own ssh service is kept off; to use it: sudo systemctl unmask ssh.service ssh.socket"
        ;;
    esac
}

# --- macOS ---------------------------------------------------------------------------------------------------------

brew_packages() {
    for part in "$@"; do
        case $part in
        python) echo python@3.13 ;;
        gs) echo ghostscript ;;
        sshd) echo openssh ;;
        *) echo "$part" ;;
        esac
    done
}

# --- Putting it together -------------------------------------------------------------------------------------------

system_kind() {
    if command -v apt-get >/dev/null; then
        echo apt
    elif command -v brew >/dev/null; then
        echo brew
    else
        echo other
    fi
}

# The command a person would type to get the parts named.
command_for() {
    case $(system_kind) in
    apt) echo "sudo apt-get update && sudo apt-get install -y" $(apt_packages "$@") ;;
    brew) echo "brew install" $(brew_packages "$@") ;;
    other) echo "your package manager's install of" $(apt_packages "$@") ;;
    esac
}

install_parts() {
    case $(system_kind) in
    apt) may_be_root && say "installing" $(apt_packages "$@") && install_by_apt "$@" ;;
    brew) say "installing" $(brew_packages "$@") && brew install --quiet $(brew_packages "$@") </dev/null ;;
    other) return 1 ;;
    esac
}

# Tries to install what is missing of the parts named. Prints what is still missing after that.
settle() {
    lacking=$(missing_of "$@")
    [ -z "$lacking" ] && return
    install_parts $lacking >&2 || true
    missing_of "$@"
}

main() {
    needed="make gs python"
    for_tests=
    case ${1:-} in
    "") ;;
    --tests)
        for_tests=sshd
        # elsewhere the tests, which look for Debian's layout only, would not find it
        if [ "$(system_kind)" = apt ]; then for_tests="sshd postgis"; fi
        ;;
    --find-python)
        find_python || stop "no Python 3.11 to 3.14 with venv was found; run: $(command_for python)"
        return
        ;;
    *) stop "usage: infra/bootstrap.sh [--tests | --find-python]" ;;
    esac
    still=$(settle $needed $for_tests)
    [ -z "$still" ] && return
    say "landrecords needs" $still "and could not install it here; run: $(command_for $still)"
    case $still in
    *python*) return 1 ;;
    *make* | *gs*) stop "or go on without it: make SYSTEM=skip setup" ;;
    *) say "going on: only tests need it, and they are skipped" ;;
    esac
}

main "$@"
