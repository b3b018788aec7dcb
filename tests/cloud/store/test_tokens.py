"""Replays of create calls."""

from __future__ import annotations

from pathlib import Path

from cloud.store import database, tokens


def test_answer_when_remembered_then_for_eight_hours_and_for_its_operation(tmp_path: Path) -> None:
    store = database.Database(f"sqlite:///{tmp_path / 'cloud.db'}")
    store.create()
    with store.begin() as tx:
        tokens.remember(tx, "Create", "t", {"id": "1"}, 1000)

        seen = [
            tokens.answer(tx, "Create", "t", 1000),
            tokens.answer(tx, "Create", "t", 1000 + tokens.REPLAY_MS - 1),
            tokens.answer(tx, "Create", "t", 1000 + tokens.REPLAY_MS),
            tokens.answer(tx, "Other", "t", 1000),
        ]
        tokens.remember(tx, "Create", "t", {"id": "2"}, 1000 + tokens.REPLAY_MS)

        assert seen == [{"id": "1"}, {"id": "1"}, None, None]
        assert tokens.answer(tx, "Create", "t", 1000 + tokens.REPLAY_MS) == {"id": "2"}
    store.close()
