"""`aws.greengrass.SecretManager`: keeps the configured secrets on the device and gives them to components.

In: the component's configuration, "the cloud is there again", requests of the IPC. Out: answers, and `report` of what is
wrong. The cloud is asked at launch, at every change of the configuration, every `periodicRefreshIntervalMin`, when a request
says `refresh` and when one needs what is not here. Invariants: one question to the cloud at a time; a secret that the cloud
does not give now stays as it is stored; nothing that is not configured is asked for or given out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence

from nucleus.actors import strongbox
from nucleus.core import errors, secrets
from nucleus.host import logs
from nucleus.uplink import dataplane, secretsmanager

FIRST_AGAIN_S, LAST_AGAIN_S = 10.0, 300.0  # after the cloud could not be asked
REFUSED_AGAIN_S = 3_600.0
QUESTION_S = 20.0  # for one question, with the credentials that it may need first
REMEMBERED_S = 10.0  # a failed question is not asked again for requests, unless they say `refresh`
_BATCH_BYTES = 1024 * 1024

Fetch = Callable[[secrets.Ask], Awaitable[secretsmanager.Answer]]
Failures = dict[secrets.Ask, errors.NucleusError]


class Secrets:
    """`settings` reads the present configuration; `report` gets "" or what keeps a configured secret away."""

    def __init__(
        self,
        box: strongbox.Strongbox,
        fetch: Fetch,
        settings: Callable[[], secrets.Settings],
        log: logs.Log,
        report: Callable[[str], None],
        *,
        remembered_s: float = REMEMBERED_S,
    ) -> None:
        self._box = box
        self._fetch = fetch
        self._read = settings
        self._log = log
        self._report = report
        self._remembered_s = remembered_s
        self._settings = settings()
        self._opened = asyncio.Event()
        self._wake = asyncio.Event()
        self._asking = asyncio.Lock()
        self._answered_at: dict[secrets.Ask, float] = {}  # when the question began that was answered last
        self._failed: dict[secrets.Ask, tuple[float, str]] = {}  # until when a failure is remembered, and its reason
        self._tries = 0
        self.rounds = 0  # full refreshes so far

    # ---- keeping -------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """The configuration changed."""
        found = self._read()
        if found != self._settings:
            self._settings = found
            self._tries = 0
            self._failed.clear()
            self._answered_at.clear()
            self._wake.set()

    def connected(self) -> None:
        """The cloud is there (again): what could not be asked for is asked for now."""
        if self._tries:
            self._wake.set()

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            await self._box.open()
            self._opened.set()
            while True:
                self._wake.clear()
                pause_s = await self._round()
                self.rounds += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s or None):
                        await self._wake.wait()
        finally:
            self._box.forget()

    async def _round(self) -> float:
        """Asks for everything that is configured; returns seconds until the next round, 0 for never."""
        settings = self._settings
        for problem in settings.problems:
            self._log.warning("secrets.configuration", what=problem)
        failures = await self._refresh(settings, secrets.asks(settings))
        late = [ask for ask in secrets.missing(settings, self._box.versions) if ask not in failures]
        if late:  # labels moved while we asked for them one by one
            failures |= await self._refresh(settings, late)
        self._tell(settings, failures)
        return self._pause(settings, failures)

    async def _refresh(self, settings: secrets.Settings, asks: Sequence[secrets.Ask]) -> Failures:
        answers: list[secretsmanager.Answer] = []
        failures: Failures = {}
        down: dict[str, errors.NucleusError] = {}  # region -> why it cannot be reached
        for ask in asks:
            region = secrets.region(ask.secret, "")
            try:
                if region in down:
                    raise down[region]
                answers.append(await self._ask(ask))
            except errors.NucleusError as error:
                failures[ask] = error
                if error.code == "NETWORK_ERROR":
                    down[region] = error
            if sum(len(one.value) for one in answers) > _BATCH_BYTES:
                failures |= await self._put(answers, settings, asks, prune=False)
                answers = []
        # While the cloud cannot be asked, what a deployment stopped configuring stays: it may be taken back.
        is_whole = not any(isinstance(one, dataplane.Unavailable) for one in failures.values())
        return failures | await self._put(answers, settings, asks, prune=is_whole)

    async def _put(
        self,
        answers: Sequence[secretsmanager.Answer],
        settings: secrets.Settings,
        asks: Sequence[secrets.Ask],
        *,
        prune: bool,
    ) -> Failures:
        try:
            await self._box.put(answers, settings, prune=prune)
        except errors.NucleusError as error:
            return dict.fromkeys(asks, error)
        return {}

    def _tell(self, settings: secrets.Settings, failures: Failures) -> None:
        for ask, error in failures.items():
            level = self._log.info if isinstance(error, dataplane.Unavailable) else self._log.warning
            level("secrets.not_fetched", secret=ask.secret, label=ask.label, why=error.detail)
        absent = secrets.missing(settings, self._box.versions)
        refused = [failures[ask].detail for ask in absent if ask in failures and failures[ask].code != "NETWORK_ERROR"]
        self._report(refused[0] if refused else "")
        if settings.secrets:
            kept = len(self._box.versions)
            self._log.info("secrets.refreshed", kept=kept, failed=len(failures), missing=len(absent))

    def _pause(self, settings: secrets.Settings, failures: Failures) -> float:
        waits = [settings.every_s] if settings.every_s else []
        if any(isinstance(one, dataplane.Unavailable) for one in failures.values()):
            waits.append(min(FIRST_AGAIN_S * 2**self._tries, LAST_AGAIN_S))
            self._tries = min(self._tries + 1, 10)
        else:
            self._tries = 0
        if failures:
            waits.append(REFUSED_AGAIN_S)
        return min(waits) * random.uniform(0.8, 1.0) if waits else 0.0  # noqa: S311  jitter

    async def _ask(self, ask: secrets.Ask) -> secretsmanager.Answer:
        """One question to the cloud; its outcome is remembered."""
        async with self._asking:
            return await self._ask_alone(ask)

    async def _ask_alone(self, ask: secrets.Ask) -> secretsmanager.Answer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answer = await self._fetch_in_time(ask)
        except errors.NucleusError as error:
            self._failed[ask] = (loop.time() + self._remembered_s, error.detail)
            raise
        self._failed.pop(ask, None)
        self._answered_at[ask] = began
        return answer

    async def _fetch_in_time(self, ask: secrets.Ask) -> secretsmanager.Answer:
        try:
            async with asyncio.timeout(QUESTION_S):
                return await self._fetch(ask)
        except TimeoutError:
            why = f"cannot fetch secret {ask.secret} ({ask.label}): no answer within {QUESTION_S:g} s"
            raise dataplane.Unavailable("NETWORK_ERROR", why) from None

    # ---- giving --------------------------------------------------------------------------------------------------

    async def resource(self, id_: str) -> str:
        """The ARN of the configured secret that is meant, for authorization. Raises secrets.MissingError."""
        await self._opened.wait()
        secret = self._secret(id_)
        if not any(secrets.covers(secret, one) for one in self._box.versions):
            await self._ask_now(secrets.Ask(secret.id, secrets.CURRENT), force=False)
        return secrets.arn(secret, self._box.versions)

    async def get(
        self, id_: str, version_id: str = "", stage: str = "", *, refresh: bool = False
    ) -> tuple[secrets.Version, bytes]:
        """A version of a secret and its value.

        Raises secrets.MissingError, or another NucleusError if the request contradicts itself or the vault fails.
        """
        if version_id and stage:
            why = f"cannot get secret {id_}: versionId and versionStage are both given, and one of them is enough"
            raise errors.NucleusError("BAD_REQUEST", why)
        await self._opened.wait()
        secret = self._secret(id_)
        label = stage or secrets.CURRENT
        why = ""
        asked = refresh and not version_id and label in secret.labels
        if asked:
            why = await self._ask_now(secrets.Ask(secret.id, label), force=True)
        for _ in range(2):
            version = secrets.choose(secret, self._box.versions, version_id, stage)
            value = await self._box.value(version) if version is not None else None
            if version is not None and value is not None:
                return version, value
            labels = [label] if not version_id else list(version.stages if version is not None else ())
            labels = [one for one in labels if one in secret.labels]
            if asked or not labels:
                break
            why, asked = await self._ask_now(secrets.Ask(secret.id, labels[0]), force=False), True
        which = f"version {version_id}" if version_id else f"version labelled {label}"
        raise secrets.MissingError(
            "RESOURCE_NOT_FOUND", f"cannot get secret {id_}: no {which} is here{why and '; '}{why}"
        )

    def _secret(self, id_: str) -> secrets.Configured:
        found = secrets.resolve(self._settings, self._box.versions, id_)
        if found is None:
            why = f"cannot get secret {id_[:600]}: cloudSecrets of aws.greengrass.SecretManager does not configure it"
            raise secrets.MissingError("RESOURCE_NOT_FOUND", why)
        return found

    async def _ask_now(self, ask: secrets.Ask, *, force: bool) -> str:
        """Fetches for a request; returns why it could not. Requests that wait for the same question share an answer."""
        loop = asyncio.get_running_loop()
        came_at = loop.time()
        async with self._asking:
            until, why = self._failed.get(ask, (0.0, ""))
            if self._answered_at.get(ask, -1.0) >= came_at:
                return ""
            if until > loop.time() and (not force or until - self._remembered_s >= came_at):
                return why
            try:
                answer = await self._ask_alone(ask)
                await self._box.put([answer], self._settings, prune=False, keep=True)
            except errors.NucleusError as error:
                return error.detail
        return ""
