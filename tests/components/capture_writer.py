"""Captures records from several threads until it is killed, and prints the id of each that was acknowledged."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from pathlib import Path

import agent_capture
import agent_capture_files

files = agent_capture_files.Files(Path(sys.argv[1]), "d", int(sys.argv[2]), 100)
capture = agent_capture.Capture(files, agent_capture.Bounds(64, 32))


def write() -> None:
    while True:
        identity = str(uuid.uuid4())
        items = (
            agent_capture_files.Item("small", "Tensor[uint8; 50]", identity.encode()),
            agent_capture_files.Item("large", "Tensor[uint8; 3600]", identity.encode() * 100),
        )
        capture.submit(agent_capture_files.Record("m", identity, time.time(), items, ()))
        os.write(1, f"{identity}\n".encode())  # whole lines, whoever else writes


threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads:
    thread.start()
