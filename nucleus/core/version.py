"""Component versions (semantic versioning 2.0) and the NPM-style ranges that dependencies ask for.

Rules: build metadata plays no part in order; a pre-release satisfies a range only if one of the range's own comparators
names a pre-release of the same major.minor.patch (NPM's rule). Limits are those of recipes: at most 64 characters, each
number at most 999,999 (recipe reference; spec/nucleus.md 1.2 and 1.7).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from msgspec import Struct

from nucleus.core import errors

LIMIT_CHARACTERS = 64
LIMIT_NUMBER = 999_999
_LIMIT_RANGE_CHARACTERS = 1024  # bounds the work of a range that comes from outside; real ones are below 100

_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)

# (0, number, "") for a numeric identifier, (1, 0, text) for a word: numbers come before words.
_Identifier = tuple[int, int, str]
_Key = tuple[int, int, int, int, tuple[_Identifier, ...]]


def _identifier(text: str) -> _Identifier:
    return (0, int(text), "") if text.isdigit() else (1, 0, text)


class Version(Struct, frozen=True, eq=False):
    """One version; two that differ only in build metadata are equal and sort alike."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[_Identifier, ...] = ()
    text: str = ""

    @staticmethod
    def parse(text: str) -> Version:
        """Reads strict semantic versioning. Raises NucleusError COMPONENT_VERSION_NOT_VALID."""
        match = _SEMVER.fullmatch(text) if len(text) <= LIMIT_CHARACTERS else None
        if match is None:
            raise _not_valid(text, "it must read MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD], at most 64 characters")
        major, minor, patch = (int(match[part]) for part in (1, 2, 3))
        if max(major, minor, patch) > LIMIT_NUMBER:
            raise _not_valid(text, f"each number must be at most {LIMIT_NUMBER}")
        identifiers = tuple(_identifier(part) for part in match[4].split(".")) if match[4] else ()
        return Version(major, minor, patch, identifiers, text)

    def key(self) -> _Key:
        """What versions are ordered by: a release comes after its pre-releases."""
        return (self.major, self.minor, self.patch, 0 if self.prerelease else 1, self.prerelease)

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __lt__(self, other: Version) -> bool:
        return self.key() < other.key()

    def __le__(self, other: Version) -> bool:
        return self.key() <= other.key()

    def __gt__(self, other: Version) -> bool:
        return self.key() > other.key()

    def __ge__(self, other: Version) -> bool:
        return self.key() >= other.key()


def _not_valid(text: str, why: str) -> errors.NucleusError:
    shown = text if len(text) <= LIMIT_CHARACTERS else text[:LIMIT_CHARACTERS] + "…"
    return errors.NucleusError("COMPONENT_VERSION_NOT_VALID", f'cannot read version "{shown}": {why}')


class Comparator(Struct, frozen=True):
    """One bound: `operator` is one of `<`, `<=`, `>`, `>=`, `=`."""

    operator: str
    version: Version

    def admits(self, version: Version) -> bool:
        match self.operator:
            case "<":
                return version < self.version
            case "<=":
                return version <= self.version
            case ">":
                return version > self.version
            case ">=":
                return version >= self.version
            case _:
                return version == self.version


class Range(Struct, frozen=True):
    """A set of versions: any of `alternatives`, each of which is all of its comparators; `text` is as written."""

    text: str
    alternatives: tuple[tuple[Comparator, ...], ...]

    @staticmethod
    @functools.lru_cache(maxsize=4096)  # a device's recipes name some hundred ranges, again and again
    def parse(text: str) -> Range:
        """Reads an NPM range: `1.2.3 =1.2.3 ^1.0.0 ~1.2 1.x * >=1.0.0 <2.0.0`, `1.2 - 2.3`, `a || b`; empty means `*`.

        Raises NucleusError COMPONENT_DEPENDENCY_NOT_VALID.
        """
        if len(text) > _LIMIT_RANGE_CHARACTERS:
            raise _range_not_valid(text[:60] + "…", f"it is longer than {_LIMIT_RANGE_CHARACTERS} characters")
        return Range(text, tuple(_alternative(part, text) for part in text.split("||")))

    def allows(self, version: Version) -> bool:
        return satisfies(version, (self,))

    def exact(self) -> Version | None:
        """The one version this range pins, or None if it admits more."""
        match self.alternatives:
            case ((Comparator(operator="=", version=version),),):
                return version
            case _:
                return None

    def names_prerelease(self) -> bool:
        """Whether this range admits pre-releases to ranges it is joined with; `<2.0.0-0`, which `^1.0.0` is made of, none."""
        bounds = [bound for all_of in self.alternatives for bound in all_of]
        return any(
            bound.version.prerelease and (bound.operator, bound.version.prerelease) != ("<", _LOWEST)
            for bound in bounds
        )

    def __str__(self) -> str:
        return self.text


def satisfies(version: Version, ranges: Iterable[Range]) -> bool:
    """Whether a version lies in every range, as if the requirers' ranges were one.

    Joined means: a pre-release named by one requirer (a root at `=2.0.0-rc.1`) is admitted by the plain ranges of the
    others, which is what the textual join of the original does; alternatives are intersected per requirer.
    """
    named = not version.prerelease
    for range_ in ranges:
        fitting = [all_of for all_of in range_.alternatives if all(bound.admits(version) for bound in all_of)]
        if not fitting:
            return False
        named = named or any(_names(version, all_of) for all_of in fitting)
    return named


def _names(version: Version, comparators: tuple[Comparator, ...]) -> bool:
    numbers = (version.major, version.minor, version.patch)
    bounds = (comparator.version for comparator in comparators)
    return any(bound.prerelease and (bound.major, bound.minor, bound.patch) == numbers for bound in bounds)


# --- reading ranges; the desugaring is the table of the npm semver documentation -------------------------------------

_LOWEST = ((0, 0, ""),)  # the pre-release `0`, below which none is
_NUMBER = r"(?:[xX*]|0|[1-9][0-9]*)"
_PARTIAL = rf"[v=]*({_NUMBER})(?:\.({_NUMBER})(?:\.({_NUMBER})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?)?)?"
_HYPHEN = re.compile(rf"\s*{_PARTIAL}\s+-\s+{_PARTIAL}\s*")
_TERM = re.compile(rf"(\^|~>?|<=?|>=?|=)?\s*{_PARTIAL}(?=\s|$)")


class _Partial(Struct, frozen=True):
    """The numbers that are given (a wildcard ends them) and the pre-release of a full version."""

    numbers: tuple[int, ...]
    prerelease: str = ""

    def floor(self) -> Version:
        """The lowest release of this partial version; the version itself if it is full."""
        numbers = (*self.numbers, 0, 0, 0)[:3]
        text = ".".join(str(number) for number in numbers)
        return Version.parse(f"{text}-{self.prerelease}" if self.prerelease else text)

    def after(self, position: int) -> Version:
        """The exclusive upper bound made by counting up the number at `position` (`-0` shuts out its pre-releases)."""
        counted = (*self.numbers[:position], self.numbers[position] + 1, 0, 0)
        return _before(counted[0], counted[1], counted[2])


def _alternative(part: str, whole: str) -> tuple[Comparator, ...]:
    hyphen = _HYPHEN.fullmatch(part)
    if hyphen:
        low, high = (_partial(hyphen.groups()[start : start + 4], whole) for start in (0, 4))
        return (*_term(">=", low), *_term("<=", high))
    comparators: list[Comparator] = []
    position, end = 0, len(part.rstrip())
    while position < end:
        if part[position].isspace():
            position += 1
            continue
        term = _TERM.match(part, position)
        if term is None:
            raise _range_not_valid(whole, f'"{part[position:end]}" is not a version or a comparator')
        comparators += _term(term[1] or "", _partial(term.groups()[1:], whole))
        position = term.end()
    return tuple(comparators)


def _partial(groups: tuple[str | None, ...], whole: str) -> _Partial:
    numbers: list[int] = []
    for text in groups[:3]:
        if text is None or text in "xX*":
            break
        if len(text) > len(str(LIMIT_NUMBER)):
            raise _range_not_valid(whole, f"each number must be at most {LIMIT_NUMBER}")
        numbers.append(int(text))
    prerelease = (groups[3] or "") if len(numbers) == 3 else ""
    partial = _Partial(tuple(numbers), prerelease)
    try:
        partial.floor()
    except errors.NucleusError as error:
        raise _range_not_valid(whole, error.detail) from error
    return partial


def _term(operator: str, partial: _Partial) -> tuple[Comparator, ...]:
    given, floor = len(partial.numbers), partial.floor()
    if given == 0:
        return (Comparator("<", _before(0, 0, 0)),) if operator in ("<", ">") else ()
    at_least = Comparator(">=", floor)
    match operator:
        case "^":
            return (at_least, Comparator("<", partial.after(_caret_position(partial.numbers))))
        case "~" | "~>":
            return (at_least, Comparator("<", partial.after(min(1, given - 1))))
        case _ if given == 3:
            return (Comparator(operator or "=", floor),)
        case ">":
            return (Comparator(">=", _release(partial.after(given - 1))),)
        case "<=":
            return (Comparator("<", partial.after(given - 1)),)
        case "<":
            return (Comparator("<", _before(floor.major, floor.minor, floor.patch)),)
        case ">=":
            return (at_least,)
        case _:
            return (at_least, Comparator("<", partial.after(given - 1)))


def _before(major: int, minor: int, patch: int) -> Version:
    """The lowest pre-release: everything below it is below the release and all its pre-releases."""
    return Version(major, minor, patch, _LOWEST, f"{major}.{minor}.{patch}-0")


def _release(version: Version) -> Version:
    return Version(version.major, version.minor, version.patch, (), version.text.removesuffix("-0"))


def _caret_position(numbers: tuple[int, ...]) -> int:
    """Caret keeps the left-most number that is not zero: `^1.2` -> 0, `^0.2.3` -> 1, `^0.0.3` -> 2, `^0.0` -> 1."""
    return next((position for position, number in enumerate(numbers) if number), len(numbers) - 1)


def _range_not_valid(text: str, why: str) -> errors.NucleusError:
    hint = "write an NPM range such as ^1.2.0, >=1.0.0 <2.0.0 or 1.2.3"
    return errors.NucleusError("COMPONENT_DEPENDENCY_NOT_VALID", f'cannot read version range "{text}": {why}; {hint}')
