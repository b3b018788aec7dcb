"""What each alias answers with, and the verbs by which that changes; the rules are agent_table.py's, this does them.

An alias is the `name` in model.json. It belongs to whoever brought its model (a component, a door, a bundle) until that
is gone; others hear FAILED_PRECONDITION and whose it is.
- offer: what serves already is accepted at once. Otherwise the model is checked while the old one keeps answering, kept
  durably, and only then exchanged, between two requests. A refusal changes nothing that answers. With a trial in its
  settings the model becomes the candidate beside what answers, until `promote` or `drop_candidate`.
- hold: the version before answers, over restarts, until another version is offered or `release_hold`.
- release: the component was stopped. Nothing changes but that the lease starts to run: on an upgrade the old version is
  stopped before the new one is offered, and in between somebody must answer.
- withdraw: the component is gone; the alias is empty afterwards, or that of the component that waited for it (`replaces`).
- lease: a released component that offers nothing for this long is taken for gone (for nuclei without an Uninstall step).
  It counts the agent's own run time, so a device that was off for a day starts with its models. A bundle that was given
  back answers on until a deployment takes its place.
Releases and withdrawals of a version that is not the one offered last are late news and change nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent_budget
import agent_changes
import agent_check
import agent_entry
import agent_loader
import agent_offer
import agent_registry
import agent_room
import agent_settings
import agent_signature
import agent_steps
import agent_table
import agent_verdicts

MANIFEST_LIMIT_BYTES = agent_offer.MANIFEST_LIMIT_BYTES
_COMPONENT_LIMIT_CHARACTERS = 128
Serving = agent_loader.Serving


class TakenError(agent_check.RefusedError):
    """The alias answers already, for the caller or for somebody else."""


class Aliases:
    """All aliases of one agent. Reading is free of locks; changes happen one at a time."""

    def __init__(
        self, registry: agent_registry.Registry, lease_s: float, root: Path | None = None, memory_bytes: int = 0
    ) -> None:
        self._registry = registry
        self._lease_s = lease_s
        self._steps = agent_steps.Steps(registry)
        self._room = self._steps.room = agent_room.Room(registry, memory_bytes, self._steps.note)
        self.gate = agent_offer.Gate(registry, self._room, root, self._steps.change)
        self._steps.admission = self.gate.admission
        self._changing = registry.changes  # one verb at a time

    # ---- reading -----------------------------------------------------------------------------------------------------

    def serving(self, alias: str) -> Serving | None:
        """What answers for `alias`, or None; a model that is out of memory raises agent_guard.GoneError, then `wake` it."""
        return self._room.serving.get(alias)

    def wake(self, alias: str, deadline: float) -> str:
        """Waits until the alias is in memory; returns why it is not by `deadline` (time.monotonic()), or nothing."""
        return self._room.wake(alias, deadline)

    def candidate(self, alias: str) -> Serving | None:
        """What is tried beside it, loaded; predictions raise agent_guard.GoneError once the trial is over."""
        return self._room.candidates.get(alias)

    def waits(self, alias: str, digest: str) -> bool:
        """Whether this candidate is kept, in memory or not."""
        entry = self._registry.aliases.get(alias)
        return entry is not None and entry.candidate is not None and entry.candidate.key == digest

    def listed(self) -> list[dict[str, Any]]:
        """One record for each alias, as `list` answers it."""
        return [self._row(alias, entry) for alias, entry in sorted(self._registry.aliases.items())]

    def _row(self, alias: str, entry: agent_entry.Entry) -> dict[str, Any]:
        serving = self._room.serving.get(alias)
        row = agent_entry.row(alias, entry) | (serving.model.process if serving else {})
        return row | {
            "state": row["state"] if serving else "empty",
            "memory_bytes": 0 if serving is None or serving.model.gone else serving.memory_bytes,
            "pinned": bool(serving and serving.settings.pinned),
            "ready": serving is not None,
        }

    # ---- verbs of those who bring models -----------------------------------------------------------------------------

    def restore(self) -> list[str]:
        """Loads what the registry names, before any offer; returns one line for each alias."""
        lines = [line for line in (self._registry.repaired, self._room.told) if line]
        with self._changing:
            known = sorted(self._registry.aliases.items(), key=lambda each: not agent_loader.pinned(each[1].serving))
            return lines + [self._steps.restore(alias) for alias, _ in known]

    def load(self, owner: str, alias: str, folder: Path, *, replace: bool = False) -> str:
        """Serves the model in `folder` under an alias nobody (or only `owner`, to `replace` it) has; raises RefusedError.

        The alias need not be the name in model.json. A signature is judged for the component that its manifest names.
        """
        with self._changing:
            entry = self._registry.aliases.get(alias)
            if entry is not None and not (replace and entry.component == owner):
                raise TakenError(f"the alias {alias} is used by {entry.component}", "FAILED_PRECONDITION")
            data = agent_offer.read(folder / "model.json", MANIFEST_LIMIT_BYTES)
            version = agent_check.read_manifest(data).version
            offer = agent_offer.Offer(owner, version, agent_entry.owner(owner), alias, folder, chosen=True)
            return self.gate.take(offer, data)

    def offer(
        self,
        component: str,
        version: str,
        folder: Path,
        settings: agent_settings.Settings | Mapping[str, Any] = agent_settings.DEFAULT,
        *,
        owner: str = "",
    ) -> str:
        """Serves the model in `folder`, returns a line that says so; `owner`: BUNDLE for one of a bundle. Raises RefusedError.

        Whatever goes wrong, from settings as agent_settings.read takes them on, is known of the component's aliases afterwards.
        """
        if not 0 < len(component) <= _COMPONENT_LIMIT_CHARACTERS or not 0 < len(version) <= _COMPONENT_LIMIT_CHARACTERS:
            raise agent_check.RefusedError("component and version must be 1 to 128 characters")
        owner = owner or agent_entry.owner(component)
        with self._changing:
            alias = ""
            try:
                data = agent_offer.read(folder / "model.json", MANIFEST_LIMIT_BYTES)
                alias = agent_check.read_manifest(data).name
                chosen = settings if isinstance(settings, agent_settings.Settings) else agent_settings.read(settings)
                offer = agent_offer.Offer(component, version, owner, alias, folder, chosen)
                return self._take(offer, data)
            except agent_changes.FrozenError:
                raise  # another agent hears it again
            except Exception as error:
                code = "INVALID_ARGUMENT" if isinstance(error, agent_settings.SettingsError) else ""
                code = code or getattr(error, "code", "INTERNAL")
                refused = agent_table.Refused(
                    component, version, f"{code}: {str(error).removeprefix(f'{code}: ')}", owner
                )
                after = self._steps.refuse(alias, refused)
                if isinstance(error, agent_check.RefusedError | agent_settings.SettingsError):
                    raise agent_check.RefusedError(f"{error}; {after}", code) from error
                raise

    def _take(self, offer: agent_offer.Offer, data: bytes) -> str:
        entry = self._registry.aliases.get(offer.alias)
        objection = agent_entry.objection(offer.alias, entry, offer.component, offer.owner)
        if objection and not agent_entry.may_follow(entry, offer.owner, offer.settings.replaces):
            raise agent_check.RefusedError(objection, "FAILED_PRECONDITION")
        return self.gate.take(dataclasses.replace(offer, follows=bool(objection)), data)

    def release(self, component: str, version: str, *, owner: str = "") -> str:
        """Starts the lease of what this component serves, under however many aliases."""
        with self._changing:
            mine = agent_entry.offered(self._registry.aliases, component, version, "", owner)
            for alias in mine:
                self._steps.change(alias, agent_table.Released())
            still = [f"{alias} still answers with {self._registry.aliases[alias].serving.version}" for alias in mine]
            return f"{component} {version} {'was released' if mine else 'serves nothing here'}" + _listed(still)

    def withdraw(self, component: str, version: str, only: str = "", *, owner: str = "") -> str:
        """Empties the aliases for which this component offered `version` last; `only` picks one of several."""
        with self._changing:
            mine = agent_entry.offered(self._registry.aliases, component, version, only, owner)
            gone = [self._vacate(alias, agent_table.Withdrawn()) for alias in mine]
            for alias in agent_entry.waiting(self._registry.aliases, component, version):
                self._steps.change(alias, agent_table.HeirGone())
                gone.append(f"{component} waits for {alias} no more")
            return f"{component} {version} {'was withdrawn' if gone else 'serves nothing here'}" + _listed(gone)

    def expire(self) -> list[str]:
        """Forgets aliases whose lease is over (0 seconds: never); a line for each. Waits for others only if there is one."""
        lines, before = list[str](), time.monotonic() - self._lease_s
        if self._lease_s and any(at <= before for at in list(self._steps.released_at.values())):
            with self._changing:
                over = [alias for alias, at in self._steps.released_at.items() if at <= before]
                for alias in over:
                    late = self._registry.aliases[alias].component
                    lines.append(f"{late} did not come back; {self._vacate(alias, agent_table.LeaseOver())}")
        self._room.settle()
        return lines

    def again(self) -> list[str]:
        """Brings in candidates for which there is room by now; a line for each. Waits for others only if there is one."""
        if not self._steps.due():
            return []
        with self._changing:
            return self._steps.again()

    # ---- verbs of those who watch models -----------------------------------------------------------------------------

    def promote(self, alias: str, reason: str, digest: str = "") -> str:
        """The candidate answers from now on; raises agent_check.RefusedError, also when it is not `digest` any more."""
        with self._changing:
            entry = self._known(alias, digest)
            self.gate.admission.check_kept(entry.candidate)
            event, new = agent_table.Promoted(reason), self._room.candidates.get(alias)
            if new is not None:
                self._steps.change(alias, event)
                self._room.install(alias, new)
            version = self._go_to(alias, event) if new is None else new.version  # objects unless there is a candidate
            return f"{alias} now answers with {entry.component} {version} (before: {entry.serving.version}; {reason})"

    def drop_candidate(self, alias: str, code: str, reason: str, digest: str = "") -> str:
        """The candidate leaves for good; raises agent_check.RefusedError."""
        with self._changing:
            entry = self._known(alias, digest)
            self._steps.change(alias, agent_table.Dropped(f"{code}: {reason}", code not in agent_signature.KEPT_CODES))
            self._room.drop(alias)
            tried = entry.candidate.version if entry.candidate else ""
            return f"{alias} stays with {entry.serving.version}; {tried} was dropped: {code}: {reason}"

    def hold(self, alias: str, by: str, reason: str) -> str:
        """The version before answers until another is offered or `release_hold`; raises agent_check.RefusedError."""
        with self._changing:
            entry = self._known(alias)
            self.gate.admission.check_kept(entry.previous)
            message = f"{alias} is held by {by}: {reason}; {entry.offered} gives way to "
            return message + self._go_to(alias, agent_table.HoldBegun(by, reason))

    def release_hold(self, alias: str) -> str:
        """What was held back answers again; raises agent_check.RefusedError."""
        with self._changing:
            self.gate.admission.check_kept(self._known(alias).withheld)
            return f"{alias} is held no more; it answers with {self._go_to(alias, agent_table.HoldReleased())}"

    def _go_to(self, alias: str, event: Any) -> str:
        """Exchanges what serves for what the table says after `event`, in memory or, without room, at the next request."""
        after = self._steps.after(alias, event)
        assert after is not None
        try:
            package = self._room.fetch(alias, after.serving)
            with self._room.arrival(package, agent_budget.Way.EITHER) as new:
                self._steps.change(alias, event)
                self._room.install(alias, new)
        except agent_check.RefusedError as error:
            if error.code not in agent_verdicts.NOT_FINAL:
                raise
            self._steps.change(alias, event)
            self._room.install(alias, agent_room.parked(package))
            self._steps.change(alias, agent_table.Evicted())
        except agent_registry.StoreError as error:
            self._steps.change(alias, agent_table.Damaged(after.serving.key, f"{after.serving.version}: {error}"))
            raise agent_check.RefusedError(f"cannot go to {after.serving.version}: {error}", "COPY_DAMAGED") from error
        return after.serving.version

    # ---- below -------------------------------------------------------------------------------------------------------

    def _vacate(self, alias: str, event: Any) -> str:
        """Empties the alias, or gives it to the component that waits for it; returns what answers now."""
        heir, lost = self._registry.aliases[alias].heir, ""
        try:
            self.gate.admission.check_kept(heir)
            if heir is not None:
                return f"{alias} now answers with {heir.component} {self._go_to(alias, event)}"
        except agent_check.RefusedError as error:
            lost = f" ({heir.component if heir else ''} cannot take its place: {error})"
            self._steps.change(alias, agent_table.HeirGone())
        self._steps.change(alias, event)
        return f"{alias} answers no more{lost}"

    def _known(self, alias: str, candidate: str = "") -> agent_entry.Entry:
        entry = self._registry.aliases.get(alias)
        if entry is None:
            raise agent_check.RefusedError(f"no model answers for {alias}", "NOT_FOUND")
        if candidate and (entry.candidate is None or entry.candidate.key != candidate):
            raise agent_check.RefusedError(f"{alias}: its candidate is another by now", "FAILED_PRECONDITION")
        return entry


def _listed(lines: list[str]) -> str:
    return "".join(f"; {line}" for line in lines)
