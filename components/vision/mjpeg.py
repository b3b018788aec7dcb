"""Motion JPEG: whole JPEG images one behind the other in a file (standard library only)."""

from __future__ import annotations

from pathlib import Path

_BEGIN, _END = b"\xff\xd8\xff", b"\xff\xd9"
FRAMES_LIMIT = 100_000


def read(path: Path) -> list[bytes]:
    """The images of a file, one for a single JPEG; raises ValueError if there is none or one is torn.

    An image ends before the next one begins. Images with a thumbnail inside, as photo cameras write them, are no frames
    of a video and are not told apart here.
    """
    data = path.read_bytes()
    frames: list[bytes] = []
    at = 0
    while at < len(data):
        if not data.startswith(_BEGIN, at):
            raise ValueError(f"cannot read {path}: image {len(frames) + 1} does not begin like a JPEG")
        following = data.find(_END + _BEGIN, at)
        end = len(data) if following < 0 else following + len(_END)
        frames.append(data[at:end])
        at = end
        if len(frames) > FRAMES_LIMIT:
            raise ValueError(f"cannot read {path}: it has more than {FRAMES_LIMIT} images")
    if not frames:
        raise ValueError(f"cannot read {path}: it is empty")
    if not frames[-1].endswith(_END):
        raise ValueError(f"cannot read {path}: its last image is torn")
    return frames
