"""Uploads the captures of a store until it is killed; prints a line whenever its figures have changed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path

import agent_capture_store
import agent_s3
import agent_upload
import agent_upload_state


def main(folder: str, given: str) -> None:
    destination = agent_s3.read(json.loads(given))
    assert destination is not None
    where = agent_capture_store.Where(Path(folder), "default", "crane", 1 << 22)
    with contextlib.ExitStack() as stack:
        store = agent_capture_store.open_store(where, stack)
        source = agent_upload.Source(destination, where.folder, "crane", lambda: store)
        uploads = agent_upload.Uploads(source, agent_upload_state.Budget(1 << 30))
        told, pause = "", threading.Event()
        while True:
            uploads.look()
            figures = json.dumps(uploads.figures("a"))
            if figures != told:
                told = figures
                os.write(1, f"{figures}\n".encode())
            pause.wait(0.001)


main(*sys.argv[1:])
