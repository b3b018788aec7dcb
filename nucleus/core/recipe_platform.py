"""Which manifest fits a device and which part of the recipe-level lifecycle its selections leave.

Source: spec/nucleus.md 1.4 (PlatformHelper, PlatformResolver) and 1.5 (KernelConfigResolver).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

ALL = "all"
_WILDCARDS = frozenset({"all", "any"})
_WILDCARD_KEYS = frozenset({"os", "architecture"})


def matches(platform: Mapping[str, str | None], attributes: Mapping[str, str]) -> bool:
    """Whether a device with these attributes meets every claim of `platform`; no claim at all matches every device.

    A claim is null or `*` (always met), `/regex/` (the whole attribute), or the exact attribute, case-sensitive; `all`
    and `any` are wildcards for os and architecture.
    """
    return all(_meets(key, claim, attributes.get(key)) for key, claim in platform.items())


def _meets(key: str, claim: str | None, attribute: str | None) -> bool:
    if claim is None or claim == "*":
        return True
    if key in _WILDCARD_KEYS and claim.lower() in _WILDCARDS:
        return True
    if attribute is None:
        return False
    pattern = regex(claim)
    if pattern is not None:
        return re.fullmatch(pattern, attribute) is not None
    return claim == attribute and claim[:1].isalnum()


def regex(claim: str) -> str | None:
    """The pattern of a claim written `/pattern/`, else None."""
    return claim[1:-1] if len(claim) >= 2 and claim.startswith("/") and claim.endswith("/") else None


def select(lifecycle: Mapping[str, Any], keywords: Collection[str], selections: Sequence[str]) -> dict[str, Any]:
    """The recipe-level lifecycle as one manifest sees it.

    `keywords`: the selections of all manifests and `all`. At a level where any key is a keyword the first of
    `selections` that is there is taken, else `all`, else nothing; the other keys of such a level are ignored.
    """
    chosen = _select(lifecycle, {keyword.lower() for keyword in keywords} | {ALL}, [*selections, ALL])
    return chosen if isinstance(chosen, dict) else {}


def _select(value: Any, keywords: Collection[str], wanted: Sequence[str]) -> Any:
    """The value with its selections made; None if they leave nothing of it."""
    if not isinstance(value, Mapping):
        return value
    names = {key.lower(): key for key in value}
    if not any(name in keywords for name in names):
        chosen = {key: _select(child, keywords, wanted) for key, child in value.items()}
        return {key: child for key, child in chosen.items() if child is not None or value[key] is None}
    for want in wanted:
        if want.lower() in names:
            return _select(value[names[want.lower()]], keywords, wanted)
    return None
