#!/bin/sh
# Starts the nucleus of this root and keeps it started. Installed once, never updated in place: an update only moves links.
#
#   exit code 0    stopped by a signal to the loader: the loader ends too; otherwise the nucleus is started again
#             100  the nucleus wants to be started again (perhaps another version of it)
#             101  the machine shall be rebooted: runs the command in alts/reboot-command (default: reboot)
#             else a failure: started again, three times in a row; then, if alts/old is there, back to it, with a note
#                  in alts/panic; if not, the loader ends with the code (systemd starts it again after a while)
#
# Links in alts/ : current (runs), old (ran before), new (a switch that has begun), broken (what did not start).
set -u

root=$(cd "$(dirname "$0")/.." && pwd -P) || exit 1
alts=$root/alts
log=$root/logs/loader.log
TRIES=3
STEADY_S=60 # a run of at least this long was no failure to start

say() {
    printf '%s loader: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$log" 2>/dev/null
}

leads() { # LINK: is it a link to a finished launch directory?
    [ -h "$alts/$1" ] && [ -f "$alts/$1/python" ]
}

move() { # LINK LINK: rename(2), after removing the second: a link to a directory would swallow the first
    rm -f "$alts/$2" && mv "$alts/$1" "$alts/$2"
}

repair() { # finishes what a crash left between two renames
    for link in new old broken; do
        if [ -h "$alts/$link" ] && ! leads "$link"; then
            say "dropped the link $link: it leads nowhere"
            rm -f "$alts/$link"
        fi
    done
    if leads new; then
        say "finishing the switch to $(readlink "$alts/new")"
        if leads current && ! leads old; then move current old; fi
        move new current
    fi
    if leads broken && leads old; then
        say "finishing the way back to $(readlink "$alts/old")"
        move old current
    fi
    if ! leads current && leads old; then
        say "current led nowhere; it is what was old now"
        move old current
    fi
    if ! leads current && [ -f "$alts/init/python" ]; then
        say "current led nowhere; it is the first installation now"
        rm -f "$alts/current" && ln -s init "$alts/current"
    fi
}

go_back() { # CODE
    say "the nucleus in $(readlink "$alts/current") failed $TRIES times (last exit code $1); back to $(readlink "$alts/old")"
    move current broken
    {
        echo "it failed $TRIES times in a row, the last time with exit code $1"
        tail -n 20 "$log"
    } >"$alts/panic.new"
    mv "$alts/panic.new" "$alts/panic"
    move old current
    sync
}

stopped=
child=
stop() {
    stopped=1
    [ -n "$child" ] && kill -TERM "$child" 2>/dev/null
}
trap stop TERM INT HUP

run() { # starts the nucleus and waits for its end; the exit code is in $code
    directory=$(cd "$alts/current" 2>/dev/null && pwd -P) || { say "there is no $alts/current"; code=1; return; }
    read -r python <"$directory/python"
    case $python in /*) ;; *) python=$directory/$python ;; esac
    MARRAM_LOADER=$$ "$python" -I -m nucleus --root "$root" >>"$log" 2>&1 &
    child=$!
    [ -n "$stopped" ] && stop # the signal came before there was a child
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do # a signal to the loader ended the wait, not the nucleus
        wait "$child"
        code=$?
    done
    child=
}

umask 022
mkdir -p "$root/logs" && chmod 700 "$root/logs"
cd "$root" || exit 1
other=$(cat "$alts/loader.pid" 2>/dev/null)
if [ -n "$other" ] && [ "$other" != $$ ] && { tr '\0' ' ' <"/proc/$other/cmdline"; } 2>/dev/null | grep -qF "$0"; then
    echo "loader: another loader of $root is running (pid $other)" >&2
    exit 1
fi
echo $$ >"$alts/loader.pid"
if [ -f "$log" ] && [ "$(wc -c <"$log")" -gt 1048576 ]; then mv "$log" "$log.1"; fi

failures=0
while :; do
    repair
    began=$(date +%s)
    run
    lasted=$(($(date +%s) - began))
    if [ -n "$stopped" ]; then
        rm -f "$alts/loader.pid"
        case $code in 0 | 143 | 130 | 129) exit 0 ;; *) exit "$code" ;; esac
    fi
    [ "$lasted" -ge "$STEADY_S" ] && failures=0
    case $code in
    0)
        failures=0
        sleep 1 # somebody stopped the nucleus, but not the loader
        ;;
    100)
        failures=0
        ;;
    101)
        command=$(cat "$alts/reboot-command" 2>/dev/null)
        say "rebooting: ${command:-reboot}"
        if sh -c "${command:-reboot}" >>"$log" 2>&1; then exit 0; fi
        say "the reboot command failed; starting the nucleus again"
        ;;
    *)
        failures=$((failures + 1))
        say "the nucleus ended with exit code $code (failure $failures of $TRIES)"
        if [ "$failures" -ge "$TRIES" ]; then
            leads old || exit "$code"
            go_back "$code"
            failures=0
        fi
        ;;
    esac
done
