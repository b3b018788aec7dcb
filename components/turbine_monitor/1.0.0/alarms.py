"""The monitor's SQLite file: alarms until and after they are published, and how far the replay came.

Schema 1 (PRAGMA user_version): `alarms`, one row per turbine and start of a window, with `published` 0 or 1; `progress`,
one row per turbine. An alarm is stored before it is published and marked after, so each is published at least once and
a window that is seen again (a second pass over the data, a restart) raises no second alarm.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import windows

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS alarms (
  id INTEGER PRIMARY KEY, turbine TEXT NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL, rows INTEGER NOT NULL,
  power_kw REAL NOT NULL, expected_kw REAL NOT NULL, wind_speed_m_s REAL NOT NULL, model_version TEXT NOT NULL,
  published INTEGER NOT NULL DEFAULT 0, UNIQUE (turbine, started));
CREATE TABLE IF NOT EXISTS progress (turbine TEXT PRIMARY KEY, row INTEGER NOT NULL, passes INTEGER NOT NULL);
"""
_INSERT = """INSERT OR IGNORE INTO alarms (turbine, started, ended, rows, power_kw, expected_kw, wind_speed_m_s,
  model_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""


class Alarms:
    """One connection to the file, for one thread; several may be open."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_TABLES)
        if self._database.execute("PRAGMA user_version").fetchone()[0] < SCHEMA:
            self._database.execute(f"PRAGMA user_version = {SCHEMA}")

    def record(self, turbine: str, window: windows.Window) -> bool:
        """Stores an alarm to be published; False if this window is known."""
        w = window
        measured = (w.power_kw, w.expected_kw, w.wind_speed_m_s, w.model_version)
        return self._database.execute(_INSERT, (turbine, w.started, w.ended, w.rows, *measured)).rowcount > 0

    def unpublished(self, limit: int = 20) -> list[tuple[int, dict[str, Any]]]:
        """The oldest alarms nobody was told, as (id, message)."""
        query = "SELECT * FROM alarms WHERE published = 0 ORDER BY id LIMIT ?"
        return [(row["id"], _message(row)) for row in self._database.execute(query, (limit,))]

    def mark_published(self, alarm_id: int) -> None:
        """Remembers that an alarm was told."""
        self._database.execute("UPDATE alarms SET published = 1 WHERE id = ?", (alarm_id,))

    def count(self) -> int:
        """How many alarms there ever were."""
        return int(self._database.execute("SELECT count(*) FROM alarms").fetchone()[0])

    def progress(self, turbine: str) -> tuple[int, int]:
        """The next row to replay and how many passes were finished."""
        row = self._database.execute("SELECT row, passes FROM progress WHERE turbine = ?", (turbine,)).fetchone()
        return (row["row"], row["passes"]) if row else (0, 0)

    def save_progress(self, turbine: str, row: int, passes: int) -> None:
        """Durably sets where a restart goes on."""
        self._database.execute("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", (turbine, row, passes))

    def close(self) -> None:
        """Closes the connection."""
        self._database.close()


def _message(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "turbine": row["turbine"],
        "kind": "under-performance",
        "started": row["started"],
        "ended": row["ended"],
        "minutes": row["rows"] * 10,
        "power_kw": row["power_kw"],
        "expected_kw": row["expected_kw"],
        "wind_speed_m_s": row["wind_speed_m_s"],
        "model_version": row["model_version"],
    }
