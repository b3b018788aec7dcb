"""The files of the nucleus as a service: loader, first launch directory, systemd unit or plain-shell script, configuration."""

from __future__ import annotations

from pathlib import Path

from nucleus.host import launch

WATCHDOG_S = 120
STOP_S = 60  # 30 s for the components, the loader's own end, and some air


def write(root: Path, *, name: str, units: Path | None) -> tuple[Path, ...]:
    """Writes them; `units` None means the plain-shell variant. Returns what was written. Raises OSError, NucleusError."""
    launch.Launches(root, under_loader=False).make_first()
    loader = root / "bin" / "loader"
    _write(loader, launch.loader_text(), 0o755)
    if units is None:
        service = root / "bin" / "service"
        _write(service, script(root).encode(), 0o755)
        return loader, service
    service = units / f"{name}.service"
    units.mkdir(parents=True, exist_ok=True)
    _write(service, unit(root).encode(), 0o644)
    return loader, service


def unit(root: Path) -> str:
    """The systemd unit. NotifyAccess=all: the nucleus is a child of the loader, which is the main process.

    KillMode=mixed: only the loader gets SIGTERM, and hands it on; the components are ended by the nucleus, in order.
    """
    path = str(root).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f"""\
[Unit]
Description=Marram nucleus ({path})
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
ExecStart="{path}/bin/loader"
KillMode=mixed
TimeoutStartSec=120
TimeoutStopSec={STOP_S}
WatchdogSec={WATCHDOG_S}
Restart=on-failure
RestartSec=10
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


def script(root: Path) -> str:
    """`bin/service start|stop|status` for machines without systemd; call it from whatever starts things there."""
    quoted = "'" + str(root).replace("'", "'\\''") + "'"
    return f"""\
#!/bin/sh
# Starts, stops and shows the nucleus of one root, for machines without systemd (from rc.local, or cron's @reboot).
root={quoted}
running() {{
    pid=$(cat "$root/alts/loader.pid" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null
}}
case "${{1:-}}" in
start)
    running && {{ echo "running (pid $pid)"; exit 0; }}
    rm -f "$root/alts/stopping"
    # The outer loop does what systemd's Restart=on-failure does.
    (
        trap '' HUP
        until "$root/bin/loader" || [ -e "$root/alts/stopping" ]; do sleep 10; done
    ) </dev/null >/dev/null 2>&1 &
    echo started
    ;;
stop)
    : >"$root/alts/stopping"
    running || {{ echo "not running"; exit 0; }}
    kill -TERM "$pid"
    tries={STOP_S}
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -gt 0 ]; do sleep 1; tries=$((tries - 1)); done
    kill -0 "$pid" 2>/dev/null && {{ echo "still running (pid $pid)" >&2; exit 1; }}
    echo stopped
    ;;
status)
    running && {{ echo "running (pid $pid)"; exit 0; }}
    echo "not running"
    exit 3
    ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
"""


def first_configuration(root: Path) -> bytes:
    """A nucleus without a cloud: local deployments work, and `marram device create` writes what a cloud needs."""
    return f"""\
system:
  rootpath: {str(root)!r}
services:
  aws.greengrass.Nucleus:
    configuration: {{}}
""".encode()


def _write(path: Path, data: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.replace(path)
