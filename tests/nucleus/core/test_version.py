"""Versions in semantic order and NPM ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import errors, version

# Range, versions inside, versions outside: the examples of the npm semver documentation and the corners around them.
RANGES = [
    ("1.2.3", "1.2.3 1.2.3+build", "1.2.4 1.2.2 1.2.3-a"),
    ("=1.2.3", "1.2.3", "1.2.4"),
    ("v1.2.3", "1.2.3", "1.2.4"),
    ("= v 1.2.3".replace(" ", ""), "1.2.3", "1.2.4"),
    ("^1.2.3", "1.2.3 1.9.9", "2.0.0 1.2.2 2.0.0-a 1.3.0-a 1.2.3-a"),
    ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
    ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
    ("^1.2.x", "1.2.0 1.9.0", "2.0.0 1.1.9"),
    ("^0.0.x", "0.0.0 0.0.9", "0.1.0"),
    ("^0.0", "0.0.0 0.0.9", "0.1.0"),
    ("^0.x", "0.0.0 0.9.9", "1.0.0"),
    ("^1", "1.0.0 1.9.9", "2.0.0 0.9.9"),
    ("^*", "0.0.0 9.9.9", "1.0.0-a"),
    ("^1.2.3-beta.2", "1.2.3-beta.2 1.2.3-beta.4 1.2.3 1.2.4", "1.2.4-beta.1 1.2.3-alpha 2.0.0"),
    ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
    ("~> 1.2.3", "1.2.3 1.2.9", "1.3.0"),
    ("~1.2", "1.2.0 1.2.9", "1.3.0 1.1.9"),
    ("~1", "1.0.0 1.9.9", "2.0.0"),
    ("~0.2.3", "0.2.3 0.2.9", "0.3.0"),
    ("~1.2.3-beta.2", "1.2.3-beta.4 1.2.5", "1.2.4-beta.2 1.3.0"),
    (">1.2.3", "1.2.4", "1.2.3"),
    (">1.2", "1.3.0", "1.2.9 1.2.0"),
    (">1", "2.0.0", "1.9.9"),
    (">=1.2", "1.2.0", "1.1.9"),
    ("<1.2", "1.1.9", "1.2.0 1.2.0-a"),
    ("<1.2.3", "1.2.2", "1.2.3"),
    ("<=1.2", "1.2.9", "1.3.0"),
    ("<=1.2.3", "1.2.3", "1.2.4"),
    (">= 1.0.0  < 2.0.0", "1.0.0 1.9.9", "2.0.0 0.9.9"),
    ("1.x", "1.0.0 1.9.0", "2.0.0"),
    ("1.X.x", "1.0.0 1.9.0", "2.0.0"),
    ("1.2.*", "1.2.0 1.2.9", "1.3.0"),
    ("1.*.3", "1.0.0 1.9.0", "2.0.0"),
    ("*", "0.0.0 1.0.0", "1.0.0-a"),
    ("", "0.0.0 1.0.0", "1.0.0-a"),
    ("   ", "0.0.0 1.0.0", "1.0.0-a"),
    ("x", "0.0.0 1.0.0", "1.0.0-a"),
    (">*", "", "0.0.0 1.0.0"),
    ("<*", "", "0.0.0 1.0.0"),
    ("1.2 - 2.3", "1.2.0 2.3.9", "2.4.0 1.1.9"),
    ("1.2.3 - 2.3.4", "1.2.3 2.3.4", "2.3.5 1.2.2"),
    ("1.2.3 - 2", "2.9.9", "3.0.0"),
    ("1.0.0 || >=2.0.0 <3.0.0", "1.0.0 2.5.0", "1.0.1 3.0.0"),
    ("||", "1.0.0", "1.0.0-a"),
    (">=1.0.0-rc.1 <2.0.0", "1.0.0-rc.2 1.0.0 1.5.0", "1.0.0-beta 1.5.0-rc.1 2.0.0-rc.1"),
]

NOT_RANGES = [
    "foo",
    ">=",
    "1.2.3.4",
    "1.0.0-",
    "^^1",
    "1 -2",
    "01.0.0",
    "9999999.0.0",
    "1.0.0-01",
    "1.0.0,2.0.0",
    "1.0 | 2",
]
NOT_VERSIONS = [
    "",
    "1",
    "1.0",
    "1.0.0.0",
    "v1.0.0",
    "01.0.0",
    "1.0.0-",
    "1.0.0-01",
    "1.0.0 ",
    "1000000.0.0",
    "1.0.0-" + "a" * 60,
    "١.0.0",
]
ORDERED = "0.0.0-0 0.0.0 1.0.0-1 1.0.0-2 1.0.0-10 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0 1.0.1 1.10.0 2.0.0"

numbers = st.integers(0, 4)
releases = st.builds("{}.{}.{}".format, numbers, numbers, numbers)
versions = st.one_of(releases, st.builds("{}-{}".format, releases, st.sampled_from(["0", "1", "a", "a.1", "rc.1"])))


@pytest.mark.parametrize(("text", "inside", "outside"), RANGES)
def test_range_when_given_a_version_then_allows_as_npm_does(text: str, inside: str, outside: str) -> None:
    read = version.Range.parse(text)

    assert [each for each in inside.split() if not read.allows(version.Version.parse(each))] == []
    assert [each for each in outside.split() if read.allows(version.Version.parse(each))] == []


@pytest.mark.parametrize("text", NOT_RANGES)
def test_range_when_not_readable_then_names_it(text: str) -> None:
    with pytest.raises(errors.NucleusError, match="cannot read version range") as caught:
        version.Range.parse(text)

    assert caught.value.code == "COMPONENT_DEPENDENCY_NOT_VALID"
    assert text[:20] in caught.value.detail


@pytest.mark.parametrize("text", NOT_VERSIONS)
def test_version_when_not_semantic_then_refused(text: str) -> None:
    with pytest.raises(errors.NucleusError, match="cannot read version") as caught:
        version.Version.parse(text)

    assert caught.value.code == "COMPONENT_VERSION_NOT_VALID"


def test_version_when_sorted_then_in_semantic_order() -> None:
    texts = ORDERED.split()

    assert [str(each) for each in sorted(map(version.Version.parse, reversed(texts)))] == texts


def test_version_when_only_build_metadata_differs_then_equal() -> None:
    one, other = version.Version.parse("1.0.0+a"), version.Version.parse("1.0.0+b")

    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == "1.0.0+a"


def test_range_when_longer_than_the_limit_then_refused_at_once() -> None:
    with pytest.raises(errors.NucleusError, match="longer than"):
        version.Range.parse("1.0.0 " * 1000)


def test_satisfies_when_a_root_names_a_prerelease_then_plain_ranges_of_others_admit_it() -> None:
    ranges = [version.Range.parse("=1.0.0-rc.1"), version.Range.parse(">=0.9.0 <2.0.0")]

    assert version.satisfies(version.Version.parse("1.0.0-rc.1"), ranges)
    assert not version.satisfies(version.Version.parse("1.0.0-rc.1"), ranges[1:])


def test_satisfies_when_one_requirer_has_alternatives_then_they_are_not_mixed_with_the_other() -> None:
    ranges = [version.Range.parse("1.0.0 || 2.0.0"), version.Range.parse(">=2.0.0")]

    assert version.satisfies(version.Version.parse("2.0.0"), ranges)
    assert not version.satisfies(version.Version.parse("1.0.0"), ranges)
    assert not version.satisfies(version.Version.parse("3.0.0"), ranges)


@pytest.mark.parametrize(
    ("text", "pin"), [("=1.2.3", "1.2.3"), ("1.2.3-a", "1.2.3-a"), ("^1.2.3", None), ("1.x", None)]
)
def test_exact_when_a_range_pins_then_gives_the_version(text: str, pin: str | None) -> None:
    found = version.Range.parse(text).exact()

    assert (str(found) if found else None) == pin


@given(versions, versions)
def test_order_when_two_versions_then_exactly_one_of_less_equal_greater(one: str, other: str) -> None:
    left, right = version.Version.parse(one), version.Version.parse(other)

    assert [left < right, left == right, left > right].count(True) == 1
    assert (left <= right) == (not left > right)
    assert (left >= right) == (not left < right)


@given(versions, versions)
def test_comparators_when_applied_then_agree_with_the_order(bound: str, given_version: str) -> None:
    left, right = version.Version.parse(given_version), version.Version.parse(bound)
    comparators = {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right, "=": left == right}

    for operator, expected in comparators.items():
        assert version.Comparator(operator, right).admits(left) == expected


@given(releases, releases)
def test_caret_and_tilde_when_allowing_then_lie_between_their_bounds(base: str, given_version: str) -> None:
    low, tested = version.Version.parse(base), version.Version.parse(given_version)
    numbers = (low.major, low.minor, low.patch)
    kept = next((position for position, number in enumerate(numbers) if number), 2)
    same_left = (tested.major, tested.minor, tested.patch)[: kept + 1] == numbers[: kept + 1]

    assert version.Range.parse(f"^{base}").allows(tested) == (tested >= low and same_left)
    expected = tested >= low and (tested.major, tested.minor) == (low.major, low.minor)
    assert version.Range.parse(f"~{base}").allows(tested) == expected


@given(st.text(alphabet="0123456789.^~<>=|xX*v -+ab", max_size=30))
def test_range_when_any_text_then_read_or_refused_never_broken(text: str) -> None:
    try:
        read = version.Range.parse(text)
    except errors.NucleusError as error:
        assert error.code == "COMPONENT_DEPENDENCY_NOT_VALID"  # noqa: PT017
    else:
        read.allows(version.Version.parse("1.0.0"))
