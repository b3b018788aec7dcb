"""The conformance tests are counted by their numbers: each has one place, and few are expected to fail."""

from __future__ import annotations

from tools import conformance


def test_numbers_when_listed_then_within_the_list_and_few_expected_failures() -> None:
    cases = conformance.listed(conformance.ROOT / conformance.FOLDER)
    numbers = {one.number for one in cases}
    sources = [(conformance.ROOT / place).read_text() for place in {one.place for one in cases}]

    assert numbers <= set(range(1, conformance.LAST + 1))
    assert sum(text.count("mark.xfail") for text in sources) <= conformance.MAX_XFAIL


def test_report_when_a_number_has_no_test_then_it_says_what_will_bring_it() -> None:
    passed = conformance.Case(1, "test_01_x", "tests/conformance/test_x.py", "passed")
    failed = conformance.Case(2, "test_02_y", "tests/conformance/test_x.py", "xfailed", "issue 4: y")

    text = conformance.report([passed, failed])

    assert "  1  passed   tests/conformance/test_x.py::test_01_x" in text
    assert "issue 4: y" in text
    assert "  3  -        no test yet" in text
    assert "1 of 71 behaviours hold; 69 have no test yet; 1 expected failures" in text
