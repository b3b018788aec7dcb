"""Keeps the state aside that a component's `marram.rollbackState` names, and brings it back with the old version.

Taken before the new version's Install, brought back before the old version's: both times nothing of the component runs. What
was taken lies in the folder of the deployment, so a crash in between loses nothing. Everything else in the work folder
survives a rollback.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from nucleus.core import care, errors
from nucleus.core.component import Component
from nucleus.host import logs, places, snapshots

FOLDER = "state"  # in the folder of a deployment


class _Order(Struct, frozen=True):
    folder: Path
    previous: dict[str, Component]
    back: bool


class Keeper:
    """Told of the deployment by its actor, asked by the runners (in threads, for different components)."""

    def __init__(self, where: places.Places, log: logs.Log) -> None:
        self._places = where
        self._log = log
        self._order: _Order | None = None
        self._left: dict[str, str] = {}

    def forward(self, folder: Path, previous: Mapping[str, Component] | None) -> None:
        """A deployment whose facts lie in `folder` changes what was `previous`; what others have kept goes."""
        if self._order is None or self._order.folder != folder:
            self._left = {}
        self._order = _Order(folder, dict(previous or {}), back=False)
        for other in self._places.deployments.glob(f"*/{FOLDER}"):
            if other.parent != folder:
                shutil.rmtree(other, ignore_errors=True)

    def back(self, folder: Path, previous: Mapping[str, Component] | None) -> None:
        """It is on its way back."""
        self._order = _Order(folder, dict(previous or {}), back=True)

    def said(self) -> str:
        """What was not kept or brought back, as the end of a sentence."""
        return "".join(f"; the state of {name} was not restored: {why}" for name, why in sorted(self._left.items()))

    def before_install(self, one: Component) -> None:
        """Call it in a thread; nothing of the component may run. Never raises: the log and `said` tell."""
        order = self._order
        old = order.previous.get(one.name) if order is not None else None
        if order is None or old is None:
            return
        place = order.folder / FOLDER / one.name
        try:
            if order.back and one.version == old.version and place.exists():
                self._restore(one, place)
            elif not order.back and one.version != old.version and not place.exists():
                self._take(one, old, place)
        except (OSError, ValueError, errors.NucleusError) as error:
            self._leave(one, str(error))

    def _take(self, one: Component, old: Component, place: Path) -> None:
        found = wish(one) or wish(old)
        if found is None:
            return
        work = self._places.work(one.name)
        try:
            size = snapshots.take(work, found.paths, place, max_bytes=found.max_bytes)
        except snapshots.TooMuch as error:
            snapshots.leave(place, str(error))
            self._leave(one, str(error))
            return
        self._log.info("component.state_kept", component=one.name, version=old.version, bytes=size)

    def _restore(self, one: Component, place: Path) -> None:
        found = snapshots.restore(place, self._places.work(one.name))
        place.rename(place.with_name(f".{place.name}.restored"))  # once: a second Install must not undo what came after
        if found.left:
            self._leave(one, found.left)
            return
        self._log.info("component.state_restored", component=one.name, version=one.version)

    def _leave(self, one: Component, why: str) -> None:
        self._left[one.name] = why
        self._log.warning("component.state_not_kept", component=one.name, version=one.version, why=why)


def wish(one: Component) -> care.RollbackState | None:
    try:
        return care.read(one.marram).rollback_state
    except care.NotValid:
        return None
