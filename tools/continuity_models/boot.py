"""Cold boots: agent, model components and application started in every order, with nothing kept from before."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tools import bench_model
from tools.continuity_models import models, report

PARTS = ("agent", "models", "application")
APART_S, AFTER_S = 1.0, 3.0
REPOSITORY = Path(__file__).resolve().parents[2]


class Boot(Struct, frozen=True):
    """`first_ms`: from the start of what came last to the last stream's first answer."""

    order: tuple[str, ...]
    asked: int
    failed: int
    wrong: int
    first_ms: float


def boots(folder: Path, built: Path, streams: dict[str, dict[str, float]]) -> list[Boot]:
    """All six orders, one after the other."""
    folder.mkdir()
    files = bench_model.publish(folder / "files")
    return [
        _boot(folder / str(number), files, built, streams, order)
        for number, order in enumerate(itertools.permutations(PARTS))
    ]


def _boot(folder: Path, files: Path, built: Path, streams: dict[str, dict[str, float]], order: tuple[str, ...]) -> Boot:
    (folder / "log").mkdir(parents=True)
    offers = []
    for alias, version in ((models.DETECTOR, "2.0.0"), (models.CNN, "1.0.0")):
        named = ["--component", f"com.example.{alias}", "--version", version, "--socket", "agent.sock"]
        offers.append(["hand_over.py", "offer", "--artifacts", str(built / alias / version), *named])
    given = {
        "files": str(files),
        "socket": str(folder / "agent.sock"),
        "known": str(built / "known.npz"),
        "log": str(folder / "log"),
        "streams": streams,
    }
    commands: dict[str, list[list[str]]] = {
        "agent": [[sys.executable, "-u", str(files / "agent.py")]],
        "models": [[sys.executable, str(files / one[0]), *one[1:]] for one in offers],
        "application": [[sys.executable, "-m", "tools.continuity_models.stream", json.dumps(given)]],
    }
    running: dict[str, list[subprocess.Popen[bytes]]] = {}
    with (folder / "boot.log").open("wb") as log:
        for part in order:
            threading.Event().wait(APART_S if running else 0)
            began = time.monotonic()
            where = REPOSITORY if part == "application" else folder
            running[part] = [subprocess.Popen(one, cwd=where, stdout=log, stderr=log) for one in commands[part]]
        try:
            return _watch(folder, order, began, running)
        finally:
            for process in (*running["agent"], *running["models"], *running["application"]):
                process.kill()
                process.wait()
            shutil.rmtree(folder / "registry", ignore_errors=True)


def _watch(
    folder: Path, order: tuple[str, ...], began: float, running: dict[str, list[subprocess.Popen[bytes]]]
) -> Boot:
    for process in running["models"]:
        if process.wait(60):
            raise RuntimeError(f"a model was refused: {(folder / 'boot.log').read_text()[-500:]}")
    threading.Event().wait(AFTER_S)
    (folder / "log" / "stop").touch()
    running["application"][0].wait(60)
    logs = [report.read(folder / "log" / f"{alias}.csv") for alias in (models.DETECTOR, models.CNN)]
    count: Callable[[str], int] = lambda what: sum(one.what == what for log in logs for one in log)  # noqa: E731
    firsts = [min((one.done for one in log if one.what == "ok"), default=began + 3600) for log in logs]
    return Boot(
        order=order,
        asked=sum(map(len, logs)),
        failed=count("failed"),
        wrong=count("wrong"),
        first_ms=max(0.0, (max(firsts) - began) * 1000),
    )
