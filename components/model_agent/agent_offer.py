"""The way of one offered model: read, judged, loaded beside what answers, kept durably, and only then exchanged or tried.

The bytes are read once, through a descriptor that never follows a link; what is judged, loaded and kept is what was read.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent_batches
import agent_budget
import agent_check
import agent_durable
import agent_entry
import agent_gate
import agent_loader
import agent_registry
import agent_room
import agent_rows
import agent_settings
import agent_signature
import agent_table
import agent_verdicts

MODEL_LIMIT_BYTES = 512 * 1024 * 1024
MANIFEST_LIMIT_BYTES = 1024 * 1024
_JOIN_LEAST_S = 2.0  # however long the load took
_HELD = "{what} is held back; release it first (marram model release {alias}), then offer it with batching"


@dataclass(frozen=True)
class Offer:
    """Who offers what as which version for which alias; `chosen`: the alias is the caller's, not the manifest's.

    `follows`: another component has the alias, and the model is to answer as soon as that is gone.
    """

    component: str
    version: str
    owner: str
    alias: str
    folder: Path
    settings: agent_settings.Settings = agent_settings.DEFAULT
    chosen: bool = False
    follows: bool = False


class Place(enum.Enum):
    """What becomes of a model that passes: it answers, answers again, is tried, or waits for another component to go."""

    NEW, BACK, TRIAL, HEIR = range(4)


class Gate:
    """Takes offers that pass `admission` into `room` and records them by `change(alias, event)`."""

    def __init__(
        self,
        registry: agent_registry.Registry,
        room: agent_room.Room,
        root: Path | None,
        change: Callable[..., Any],
    ) -> None:
        self.store = registry.folder
        self.admission = agent_gate.Gate(agent_verdicts.Verdicts(registry.folder), root)
        self._registry = registry
        self._room = room
        self._root = root  # of the nucleus, where it says whom it trusts
        self._change = change

    def take(self, offer: Offer, data: bytes) -> str:
        """Does what the offer asks for and returns a line that says so; `data` is model.json. Raises RefusedError."""
        started = time.monotonic()
        agent_gate.check_settings(offer.settings)
        package = self._read(offer, data)
        if offer.settings.batching is not None and not agent_batches.is_possible(package.manifest):
            raise agent_check.RefusedError(
                "settings: batching needs a model whose inputs and outputs all have rows of any number (-1 first in each shape "
                "of model.json); export it with a dynamic first dimension, or leave batching out",
                "NOT_BATCHABLE",
            )
        judged = self._judged(offer, data, package)
        found = self.admission.examine(judged)  # of what is here already, too: whom the device trusts can have changed
        package = dataclasses.replace(package, held=dataclasses.replace(package.held, signer=found.signer))
        known = self._known(offer, judged, package.held)
        if known:
            return known
        entry = self._registry.aliases.get(offer.alias)
        place = self._place(entry, offer, package.held)
        self.admission.recall(judged, answered=entry is not None and entry.answered(package.held))
        try:
            compared = self._admit(judged, package, offer, place)
        except agent_durable.FullError as error:
            raise agent_check.RefusedError(str(error), error.code) from error
        except agent_check.RefusedError as error:
            self.admission.keep(judged, error)
            raise
        self.admission.keep(judged, None)
        self._room.settle(agent_room.DRAIN_S)
        figures = "".join(f"; {each}" for each in (found.certificate, compared) if each)
        return _said(offer, entry, place, f"checked in {time.monotonic() - started:.2f} s{figures}")

    def _place(self, entry: agent_entry.Entry | None, offer: Offer, held: agent_entry.Held) -> Place:
        """Whether what is not here yet answers at once: what answered before does, also if it would have to be tried today."""
        if offer.follows:
            return Place.HEIR
        if entry is not None and entry.returns(held, offer.owner):
            return Place.BACK
        # What serves, to be run in another way, is not tried against itself.
        other = entry is not None and offer.alias in self._room.serving and not held.same(entry.serving)
        return Place.TRIAL if offer.settings.trial and other else Place.NEW

    def _admit(self, judged: agent_gate.Offer, package: agent_loader.Package, offer: Offer, place: Place) -> str:
        """Takes the model through the rest of the gate into its place; returns the figures of its replay."""
        event = {Place.TRIAL: agent_table.TrialBegun, Place.HEIR: agent_table.Followed}.get(place, agent_table.Accepted)
        begun = time.monotonic()
        with self._room.arrival(package, self._way(offer, place), beside=place is Place.TRIAL) as new:
            serving = self._room.serving.get(offer.alias) if place is not Place.BACK else None  # to be compared with
            joined = _join(offer.settings, new.model, agent_gate.LOAD_S - (time.monotonic() - begun))
            compared = self.admission.replay(
                offer.alias, offer.settings, new.model, None if serving is None else serving.model
            )
            self._change(
                offer.alias,
                event(package.held, offer.owner),
                lambda: self._registry.keep(judged.data, package.manifest.file, package.model, package.held.key),
            )
            if place is Place.TRIAL:
                self._room.try_out(offer.alias, new)
            elif place is Place.HEIR:
                new.model.retire()  # its copy stays; it is loaded again when it is its turn, which may be never
            else:
                self._room.install(offer.alias, new)
        return "; ".join(each for each in (joined, compared) if each)

    def _read(self, offer: Offer, data: bytes) -> agent_loader.Package:
        manifest = agent_check.read_manifest(data)
        with self._room.still():
            model = read(offer.folder / manifest.file, MODEL_LIMIT_BYTES)
        held = agent_entry.Held(
            offer.version,
            agent_registry.digest(data, model),
            offer.component,
            agent_settings.text(offer.settings),
            str(offer.folder),
        )
        return agent_loader.Package(offer.alias, held, manifest, model, offer.settings, agent_gate.LOAD_S)

    def _judged(self, offer: Offer, data: bytes, package: agent_loader.Package) -> agent_gate.Offer:
        """What the gate is to judge: for the caller's alias it goes by what the signed manifest names."""
        signed = (offer.component, offer.version)
        if offer.chosen:
            try:
                signed = agent_signature.signed_for(offer.folder, self._root)
            except agent_signature.UnsignedError as error:
                raise agent_check.RefusedError(f"{error.code}: {error}", error.code) from error
        held = package.held
        return agent_gate.Offer(
            *signed, offer.folder, package.manifest, data, package.model, held.key, package.settings
        )

    def _way(self, offer: Offer, place: Place) -> agent_budget.Way:
        way = agent_budget.Way(offer.settings.swap)
        # What answers stays in memory.
        stays = place in (Place.TRIAL, Place.HEIR)
        return agent_budget.Way.OVERLAP if stays and way is agent_budget.Way.REPLACE else way

    def _known(self, offer: Offer, judged: agent_gate.Offer, held: agent_entry.Held) -> str:
        """What becomes of a model that is here already; empty for one that is new, or is to run in another way."""
        alias, entry = offer.alias, self._registry.aliases.get(offer.alias)
        serving, candidate = self._room.serving.get(alias), self._room.candidates.get(alias)
        if entry is None or serving is None:
            return ""
        what, back = f"{offer.component} {offer.version}", entry.returns(held, offer.owner)
        if held.same(entry.serving) and serving.settings.becomes(offer.settings):
            self._change(alias, agent_table.Confirmed(held))
            self._room.serving[alias] = dataclasses.replace(serving, settings=offer.settings)
            self._room.drop(alias)
            return f"{alias} already answers with {what}"
        if held.same(entry.withheld) and entry.withheld is not None:
            if offer.settings.joins_more(agent_loader.read_settings(entry.withheld.settings)):
                raise agent_check.RefusedError(_HELD.format(what=what, alias=alias), "FAILED_PRECONDITION")
            self._change(alias, agent_table.Confirmed(held))
            return (
                f"{what} is held back by {entry.held_by} ({entry.reason}); {alias} answers with {entry.serving.version}"
            )
        dropped = entry.dropped if not entry.answered(held) else None
        if held.same(dropped) and dropped is not None and held.settings == dropped.settings:
            self._change(alias, agent_table.Confirmed(held))
            return f"{alias} stays with {entry.serving.version}; {what} was tried: {entry.refusal}"
        if held.same(entry.heir) and entry.heir is not None and held.settings == entry.heir.settings and offer.follows:
            self._change(alias, agent_table.Followed(held))
            return f"{what} answers for {alias} as soon as {entry.component} is gone"
        if candidate is None or not held.same(entry.candidate) or not candidate.settings.becomes(offer.settings):
            return ""
        self.admission.recall(judged, answered=entry.answered(held))
        candidate = dataclasses.replace(candidate, settings=offer.settings, signer=held.signer)
        if offer.settings.trial.get("mode") and not back:
            self._change(alias, agent_table.Confirmed(held))
            self._room.candidates[alias] = candidate
            return f"{what} is being tried; {alias} answers with {entry.serving.version}"
        self._change(alias, agent_table.Accepted(held, offer.owner))
        self._room.install(alias, candidate)
        return f"{alias} now answers with {what} (before: {entry.serving.component} {entry.serving.version}; it was being tried)"


def _said(offer: Offer, entry: agent_entry.Entry | None, place: Place, took: str) -> str:
    what = f"{offer.component} {offer.version}"
    if entry is None:
        return f"{offer.alias} now answers with {what} ({took})"
    if place is Place.TRIAL:
        mode = offer.settings.trial["mode"]
        return f"{what} was accepted for a {mode} trial; {offer.alias} answers with {entry.serving.version} ({took})"
    if place is Place.HEIR:
        return f"{what} answers for {offer.alias} as soon as {entry.component} is gone ({took})"
    again = " again" if place is Place.BACK else ""
    before = f"before: {entry.serving.component} {entry.serving.version}"
    return f"{offer.alias} now answers with {what}{again} ({before}; {took})"


def _join(settings: agent_settings.Settings, model: Any, seconds: float) -> str:
    """The figures of golden samples that are joined as requests are to be; "" where they are not. Raises RefusedError."""
    batching = settings.batching
    if batching is None:
        return ""
    bound_s = max(seconds, _JOIN_LEAST_S)
    return agent_gate.bounded(
        "run of joined golden samples", bound_s, lambda: agent_rows.check(model, batching.max_rows)
    )


def read(path: Path, limit_bytes: int) -> bytes:
    """The file, never through a link, nor a pipe that would make everybody wait; raises agent_check.RefusedError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            plain, large = stat.S_ISREG(found.st_mode), found.st_size > limit_bytes
            # No more than there is: so many bytes are taken at once, which a small device may not have.
            data = file.read(min(found.st_size, limit_bytes) + 1) if plain and not large else b""
    except OSError as error:
        code = "NOT_A_PLAIN_FILE" if error.errno == errno.ELOOP else "NOT_READABLE"
        raise agent_check.RefusedError(f"cannot read {path}: {error.strerror}", code) from error
    if not plain:
        raise agent_check.RefusedError(f"cannot read {path}: it is no plain file", "NOT_A_PLAIN_FILE")
    if large or len(data) > limit_bytes:
        raise agent_check.RefusedError(f"{path} is larger than {limit_bytes} bytes", "TOO_LARGE")
    return data
