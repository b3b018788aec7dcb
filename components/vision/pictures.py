"""Pictures: a camera's JPEG as the detector's input, and with what was found drawn on it (Pillow)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ssd
import tracks
from PIL import Image, ImageDraw, ImageFont

COLOURS = {"Person": (255, 196, 0), "Car": (64, 200, 255), "Vehicle": (64, 200, 255)}
OTHER = (120, 255, 120)
STRIP = 20  # pixels of the line of text above the picture
_BACKGROUND, _TEXT = (16, 20, 28), (235, 240, 245)


def read(jpeg: bytes) -> Any:
    """The picture (PIL.Image, RGB); raises ValueError if it cannot be read."""
    try:
        return Image.open(io.BytesIO(jpeg)).convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read a frame: {error}") from error


def tensor(picture: Any) -> ssd.Array:
    """The detector's input, [1, 300, 300, 3] float32."""
    return ssd.scale_pixels(np.asarray(picture.resize((ssd.SIDE, ssd.SIDE), Image.Resampling.BILINEAR)))


def annotate(picture: Any, found: Sequence[tracks.Track], words: str) -> Any:
    """The picture below a line of text, with boxes, classes, scores and numbers of confirmed tracks."""
    made = Image.new("RGB", (picture.width, picture.height + STRIP), _BACKGROUND)
    made.paste(picture, (0, STRIP))
    pen = ImageDraw.Draw(made)
    pen.text((6, STRIP // 2), words, fill=_TEXT, font=ImageFont.load_default(12), anchor="lm")
    for track in found:
        _box(pen, track, picture.width, picture.height)
    return made


def save(picture: Any, path: Path) -> None:
    """As a JPEG, replaced as a whole."""
    new = path.with_suffix(".new")
    picture.save(new, "JPEG", quality=88)
    new.replace(path)


def _box(pen: Any, track: tracks.Track, width: int, height: int) -> None:
    top, left, bottom, right = track.last.box
    colour = COLOURS.get(track.last.name, OTHER)
    at = (left * width, top * height + STRIP, right * width, bottom * height + STRIP)
    pen.rectangle(at, outline=colour, width=2 if track.confirmed else 1)
    label = f"#{track.number}" if track.confirmed else f"{track.last.name} {track.last.score:.2f}"
    font = ImageFont.load_default(10)
    x0, y0, x1, y1 = pen.textbbox((at[0], at[1] - 1), label, font=font, anchor="lb")
    shift = max(0, x1 + 2 - width)
    pen.rectangle((x0 - 1 - shift, y0 - 1, x1 + 1 - shift, y1 + 1), fill=colour)
    pen.text((at[0] - shift, at[1] - 1), label, fill=(0, 0, 0), font=font, anchor="lb")
