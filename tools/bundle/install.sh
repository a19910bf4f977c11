#!/bin/sh
# Installs the release that lies beside this file: next to the others, tested with the board's own
# runtime, and only then made current. Needs a POSIX shell, sha256sum and the Python that runs the
# models; dash and busybox ash are tested. What is where below the prefix:
#   releases/ID        one directory for each release; never changed once it has this name
#   releases/.new-ID   being copied        releases/.old-ID   being removed
#   current, previous  links to releases/ID, replaced by rename(2)
#   engines/KEY        TensorRT engines that were built here, shared by releases of the same kit;
#                      releases/ID/artifacts/tensorrt-kit/engine is a link to the one to load
#   .lock              held with flock(2): the kernel lets go of it when its holder ends, however
set -eu
umask 022
LC_ALL=C
export LC_ALL

EXIT_FAILED=1      # a command failed: disk full, no permission, input/output error
EXIT_USAGE=2       # this and the next three mean what they mean for edgeship
EXIT_MISMATCH=6    # the self-test ran and its outputs are wrong, or it crashed
EXIT_MISSING=8     # no Python, numpy or runtime, or no answer in time; nothing installed
EXIT_REFUSED=9     # damaged, or not for this board
EXIT_BUSY=75       # EX_TEMPFAIL of sysexits.h: another installation is at work
KEPT_RELEASES=3

# A program for Python 3.6: what is missing, one line each. Arguments: the architecture, then for each
# artifact the names of the runtimes that it can do with, joined by commas.
LOOK='
import importlib.util, shutil, sys
arch, artifacts = sys.argv[1], sys.argv[2:]
MODULES = {"litert": "ai_edge_litert", "tflite_runtime": "tflite_runtime", "tensorrt": "tensorrt",
           "onnxruntime": "onnxruntime", "llama.cpp": "llama_cpp"}
PROGRAMS = {"llama.cpp": ("llama-server",), "tensorrt": ("trtexec",)}
if sys.maxsize < 2**32 and arch != "armv7l":
    print("this Python has 32 bits, and no runtime has packages for it: take a 64-bit OS image")
try:
    import numpy
except Exception as error:
    print("%s cannot import numpy (%s): install it there" % (sys.executable, error))
for names in sorted(set(artifacts)):
    found = [name for name in names.split(",") if importlib.util.find_spec(MODULES.get(name, name))
             or any(shutil.which(program) for program in PROGRAMS.get(name, ()))]
    if not found:
        print("no runtime of %s: install one for %s, or name the Python that has it with --python"
              % (names.replace(",", " or "), sys.executable))
'

# Runs a command for so many seconds; asked to end, the board program ends its worker too.
WITHIN='
import subprocess, sys
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
try:
    sys.exit(abs(child.wait(float(sys.argv[1]))))
except subprocess.TimeoutExpired:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    sys.exit(124)
'

usage() {
    cat <<'EOF'
usage: sh install.sh --check | --install | --rollback | --status | --uninstall [options]
  --check      look whether this release suits this board; changes nothing
  --install    put it beside the others, test it there, make it current
  --rollback   test the previous release, make it current again
  --status     say what is installed, and whether its bytes are whole
  --uninstall  remove every release below the prefix
options:
  --prefix DIR     where to install (default: /opt/edgeship/NAME, or
                   ~/.local/share/edgeship/NAME for others than root)
  --python PROGRAM the Python that has the runtime (default: python3)
  --deadline S     seconds that the self-test of one artifact may take (default: 900)
  --build-deadline S   seconds that building one TensorRT engine may take (default: 7200)
EOF
}

say() { printf '%s\n' "$*"; }

fail() { # CODE MESSAGE
    code=$1
    shift
    printf 'install.sh: %s\n' "$*" >&2
    exit "$code"
}

problem() { # CODE MESSAGE: told now, exits later with the lowest code of all
    printf 'install.sh: %s\n' "$2" >&2
    if [ "$worst" -eq 0 ] || [ "$1" -lt "$worst" ]; then worst=$1; fi
}

fact() { # KEY: its values in release.txt, one a line
    sed -n "s/^$1 //p" "$here/release.txt"
}

is_whole() { # DIRECTORY: whether every file is there with its digest; says nothing
    [ -s "$1/SHA256SUMS" ] && [ -f "$1/release.txt" ] || return 1
    # A list that was cut at the end of a line would still be a list of good digests.
    [ "$(wc -l <"$1/SHA256SUMS")" -eq "$(sed -n 's/^files //p' "$1/release.txt")" ] || return 1
    (cd -- "$1" && sha256sum -c SHA256SUMS >/dev/null 2>&1)
}

release_at() { # LINK: the release that it names; nothing where there is none
    target=$(readlink "$prefix/$1" 2>/dev/null) || return 0
    printf '%s' "${target#releases/}"
}

read_facts() {
    for tool in sha256sum readlink sed df; do
        command -v "$tool" >/dev/null 2>&1 || fail $EXIT_MISSING "no $tool: install coreutils or busybox"
    done
    [ -f "$here/release.txt" ] || fail $EXIT_REFUSED "$here/release.txt is absent: unpack the archive again"
    name=$(fact name)
    release=$(fact release)
    case $name/$release in
        */ | /* | *[!A-Za-z0-9._/-]*) fail $EXIT_REFUSED "$here/release.txt is damaged: unpack the archive again" ;;
    esac
}

choose_prefix() { # the installation that we lie in, else the default
    owner=${here%/releases/*}
    if [ -n "$prefix" ]; then
        case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
    elif [ "$owner" != "$here" ] && [ -L "$owner/current" ]; then
        prefix=$owner
    elif [ "$(id -u)" -eq 0 ]; then
        prefix=/opt/edgeship/$name
    else
        prefix=${XDG_DATA_HOME:-${HOME:?is not set: name a directory with --prefix}/.local/share}/edgeship/$name
    fi
}

check_source() {
    is_whole "$here" && return
    (cd -- "$here" && sha256sum -c SHA256SUMS 2>/dev/null | grep -v ': OK$' >&2) || true
    fail $EXIT_REFUSED "$here is not whole, nothing was changed: copy the archive and unpack it again"
}

check_board() { # every problem at once
    worst=0
    arch=$(fact arch)
    machine=$(uname -m)
    [ "$machine" = arm64 ] && machine=aarch64
    [ "$machine" = "$arch" ] || problem $EXIT_REFUSED "this release is for $arch, and this is $machine: bundle it for this board"
    if ! command -v "$python" >/dev/null 2>&1; then
        problem $EXIT_MISSING "no $python: install Python 3.6 or later with numpy, or name it with --python"
    else
        # One argument for each artifact: names of runtimes hold no blanks.
        # shellcheck disable=SC2046
        missing=$("$python" -c "$LOOK" "$arch" $(fact artifact | sed 's/^[^ ]* //')) || missing="$python does not run: name another with --python"
        while IFS= read -r line; do
            [ -z "$line" ] || problem $EXIT_MISSING "$line"
        done <<EOF
$missing
EOF
        for kit in $(fact kit); do # there is no such cache: what was built before is no matter of the board
            status=0
            "$python" "$here/$kit/build_engine.py" "$here/$kit" --cache "$here/engines" --check >/dev/null || status=$?
            [ "$status" -eq 0 ] || problem "$(code_of "$status")" "no engine of $kit can be built here, see above"
        done
    fi
    free_kb=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo 2>/dev/null) || true
    needed_kb=$(($(fact memory_bytes) / 1024))
    if [ -n "$free_kb" ] && [ "$free_kb" -lt "$needed_kb" ]; then
        problem $EXIT_REFUSED "the model needs $needed_kb kB of memory and $free_kb kB are free: stop other programs, or bundle a smaller one"
    fi
    [ "$worst" -eq 0 ] || exit "$worst"
}

check_disk() { # room for the release, and for what a file system loses on each file
    place=$prefix
    while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
    # df -P: device, blocks, used, available, share, mount point; only the share has its %.
    free_kb=$(df -Pk "$place" | sed -n '2s/^.* \([0-9][0-9]*\)  *[0-9-][0-9-]*%.*$/\1/p')
    needed_kb=$(($(fact bytes) / 1024 + $(fact files) * 8 + 1024))
    [ -z "$(fact kit)" ] || needed_kb=$((needed_kb * 2)) # engines hold the weights again
    [ -z "$free_kb" ] || [ "$free_kb" -ge "$needed_kb" ] ||
        fail $EXIT_REFUSED "$place has $free_kb kB free and $needed_kb kB are needed: make room, or choose another place with --prefix"
}

lock() {
    [ -w "$prefix" ] || fail $EXIT_FAILED "$prefix cannot be written: run this as its owner, or choose another place with --prefix"
    exec 9>>"$prefix/.lock"
    if command -v flock >/dev/null 2>&1; then
        flock -n 9 && has_lock=1 || has_lock=0
    else
        "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && has_lock=1 || has_lock=0
    fi
    [ "$has_lock" -eq 1 ] ||
        fail $EXIT_BUSY "another installation is at work in $prefix (process $(cat "$prefix/.lock")): wait for its end, then run this again"
    printf '%s\n' "$$" >"$prefix/.lock"
    for link in current previous; do
        [ -L "$prefix/$link" ] || [ ! -e "$prefix/$link" ] || fail $EXIT_REFUSED "$prefix/$link is no link of ours: move it away"
    done
    for leftover in "$prefix"/releases/.new-* "$prefix"/releases/.old-* "$prefix"/.current-new "$prefix"/.previous-new; do
        if [ -e "$leftover" ] || [ -L "$leftover" ]; then rm -rf -- "$leftover"; fi
    done
}

flush() { sync || fail $EXIT_FAILED "sync failed: look at the disk, then run this again"; }

give_up() { # MESSAGE: of a copy
    rm -rf -- "$new"
    fail $EXIT_FAILED "$1 to $prefix: look at the disk, then run this again; what was installed is as it was"
}

copy_release() { # SLOT: under another name until all of it is on the disk
    new=$prefix/releases/.new-$1
    mkdir -- "$new"
    cp -- "$here/SHA256SUMS" "$new/SHA256SUMS"
    while IFS= read -r line; do # "<64 hex digits>  <path>"
        file=${line#*  }
        case $file in */*) [ -d "$new/${file%/*}" ] || mkdir -p -- "$new/${file%/*}" ;; esac
        cp -- "$here/$file" "$new/$file" || give_up "$file cannot be copied"
    done <"$new/SHA256SUMS"
    flush
    is_whole "$new" || give_up "the copy is not what was copied"
    mv -- "$new" "$prefix/releases/$1"
    flush
}

remove_release() { # SLOT: it never stands half removed under its name
    mv -- "$prefix/releases/$1" "$prefix/releases/.old-$1"
    rm -rf -- "$prefix/releases/.old-$1"
}

replace_link() { # TARGET LINK NEW: in one rename(2), so that a reader finds the old one or the new one
    rm -f -- "$3"
    ln -s "$1" "$3"
    mv -fT -- "$3" "$2" 2>/dev/null ||
        "$python" -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$3" "$2" ||
        fail $EXIT_FAILED "$2 cannot be replaced: look at the disk, then run this again"
}

point() { # LINK SLOT
    replace_link "releases/$2" "$prefix/$1" "$prefix/.$1-new"
}

code_of() { # STATUS of build_engine.py: the same codes, but for those that only this program has
    case $1 in
        "$EXIT_MISMATCH" | "$EXIT_MISSING" | "$EXIT_REFUSED") printf '%s' "$1" ;;
        7) printf '%s' "$EXIT_MISMATCH" ;;
        *) printf '%s' "$EXIT_FAILED" ;;
    esac
}

kits_of() { # SLOT: directories of its TensorRT kits, which hold no blanks
    sed -n 's/^kit //p' "$prefix/releases/$1/release.txt"
}

engine_of() { # Of the last event that comes in: the engine to use, below the cache, or nothing
    sed -n '${/"event": *"end"/s/.*"engine": *"\([^"]*\)".*/\1/p;}'
}

build_engines() { # SLOT KIT: built here, held against the golden pack; then the slot links to one
    place=$prefix/releases/$1/$2
    log=$prefix/self-test.log
    say "engines of $2: what is not there yet takes minutes to build ..."
    mkdir -p -- "$prefix/engines"
    status=0
    "$python" "$place/build_engine.py" "$place" --cache "$prefix/engines" --reuse --deadline "$build_deadline" \
        --end-with-parent >"$log" 9>&- || status=$?
    engine=$(engine_of <"$log")
    if [ "$status" -ne 0 ] || [ -z "$engine" ]; then
        printf 'install.sh: no engine of %s serves (status %s): its story is in %s, and what TensorRT said in %s/engines\n' \
            "$2" "$status" "$log" "$prefix" >&2
        return "$(code_of "$status")"
    fi
    replace_link "../../../../engines/$engine" "$place/engine" "$place/.engine-new"
    flush # before a link leads to it: TensorRT does not
    say "engine of $2: $engine; edgeship evidence import takes $prefix/engines/${engine%/*}/engine_report.json"
}

has_engines() { # SLOT: whether each of its kits has an engine that this TensorRT and GPU can load
    for kit in $(kits_of "$1"); do
        place=$prefix/releases/$1/$kit
        [ -f "$place/engine" ] || return 1
        engine=$("$python" "$place/build_engine.py" "$place" --cache "$prefix/engines" --check 2>/dev/null | engine_of)
        case $(readlink "$place/engine") in */engines/"${engine:-none}") ;; *) return 1 ;; esac
    done
}

prune_engines() { # [KEPT]: those stay that a release links to, and those of kits with these identities
    for place in "$prefix"/engines/*/; do
        [ -d "$place" ] || continue
        key=${place%/}
        key=${key##*/}
        case " ${1:-} " in *" ${key%%-*} "*) continue ;; esac
        is_used=0
        for link in "$prefix"/releases/*/artifacts/*/engine; do
            case $(readlink "$link" 2>/dev/null) in */engines/"$key"/*) is_used=1 ;; esac
        done
        [ "$is_used" -eq 1 ] || rm -rf -- "$place"
    done
}

kit_ids() { # the first 16 digits of its kits' identities, with which the names of their engines begin
    for kit in $(fact kit); do
        printf '%s ' "$(sed -n 's/.*"artifact_id": *"\([0-9a-f]\{16\}\).*/\1/p' "$here/$kit/manifest.json")"
    done
}

self_test() { # SLOT: exit code for it; every artifact must match with a runtime of this board
    directory=$prefix/releases/$1
    log=$prefix/self-test.log
    for kit in $(kits_of "$1"); do
        build_engines "$1" "$kit" || return $?
    done
    # Their names hold no blanks: format and precision.
    # shellcheck disable=SC2013
    for artifact in $(sed -n 's/^artifact \([^ ]*\) .*/\1/p' "$directory/release.txt"); do
        say "self-test of $artifact ..."
        : >"$log" # or the outcome could be that of the artifact before
        status=0
        "$python" -c "$WITHIN" "$deadline" "$python" "$directory/edgeship-board.pyz" self-test "$directory/$artifact" \
            >>"$log" 9>&- || status=$?
        outcome=$(sed -n '${/"event": *"end"/s/.*"outcome": *"\([a-z-]*\)".*/\1/p;}' "$log")
        [ "$status" -ne 124 ] || outcome=timeout
        case $status/$outcome in
            0/ok) continue ;;
            */no-runtime | */no-numpy | */wrong-numpy | */timeout) code=$EXIT_MISSING ;;
            */damaged | */refused | */illegal-instruction) code=$EXIT_REFUSED ;;
            *) code=$EXIT_MISMATCH ;;
        esac
        printf 'install.sh: the self-test of %s ended with "%s" (status %s): its story is in %s\n' \
            "$artifact" "${outcome:-nothing}" "$status" "$log" >&2
        return "$code"
    done
}

choose_slot() { # the directory for this release: one that has it whole, else one that is free
    slot=$release
    count=1
    while [ -e "$prefix/releases/$slot" ] && ! is_whole "$prefix/releases/$slot"; do
        if [ "$slot" != "$(release_at current)" ] && [ "$slot" != "$(release_at previous)" ]; then
            remove_release "$slot"
        else # damaged, and in use: a good copy goes beside it
            count=$((count + 1))
            slot=$release-$count
        fi
    done
}

is_installed() { # whether this release is current, and whole
    current=$(release_at current)
    case $current in "$release" | "$release"-[0-9]*) ;; *) return 1 ;; esac
    is_whole "$prefix/releases/$current" && has_engines "$current"
}

prune() { # the newest ones stay, and those that a link names
    count=0
    # Names of releases are ours and hold no blanks; the shell cannot sort by time.
    # shellcheck disable=SC2012,SC2045
    for slot in $(ls -1t "$prefix/releases"); do
        count=$((count + 1))
        if [ "$count" -gt "$KEPT_RELEASES" ] && [ "$slot" != "$(release_at current)" ] && [ "$slot" != "$(release_at previous)" ]; then
            remove_release "$slot"
        fi
    done
    prune_engines
}

install_release() {
    check_source
    was_installed=0
    if is_installed; then was_installed=1; else check_board; fi
    mkdir -p -- "$prefix/releases" || fail $EXIT_FAILED "$prefix cannot be made: run this as root, or choose another place with --prefix"
    lock
    if [ "$was_installed" -eq 1 ] || is_installed; then
        prune
        flush
        say "$name $release is installed and whole: nothing to do"
        return
    fi
    choose_slot
    is_copied=0
    if [ ! -e "$prefix/releases/$slot" ]; then
        check_disk
        is_copied=1
        copy_release "$slot"
    fi
    code=0
    self_test "$slot" || code=$?
    current=$(release_at current)
    if [ "$code" -ne 0 ]; then
        [ "$is_copied" -eq 0 ] || remove_release "$slot"
        prune_engines "$(kit_ids)" # what was built is there for the next try, with what TensorRT said
        fail "$code" "$name $release was not installed, current stays ${current:-nothing}: mend what the self-test says, then run this again"
    fi
    touch -- "$prefix/releases/$slot"
    # The link to what works now goes first: cut in between, both name it, and the next run goes on.
    if [ "$current" != "$slot" ] && [ -n "$current" ] && [ -d "$prefix/releases/$current" ]; then point previous "$current"; fi
    point current "$slot"
    flush
    prune
    flush
    say "$name $release is current in $prefix"
}

roll_back() {
    [ -d "$prefix/releases" ] || fail $EXIT_MISSING "nothing is installed in $prefix: name the place with --prefix"
    command -v "$python" >/dev/null 2>&1 || fail $EXIT_MISSING "no $python: name the Python that has the runtime with --python"
    lock
    current=$(release_at current)
    previous=$(release_at previous)
    if [ -z "$previous" ] || [ "$previous" = "$current" ]; then
        fail $EXIT_MISSING "$prefix has no previous release: install the one that you want with its own install.sh"
    fi
    is_whole "$prefix/releases/$previous" ||
        fail $EXIT_REFUSED "the previous release $previous is damaged, current stays $current: install it again from its archive"
    code=0
    self_test "$previous" || code=$?
    [ "$code" -eq 0 ] || fail "$code" "the previous release $previous fails its self-test, current stays $current: mend what it says, then run this again"
    # current goes first: cut in between, both name the release that was asked for.
    point current "$previous"
    if [ -n "$current" ] && [ -d "$prefix/releases/$current" ]; then point previous "$current"; fi
    flush
    say "$name $previous is current again in $prefix"
}

tell_status() {
    current=$(release_at current)
    [ -n "$current" ] || fail $EXIT_MISSING "nothing is installed in $prefix: run sh install.sh --install"
    say "prefix: $prefix"
    say "current: $current"
    say "previous: $(release_at previous)"
    for directory in "$prefix"/releases/*/; do
        slot=$(basename -- "$directory")
        if is_whole "${directory%/}"; then say "release $slot: whole"; else say "release $slot: damaged"; fi
    done
    for kit in $(kits_of "$current"); do say "engine of $kit: $(readlink "$prefix/releases/$current/$kit/engine")"; done
    is_whole "$prefix/releases/$current" || fail $EXIT_REFUSED "the current release is damaged: run sh install.sh --install of its archive"
    has_engines "$current" || fail $EXIT_REFUSED "the current release has no engine that this board's TensorRT can load: run sh install.sh --install of its archive"
}

uninstall_all() {
    [ -d "$prefix/releases" ] || fail $EXIT_MISSING "nothing is installed in $prefix: name the place with --prefix"
    lock
    rm -f -- "$prefix/current" "$prefix/previous" "$prefix/self-test.log"
    rm -rf -- "$prefix/releases" "$prefix/engines"
    rm -f -- "$prefix/.lock"
    flush
    rmdir -- "$prefix" 2>/dev/null || say "$prefix holds files that are not ours: they stay"
    say "$name was removed from $prefix"
}

main() {
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
    action='' prefix='' python=python3 deadline=900 build_deadline=7200
    while [ $# -gt 0 ]; do
        case $1 in
            --check | --install | --rollback | --status | --uninstall)
                [ -z "$action" ] || fail $EXIT_USAGE "two actions: run this once for each"
                action=${1#--}
                ;;
            --prefix | --python | --deadline | --build-deadline)
                [ -n "${2:-}" ] || fail $EXIT_USAGE "$1 needs a value: see sh install.sh --help"
                case $1 in
                    --prefix) prefix=$2 ;;
                    --python) python=$2 ;;
                    --deadline) deadline=$2 ;;
                    --build-deadline) build_deadline=$2 ;;
                esac
                shift
                ;;
            --help | -h)
                usage
                exit 0
                ;;
            *) fail $EXIT_USAGE "unknown argument $1: see sh install.sh --help" ;;
        esac
        shift
    done
    case $deadline$build_deadline in *[!0-9]*) fail $EXIT_USAGE "--deadline $deadline, --build-deadline $build_deadline: one is no number of seconds" ;; esac
    [ -n "$action" ] || { usage >&2; exit $EXIT_USAGE; }
    read_facts
    choose_prefix
    case $action in
        check)
            check_source
            check_board
            check_disk
            say "$name $release suits this board; sh install.sh --install goes on with its self-test"
            ;;
        install) install_release ;;
        rollback) roll_back ;;
        status) tell_status ;;
        uninstall) uninstall_all ;;
    esac
}

main "$@"
exit
