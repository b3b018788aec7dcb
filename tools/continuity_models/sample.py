"""The same job as Greengrass's sample does it: an application that opens the model its run command names, once, at its start.

    python -m tools.continuity_models.sample DETECTOR CNN CONFIGURATION

The models lie in folders of their versions. CONFIGURATION is a file: {"known", "log", "begin": time.monotonic(), "rates":
{alias: pictures a second}}.

Pictures come by the clock, as from a camera: number i at begin + i / rate, for all processes of this program one after the
other. Those that come while none of them runs are taken by nobody: they are missing in the log (stream.py has its form).
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tools.continuity_models import models, stream


def take(alias: str, model: Path, given: dict[str, Any], log: stream.Log) -> None:
    """Answers every picture from now on; a thread for each alias."""
    known, rate = stream.Known(Path(given["known"])), float(given["rates"][alias])
    session = models.session(str(model))
    inputs, version = known.inputs(alias), model.parent.name
    first = session.get_outputs()[0].name
    number = math.ceil((time.monotonic() - given["begin"]) * rate)
    pause = threading.Event()
    while True:
        due = given["begin"] + number / rate
        pause.wait(max(0.0, due - time.monotonic()))
        which = number % len(inputs)
        (answer, *_) = session.run([first], {"image": inputs[which]})
        right = known.is_right(alias, which, version, answer)
        log.write(due, version, "ok" if right else "wrong")
        number += 1


def main(arguments: list[str]) -> None:
    """Ends when it is killed."""
    *files, configuration = map(Path, arguments)
    given = json.loads(configuration.read_text())
    threads = []
    for alias, model in zip((models.DETECTOR, models.CNN), files, strict=True):
        log = stream.Log(Path(given["log"]) / f"{alias}.csv")
        threads.append(threading.Thread(target=take, args=(alias, model, given, log)))
        threads[-1].start()
    for one in threads:
        one.join()


if __name__ == "__main__":
    main(sys.argv[1:])
