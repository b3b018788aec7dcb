"""Decisions about secrets: which are configured, which are meant by a name, which version answers a request.

Configuration of `aws.greengrass.SecretManager`: `cloudSecrets: [{arn, labels}]`, where `arn` is a whole ARN, one without its
random end, or a name; `labels` are staging labels, always with AWSCURRENT. A version is kept while one of its configured
secret's labels lies on it. What may be read is what is configured now, whatever else is still stored.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib import parse

from msgspec import Struct, structs

from nucleus.core import errors

CURRENT = "AWSCURRENT"
LIMIT_SECRETS = 500  # of one device; each may have LIMIT_LABELS versions
LIMIT_LABELS = 20  # quota of Secrets Manager: staging labels of a secret
LIMIT_BYTES = 65_536  # quota of Secrets Manager: a secret's value
SHORTEST_MIN = 1.0  # between periodic refreshes

_ARN = re.compile(r"arn:(?P<partition>[\w-]+):secretsmanager:(?P<region>[a-z0-9-]+):\d{12}:secret:(?P<rest>.+)")
_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]{1,512}")
_END = re.compile(r"-[A-Za-z0-9]{6}")
_LABEL = re.compile(r"[\x21-\x7e]{1,256}")


class MissingError(errors.NucleusError):
    """There is no such secret or version on this device."""


class Configured(Struct, frozen=True):
    """One entry of `cloudSecrets`; `id` as written there."""

    id: str
    labels: tuple[str, ...]


class Settings(Struct, frozen=True):
    """`every_s` 0: not refreshed periodically; `endpoint` "": AWS's. `problems` are sentences about what was left out."""

    secrets: tuple[Configured, ...] = ()
    every_s: float = 0.0
    endpoint: str = ""
    problems: tuple[str, ...] = ()


class Version(Struct, frozen=True):
    """One version of a secret as the cloud knows it. `is_binary` False: its value is text in UTF-8."""

    arn: str
    name: str
    id: str
    stages: tuple[str, ...]
    is_binary: bool = False


class Ask(Struct, frozen=True):
    """What the cloud is asked for: the version of a configured secret on which the label lies."""

    secret: str
    label: str


def read(configuration: Mapping[str, Any]) -> Settings:
    """Reads the component's configuration; names match whatever their case."""
    members = {name.lower(): value for name, value in configuration.items()}
    given = members.get("cloudsecrets")
    problems: list[str] = []
    if given is not None and not isinstance(given, list):
        problems.append("cannot use cloudSecrets: it must be a list of {arn, labels}")
        given = None
    found: dict[str, Configured] = {}
    for at, entry in enumerate(given or ()):
        one = _entry(entry, f"cloudSecrets[{at}]", problems)
        if one is not None:
            labels = (*found[one.id].labels, *one.labels) if one.id in found else one.labels
            found[one.id] = Configured(one.id, tuple(dict.fromkeys(labels))[:LIMIT_LABELS])
    if len(found) > LIMIT_SECRETS:
        problems.append(f"cannot use all of cloudSecrets: at most {LIMIT_SECRETS} are kept on a device")
    secrets = tuple(found.values())[:LIMIT_SECRETS]
    every_s = _interval(members.get("periodicrefreshintervalmin"), problems)
    return Settings(secrets, every_s, address(configuration), tuple(problems))


def address(configuration: Mapping[str, Any]) -> str:
    """`marram.secretsEndpoint` of a component's configuration, "" if it is not set."""
    ours = configuration.get("marram")
    return str(ours.get("secretsEndpoint") or "") if isinstance(ours, Mapping) else ""


def _entry(entry: Any, where: str, problems: list[str]) -> Configured | None:
    members = {str(name).lower(): value for name, value in entry.items()} if isinstance(entry, Mapping) else {}
    id_ = members.get("arn") or members.get("name")
    if not isinstance(id_, str) or not is_id(id_):
        problems.append(f"cannot use {where}: its arn is neither an ARN of Secrets Manager nor a name")
        return None
    labels = members.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(one, str) and _LABEL.fullmatch(one) for one in labels):
        problems.append(f"cannot use the labels of {where}: they must be texts without blanks")
        labels = []
    return Configured(id_, tuple(dict.fromkeys((CURRENT, *labels)))[:LIMIT_LABELS])


def _interval(given: Any, problems: list[str]) -> float:
    """Seconds; 0 for never."""
    if given is None or given == "":
        return 0.0
    try:
        minutes = float(given)
    except (TypeError, ValueError, OverflowError):
        minutes = -1.0
    if isinstance(given, bool) or not 0 <= minutes < 10**6:
        problems.append("cannot use periodicRefreshIntervalMin: it must be a number of minutes")
        return 0.0
    return max(minutes, SHORTEST_MIN) * 60 if minutes else 0.0


def is_id(text: str) -> bool:
    """Whether a text can mean a secret: an ARN of Secrets Manager, whole or without its end, or a name."""
    found = _ARN.fullmatch(text)
    return _NAME.fullmatch(found["rest"] if found else text) is not None


def covers(secret: Configured, version: Version) -> bool:
    """Whether a version is one of the configured secret."""
    return _means(secret.id, version)


def _means(id_: str, version: Version) -> bool:
    if id_ in (version.arn, version.name):
        return True
    return version.arn.startswith(id_) and _END.fullmatch(version.arn[len(id_) :]) is not None


def resolve(settings: Settings, versions: Sequence[Version], id_: str) -> Configured | None:
    """The configured secret that a name, an ARN or a part of one means; None if there is none, or more than one could be."""
    for secret in settings.secrets:
        if secret.id == id_:
            return secret
    unknown = []
    for secret in settings.secrets:
        known = [version for version in versions if covers(secret, version)]
        if any(_means(id_, version) for version in known):
            return secret
        if not known:
            unknown.append(secret)
    possible = [one for one in unknown if _names(one.id) & _names(id_) and _agree(one.id, id_)]
    return possible[0] if len(possible) == 1 else None


def _names(id_: str) -> set[str]:
    """The names that an id may stand for, as long as the cloud has not said which."""
    found = _ARN.fullmatch(id_)
    if found is None:
        return {id_}
    rest = found["rest"]
    return {rest, rest[:-7]} if _END.fullmatch(rest[-7:]) and len(rest) > 7 else {rest}


def _agree(one: str, other: str) -> bool:
    """Two ARNs mean one secret only if they are equal but for the random end."""
    if not (_ARN.fullmatch(one) and _ARN.fullmatch(other)):
        return True
    short, long = sorted((one, other), key=len)
    return long == short or (long.startswith(short) and _END.fullmatch(long[len(short) :]) is not None)


def arn(secret: Configured, versions: Iterable[Version]) -> str:
    """The secret's whole ARN, or what is configured while the cloud has not told it."""
    return next((one.arn for one in versions if covers(secret, one)), secret.id)


def choose(secret: Configured, versions: Iterable[Version], version_id: str, stage: str) -> Version | None:
    """The version with this id or on this staging label; with neither AWSCURRENT. The caller gives one at most."""
    for one in versions:
        if covers(secret, one) and (one.id == version_id if version_id else (stage or CURRENT) in one.stages):
            return one
    return None


def asks(settings: Settings) -> tuple[Ask, ...]:
    """All that a full refresh asks for."""
    return tuple(Ask(secret.id, label) for secret in settings.secrets for label in secret.labels)


def merged(versions: Sequence[Version], answer: Version) -> tuple[Version, ...]:
    """What is known after an answer: its labels lie on its version and on no other of the secret."""
    others = []
    for one in versions:
        if one.arn != answer.arn:
            others.append(one)
        elif one.id != answer.id:
            stages = tuple(stage for stage in one.stages if stage not in answer.stages)
            others.append(structs.replace(one, stages=stages))
    return (*others, answer)


def kept(settings: Settings, versions: Iterable[Version]) -> tuple[Version, ...]:
    """The versions that are still wanted: of a configured secret, with one of its labels on them."""
    return tuple(
        one
        for one in versions
        if any(covers(secret, one) and set(secret.labels) & set(one.stages) for secret in settings.secrets)
    )


def missing(settings: Settings, versions: Sequence[Version]) -> tuple[Ask, ...]:
    """The asks that nothing known answers."""
    by_id = {secret.id: secret for secret in settings.secrets}
    return tuple(one for one in asks(settings) if choose(by_id[one.secret], versions, "", one.label) is None)


def region(id_: str, usual: str) -> str:
    """Where a secret lives: the region of its ARN, or the device's."""
    found = _ARN.fullmatch(id_)
    return found["region"] if found else usual


def endpoint(configured: str, id_: str, usual_region: str) -> str:
    """The address of Secrets Manager for a secret.

    Raises NucleusError for an address over which secrets must not travel.
    """
    if not configured:
        found = _ARN.fullmatch(id_)
        end = ".cn" if found and found["partition"] == "aws-cn" else ""
        return f"https://secretsmanager.{region(id_, usual_region)}.amazonaws.com{end}"
    try:
        parts = parse.urlsplit(configured)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = parse.urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host:
        raise errors.NucleusError(
            "BAD_REQUEST", f"cannot use secretsEndpoint {configured[:200]!r}: it is no http(s) URL"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        why = (
            f"cannot use secretsEndpoint {configured[:200]!r}: secrets travel over https, http is for this machine only"
        )
        raise errors.NucleusError("BAD_REQUEST", why)
    return configured.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
