"""The fault switch of the IPC has an effect in a test root only."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucleus.host import faults, logs


def test_switch_when_root_is_no_test_root_then_there_is_none_and_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "fault").write_text("ipc-service-error:GetConfiguration")

    assert faults.service_errors(tmp_path, logs.Log("nucleus", directory=tmp_path)) is None

    assert "fault.refused" in (tmp_path / "greengrass.log").read_text()


@pytest.mark.parametrize(
    ("text", "failing"),
    [
        (None, False),
        ("", False),
        ("ipc-service-error:GetConfiguration", True),
        ("ipc-service-error:GetConfiguration\n", True),
        ("ipc-service-error:UpdateState", False),
        ("pause-before-activation:5", False),
        ("pause-before-activation:GetConfiguration", False),
    ],
)
def test_switch_when_root_is_a_test_root_then_as_the_file_says_now(
    tmp_path: Path, text: str | None, failing: bool
) -> None:
    (tmp_path / "test-root").touch()
    switch = faults.service_errors(tmp_path, logs.Log("nucleus", directory=tmp_path))
    assert switch is not None
    assert not switch("GetConfiguration")

    if text is not None:
        (tmp_path / "fault").write_text(text)

    assert switch("GetConfiguration") is failing
