from __future__ import annotations

import pytest

from nucleus.core import certificate, findings

NOW = 1_800_000_000.0
DAY = 86_400.0
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("levels", "code"), [((), 0), (("ok",), 0), (("ok", "warning"), 1), (("warning", "error", "ok"), 2)]
)
def test_exit_code_when_levels_are_mixed_then_the_worst_counts(levels: tuple[str, ...], code: int) -> None:
    assert findings.exit_code([findings.Finding("X", level, "what") for level in levels]) == code


@pytest.mark.parametrize(("now", "code"), [(0.0, "CLOCK_NOT_SET"), (NOW, "CLOCK")])
def test_clock_when_it_was_never_set_then_it_is_an_error(now: float, code: str) -> None:
    assert findings.clock(now).code == code


@pytest.mark.parametrize(
    ("theirs", "code"), [(NOW, "CLOCK_AGREES"), (NOW - 301, "CLOCK_SKEWED"), (NOW + 301, "CLOCK_SKEWED")]
)
def test_clock_against_when_a_server_differs_then_it_is_an_error(theirs: float, code: str) -> None:
    assert findings.clock_against("host", theirs, NOW).code == code


@pytest.mark.parametrize(
    ("free", "files", "code"),
    [(MIB, 9, "DISK_FULL"), (100 * MIB, 9, "DISK_LOW"), (999 * MIB, 0, "DISK_NO_FILES"), (999 * MIB, -1, "DISK")],
)
def test_disk_when_space_or_files_run_out_then_the_code_says_which(free: int, files: int, code: str) -> None:
    assert findings.disk("/root", free, files).code == code


@pytest.mark.parametrize(
    ("valid", "code"),
    [
        ((NOW + 60, NOW + DAY), "CERTIFICATE_NOT_YET_VALID"),
        ((0, NOW - 1), "CERTIFICATE_EXPIRED"),
        ((0, NOW + 29 * DAY), "CERTIFICATE_EXPIRES_SOON"),
        ((0, NOW + 31 * DAY), "CERTIFICATE"),
    ],
)
def test_expiry_when_time_passes_then_the_code_changes(valid: tuple[float, float], code: str) -> None:
    found = findings.expiry("CERTIFICATE", "the certificate", "a.pem", certificate.Validity(*valid), NOW)

    assert found.code == code
    assert bool(found.fix) == (found.level != findings.GOOD)


def test_mode_when_more_people_may_use_it_then_the_fix_is_a_command() -> None:
    found = findings.mode("/root/key", 0o100644, 0o600, secret=True)

    assert found is not None
    assert (found.level, found.fix) == (findings.BAD, "chmod 0600 /root/key")
    assert findings.mode("/root/key", 0o100400, 0o600, secret=True) is None
