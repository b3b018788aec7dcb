"""The contact sheet: twelve annotated frames in order of time, each with what happened around it, as one PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tools.demo_vision import steps

COLUMNS, ROWS = 3, 4
_GAP, _TITLE, _CAPTION = 12, 56, 26
_BACKGROUND, _TEXT, _FAINT = (10, 12, 18), (240, 244, 248), (150, 160, 172)
_COLOURS = {"1.0.0": (96, 160, 255), "2.0.0": (80, 220, 130)}


def make(folder: Path, marks: list[tuple[float, str]]) -> Path:
    """Writes contact-sheet.png into the demo's folder from the frames of its device."""
    work = folder / steps.THING / "work" / steps.APPLICATION
    pictures = choose(sorted((work / "frames").glob("*.jpg")), COLUMNS * ROWS)
    with Image.open(pictures[0]) as first:
        width, height = first.size
    size = (COLUMNS * (width + _GAP) + _GAP, _TITLE + ROWS * (height + _CAPTION + _GAP) + _GAP)
    made = Image.new("RGB", size, _BACKGROUND)
    pen = ImageDraw.Draw(made)
    title = "One camera, one application, two models: swapped under load; an unsigned and a damaged one refused"
    pen.text((_GAP, _TITLE / 2), title, fill=_TEXT, font=ImageFont.load_default(26), anchor="lm")
    begin = pictures[0].stat().st_mtime
    for number, path in enumerate(pictures):
        at = (
            _GAP + number % COLUMNS * (width + _GAP),
            _TITLE + number // COLUMNS * (height + _CAPTION + _GAP),
        )
        _tile(made, pen, path, at, caption(path.stat().st_mtime, begin, marks))
    target = folder / "contact-sheet.png"
    made.save(target, optimize=True)
    return target


def choose(pictures: list[Path], count: int) -> list[Path]:
    """As many of each version as there is room, evenly over its time; the first of a version is always one."""
    by_version: dict[str, list[Path]] = {}
    for path in pictures:
        by_version.setdefault(path.stem.partition("-")[2], []).append(path)
    share = count // max(len(by_version), 1)
    chosen: list[Path] = []
    for found in by_version.values():
        last = max(len(found) - 1, 1)
        chosen.extend(found[min(step * last // max(share - 1, 1), len(found) - 1)] for step in range(share))
    return sorted(set(chosen))


def caption(moment: float, begin: float, marks: list[tuple[float, str]]) -> str:
    """Seconds since the first picture, and the last thing that had happened."""
    past = [what for at, what in marks if at <= moment]
    return f"{moment - begin:5.1f} s   {past[-1] if past else '1.0.0 deployed'}"


def _tile(sheet: Any, pen: Any, path: Path, at: tuple[int, int], text: str) -> None:
    with Image.open(path) as picture:
        picture.load()
        sheet.paste(picture, at)
        below = (at[0], at[1] + picture.height + 2)
        right = at[0] + picture.width
    version = path.stem.partition("-")[2]
    colour = _COLOURS.get(version, _FAINT)
    pen.rectangle((at[0], below[1], right - 1, below[1] + 3), fill=colour)
    pen.text((at[0] + 2, below[1] + _CAPTION / 2 + 2), text, fill=_TEXT, font=ImageFont.load_default(15), anchor="lm")
    pen.text(
        (right - 2, below[1] + _CAPTION / 2 + 2),
        f"detector {version}",
        fill=colour,
        font=ImageFont.load_default(15),
        anchor="rm",
    )
