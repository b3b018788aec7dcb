"""A slice of `make ipc-soak` against the running daemon: calls, connections, a blocked subscriber, broken frames."""

from __future__ import annotations

import pytest

from tools import ipc_soak


def test_soak_when_a_slice_of_it_runs_then_every_bound_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code = ipc_soak.main(["--frames", "6000", "--scale", "0.02"])

    said = capsys.readouterr().out
    assert code == 0, said
    assert said.count("ok ") == 5
