"""One random sequence: documents, ends of scripts, writes, requests, kills and time, with the invariants at every step.

Invariants: no illegal state (lives.py); removals only when the new state is proven; after a rollback components and
configuration are as before, but for what components wrote since; success means exactly what was asked for; every
deployment ends, with a cause if it failed. A sequence is determined by its seed.
"""

from __future__ import annotations

import random
from typing import Any

from nucleus.core import configuration, desired, document, plan, recipe, status
from nucleus.core.component import HARD, SOFT
from nucleus.core.lifecycle import Event, Kind, Phase, State
from nucleus.store import deployments
from tools.walk import device as devices
from tools.walk import lives

NAMES = tuple(f"com.{letter}" for letter in "abcde")
GROUPS = ("thinggroup/x", "thinggroup/y", "thing/t1")
LIMIT_STEPS = 20_000
SHAPES: tuple[dict[str, Any], ...] = (
    {"run": "r {configuration:/speed}", "shutdown": "s"},
    {"install": "i", "run": "r {configuration:/deep}"},
    {"install": "i", "startup": "u {configuration:/mode}"},
    {"startup": "u", "uninstall": "n", "recover": "c"},
    {"install": "i {configuration:/speed}"},
    {},
)
BESIDE_SHAPES = tuple(one for one in SHAPES if "startup" in one)
BESIDE = {"marram": {"update": {"overlap": True}}}
ENDED_WELL = (State.RUNNING, State.FINISHED)


class Sequence:
    """`play()` runs it to its end; an AssertionError is a finding."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.traits: dict[tuple[str, str], dict[Phase, float]] = {}
        self.device = devices.Device({name: self._versions(number) for number, name in enumerate(NAMES)}, self.random)
        self.open: list[deployments.Record] = []
        self.ended: list[deployments.Record] = []
        self.before: dict[str, configuration.Tree] = {}
        self.writes: list[configuration.Change] = []
        self.work: devices.Ending | None = None
        self.place = ""
        self.number = 0
        self.kills = 0

    def play(self) -> None:
        for _ in range(self.random.randint(20, 90)):
            self._anything()
        for _ in range(LIMIT_STEPS):
            if not self.open:
                break
            self._finishing()
        assert not self.open, f"{self.open[0].id} never ends: {self.place}, {self.device.lives.health()}"

    # ---- what may happen ---------------------------------------------------------------------------------------------

    def _anything(self) -> None:
        dice = self.random.random()
        if not 0.5 < dice < 0.72 or self.random.random() < 0.5:
            self.device.lives.handle()
        if self.place == "saved" or 0.5 < dice < 0.72:
            self._advance()
        elif dice <= 0.5:
            self._end_a_script()
        elif dice < 0.80:
            self._time_passes(self.random.choice((0.0, 1.0, 6.0, 40.0)))
        elif dice < 0.86:
            self._write()
        elif dice < 0.90:
            self._request()
        elif dice < 0.985:
            self._submit()
        else:
            self._kill()

    def _finishing(self) -> None:
        """Only what has to happen: scripts end, time passes, the deployment goes on."""
        if self.place != "saved" and self.random.random() < 0.7:
            self.device.lives.handle()
            for _ in range(3):
                self._end_a_script(often=True)
            self._time_passes(self.random.choice((0.5, 10.0)))
            if self.random.random() < 0.2:
                self._write()
        self._advance()

    def _time_passes(self, seconds: float) -> None:
        self.device.clock += seconds
        self.device.store.wall_ms += int(seconds * 1000)
        if self.random.random() < 0.02:
            self.device.store.wall_ms += self.random.choice((-(10**10), 10**10))  # somebody sets the clock

    def _end_a_script(self, *, often: bool = False) -> None:
        going = [(one, phase) for one in self.device.lives.all.values() for phase in sorted(one.busy)]
        if not going:
            return
        one, phase = self.random.choice(going)
        fails = self.traits.get((one.used.name, one.used.version), {}).get(phase, 0.0)
        if fails > 1:  # hangs
            return
        if phase is Phase.RUN and one.spawned and not fails and self.random.random() < (0.98 if often else 0.8):
            return  # it stays
        if phase in lives.MAIN and not one.used.lifecycle.get(phase.value):
            outcome = 1
        else:
            outcome = 2 if self.random.random() < fails else 0
        self.device.lives.end(one, phase, outcome)

    def _write(self) -> None:
        """A component's UpdateConfiguration, at once in the journal."""
        lives_ = self.device.lives
        going = [name for name in lives_.names() if lives_.all[name].life.state is State.RUNNING]
        if not going:
            return
        name, store = self.random.choice(going), self.device.store
        if configuration.find(store.tree, ("services", name)) is None:
            return
        path = ("services", name, "configuration")
        _, changes = configuration.merge(store.tree, path, self._values(), store.now(), f"component:{name}")
        store.commit(changes)
        self.writes += changes

    def _request(self) -> None:
        if not self.device.lives.all:
            return
        name = self.random.choice(self.device.lives.names())
        kinds = (Kind.RESTART, Kind.REPORTED_RUNNING, Kind.REPORTED_ERRORED, Kind.REPORTED_FINISHED)
        if not self.device.lives.all[name].removing:
            self.device.lives.ask(name, Event(self.random.choice(kinds)))

    def _submit(self) -> None:
        if len(self.open) > 2:
            return
        choose, self.number = self.random, self.number + 1
        now = self.device.store.now()
        wishes = {
            name: document.Wish(
                version=choose.choice(("1.0.0", "1.1.0", "2.0.0", "2.0.0", "9.0.0"))
                if choose.random() < 0.08
                else choose.choice(self.device.catalogue[name]).version,
                merge=self._values(document=True) if choose.random() < 0.4 else None,
                reset=choose.choice(((), (), ("",), ("/speed", "/deep"))),
            )
            for name in choose.sample(NAMES, choose.randint(0, 3))
        }
        found = document.Document(
            deployment_id=f"d{self.number}",
            configuration_arn=f"arn:{self.number}",
            group=choose.choice(GROUPS),
            created_ms=now + choose.choice((0, 0, -50_000, 50_000)),
            components=wishes,
            failure_policy=document.DO_NOTHING if choose.random() < 0.2 else document.ROLLBACK,
            deadline_s=300.0,
            watch_s=choose.choice((-1.0, 0.0, 5.0)),
        )
        groups = None if choose.random() < 0.6 else tuple(choose.sample(("x", "y"), choose.randint(0, 2)))
        record = deployments.Record(document=found, source=deployments.JOB, queued_ms=now, groups=groups)
        self.device.save(record)
        self.open.append(record)

    def _kill(self) -> None:
        self.kills += 1
        self.work, self.place = None, ""
        self.device.restart()
        self.open = [one for one in self.device.saved.values() if one.result is None]

    def _values(self, *, document: bool = False) -> dict[str, Any]:
        """Only documents make a leaf of `deep`: of a component's leaf that it made an object again nothing is known."""
        number = self.random.randint(1, 9)
        found: list[dict[str, Any]] = [
            {"speed": number},
            {"mode": str(number)},
            {"deep": {"x": number}},
            {"deep": {"y": [number]}},
        ]
        return self.random.choice(found + [{"deep": number}] * document)

    def _versions(self, number: int) -> list[recipe.Recipe]:
        name, choose = NAMES[number], self.random
        made, overlaps = [], choose.random() < 0.4
        shapes = BESIDE_SHAPES if overlaps else SHAPES
        for text in sorted(choose.sample(("1.0.0", "1.1.0", "2.0.0"), choose.randint(1, 3)), reverse=True):
            needs = {
                other: recipe.Dependency(choose.choice(("*",) * 8 + ("^1.0.0", ">=2.0.0")), choose.choice((HARD, SOFT)))
                for other in NAMES[number + 1 :]
                if choose.random() < 0.25
            }
            fails: dict[Phase, float] = {}
            if choose.random() < 0.5:
                phase = choose.choice((Phase.INSTALL, Phase.STARTUP, Phase.RUN, Phase.SHUTDOWN, Phase.UNINSTALL))
                fails[phase] = choose.choice((0.4, 1.0, 2.0 if phase is Phase.STARTUP else 1.0))
            self.traits[name, text] = fails
            made.append(
                recipe.Recipe(
                    name=name,
                    version=text,
                    configuration=choose.choice(({}, {"speed": 1}, {"mode": "m", "deep": {"x": 0}}))
                    | (BESIDE if overlaps and choose.random() < 0.9 else {}),
                    dependencies=needs,
                    manifests=(recipe.Manifest(lifecycle=dict(choose.choice(shapes))),),
                )
            )
        return made

    # ---- the deployment, and what must be true of it -----------------------------------------------------------------

    def _advance(self) -> None:
        if not self.open:
            return
        record = self.open[0]
        if self.work is None:
            self.work = self.device.carry_out(record)
        if self.place == "saved" and self.random.random() < 0.1:
            self._kill()
            return
        if not _is_begun(record):
            self.before[record.id] = self.device.store.tree
            self.writes.clear()
        self.device.removals.clear()
        try:
            self.place = next(self.work)
        except StopIteration as ended:
            self._end(record, ended.value)
        else:
            if self.device.removals and record.failure is None:
                self._check_proven(record)

    def _end(self, record: deployments.Record, result: status.Result) -> None:
        record.result = result
        record.undo = ()
        self.device.save(record)
        self.open.remove(record)
        self.ended.append(record)
        self.work, self.place = None, ""
        assert result.status == status.SUCCEEDED or result.cause, "failed without a cause"
        if result.detailed == "SUCCESSFUL":
            self._check_success(record)
        elif result.detailed == "FAILED_NO_STATE_CHANGE":
            assert desired.installed(self.device.store.tree) == desired.installed(self.before[record.id])
        elif result.detailed in ("FAILED_ROLLBACK_COMPLETE", "FAILED_UNABLE_TO_ROLLBACK"):
            self._check_rolled_back(record)
        if record.activations >= 3 and record.document.failure_policy == document.ROLLBACK:
            assert result.status != status.SUCCEEDED, "tried for ever"

    def _check_proven(self, record: deployments.Record) -> None:
        health = self.device.lives.health()
        for name in record.resolved:
            assert health[name].settled, f"{name} is not settled and {self.device.removals} are removed"
            assert health[name].state in ENDED_WELL, f"{name} is {health[name].state} and others are removed"

    def _check_success(self, record: deployments.Record) -> None:
        tree = self.device.store.tree
        found = desired.installed(tree)
        assert not self.device.lives.behind, "done before the components knew of it"
        assert {name: one.version for name, one in found.items()} == record.resolved
        assert set(self.device.lives.all) == set(found)
        wanted = {name: wish.version for name, wish in record.document.components.items()}
        assert desired.roots(tree).get(record.document.group, {}) == wanted
        for name, wish in record.document.components.items():
            assert record.resolved[name] == wish.version
        for name, one in self.device.lives.all.items():
            assert one.record == found[name]

    def _check_rolled_back(self, record: deployments.Record) -> None:
        before, tree = self.before[record.id], self.device.store.tree
        assert desired.installed(tree) == desired.installed(before) == record.previous
        assert desired.roots(tree) == desired.roots(before)
        for name in NAMES:
            where = ("services", name)
            if name not in (record.previous or {}):
                assert configuration.find(tree, where) is None, f"{name} is left in the configuration"
                continue
            writes = [change for change in self.writes if change.path[:2] == where]
            expected = configuration.apply(before, writes)
            assert configuration.get(tree, where) == configuration.get(expected, where), f"configuration of {name}"
        if record.result is not None and record.result.detailed == "FAILED_ROLLBACK_COMPLETE":
            self._check_runs_as_before(record)

    def _check_runs_as_before(self, record: deployments.Record) -> None:
        previous = record.previous or {}
        excused = plan.with_dependents(record.broken, previous)
        health = self.device.lives.health()
        assert set(health) == set(previous)
        for name, one in health.items():
            assert self.device.lives.all[name].record == previous[name]
            assert name in excused or one.state in ENDED_WELL, f"{name} is {one.state} after a complete rollback"


def _is_begun(record: deployments.Record) -> bool:
    return record.previous is not None or record.failure is not None
