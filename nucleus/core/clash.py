"""Which requirers of one component cannot be had together, whatever versions exist: the smallest set of them.

Ranges are unions of intervals, so where an intersection is not empty it holds the beginning of one of them: a version that
a range names, or the next one in patch, minor or major. Trying these is enough.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from nucleus.core import errors, version

Requirement = tuple[str, str]  # requirer, range

_NAMED = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(-[0-9A-Za-z.-]+)?")
_LARGEST = 3  # of sets that are tried before all of them are named


def smallest(requirements: Sequence[Requirement]) -> tuple[Requirement, ...]:
    """The smallest set that no version can satisfy; empty if all together can be satisfied by some version."""
    read = [(one, version.Range.parse(one[1])) for one in requirements]
    tried = [one for _, range_ in requirements for one in _beginnings(range_)] + [version.Version.parse("0.0.0")]
    for size in range(1, min(_LARGEST, len(read)) + 1):
        for some in itertools.combinations(read, size):
            if not _fits(tried, [range_ for _, range_ in some]):
                return tuple(one for one, _ in some)
    return () if _fits(tried, [range_ for _, range_ in read]) else tuple(requirements)


def sentence(requirements: Sequence[Requirement]) -> str:
    """What to add to a list of all requirers; "" if that says it already, because there are few."""
    found = smallest(requirements) if len(requirements) > 1 else tuple(requirements)
    if len(found) == len(requirements):
        return ""
    if not found:
        return "; these do not exclude each other: no version that can be had here satisfies them"
    told = " and ".join(f"{requirer} ({range_})" for requirer, range_ in found)
    return f"; no version can ever satisfy {told}"


def _fits(tried: Sequence[version.Version], ranges: Sequence[version.Range]) -> bool:
    return any(version.satisfies(one, ranges) for one in tried)


def _beginnings(range_: str) -> Iterator[version.Version]:
    for major, minor, patch, suffix in _NAMED.findall(range_):
        numbers = int(major), int(minor or 0), int(patch or 0)
        texts = (
            f"{numbers[0]}.{numbers[1]}.{numbers[2]}",
            f"{numbers[0]}.{numbers[1]}.{numbers[2]}{suffix}",
            f"{numbers[0]}.{numbers[1]}.{numbers[2]}{suffix}.0" if suffix else "0.0.0",
            f"{numbers[0]}.{numbers[1]}.{numbers[2] + 1}",
            f"{numbers[0]}.{numbers[1] + 1}.0",
            f"{numbers[0] + 1}.0.0",
        )
        for text in texts:
            try:
                yield version.Version.parse(text)
            except errors.NucleusError:
                continue  # the digits were a part of something else
