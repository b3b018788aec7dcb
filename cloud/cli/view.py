"""Live progress of a deployment: a table that redraws itself on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from rich import console, live, table, text

from cloud.cli import progress

_STYLES = {"QUEUED": "dim", "IN_PROGRESS": "yellow", "SUCCEEDED": "green", "COMPLETED": "green", "CANCELED": "dim"}
_STATES = {"RUNNING": "green", "FINISHED": "green", "ERRORED": "red", "BROKEN": "bold red"}
_MOST = 40  # devices on a terminal; the rest is counted


class View:
    """Shows each standing that `show` gets. Use it as a context manager."""

    def __init__(self, out: console.Console, names: frozenset[str]) -> None:
        self._out = out
        self._names = names  # components whose states are worth a look
        self._live = live.Live(console=out, auto_refresh=False, transient=False) if out.is_terminal else None
        self._told: dict[str, str] = {}

    def show(self, standing: progress.Standing) -> None:
        if self._live is not None:
            self._live.update(_table(standing, self._names), refresh=True)
            return
        for device in standing.devices:
            states = _states(device, self._names).plain
            line = f"{device.thing}: {device.line()}" + (f"  [{states}]" if states else "")
            if self._told.get(device.thing) != line:
                self._told[device.thing] = line
                self._out.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Callable[[progress.Standing], None]:
        if self._live is not None:
            self._live.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _table(standing: progress.Standing, names: frozenset[str]) -> table.Table:
    made = table.Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("DEVICE", "DEPLOYMENT", "COMPONENTS"):
        made.add_column(heading, overflow="fold")
    # With many devices failures and what is on its way must not fall off the screen.
    crowded = len(standing.devices) > _MOST
    shown = sorted(standing.devices, key=lambda one: (crowded and not one.failed, crowded and one.ended, one.thing))
    for device in shown[:_MOST]:
        style = _STYLES.get(device.status, "red")
        made.add_row(device.thing, text.Text(device.line(), style), _states(device, names))
    if len(shown) > _MOST:
        made.add_row(f"… {len(shown) - _MOST} more", "", "")
    return made


def _states(device: progress.Device, names: frozenset[str]) -> text.Text:
    made = text.Text()
    for component in device.components:
        if component.name in names:
            made.append(f"{'  ' if made else ''}{component.name.rpartition('.')[2]} {component.version} ")
            made.append(component.state, _STATES.get(component.state, "yellow"))
    return made
