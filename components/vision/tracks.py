"""Follows objects from frame to frame and counts them (pure): the nearest detection of the same class goes on with a track.

A faint detection goes on with a track but begins none, so that an object at the edge of being seen does not become many.
A track counts once it was seen in CONFIRMED frames, and ends after MISSED frames without a detection. Distances are in
heights of the object, so that near and far ones are treated alike.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ssd

CONFIRMED, MISSED = 3, 8
BEGIN_SCORE = 0.42
NEAR_HEIGHTS = 0.7  # a walker at 3 frames a second moves a quarter of his height from one to the next


@dataclass(frozen=True)
class Track:
    """`seen` frames with a detection, `missed` frames since the last one."""

    number: int
    last: ssd.Detection
    seen: int = 1
    missed: int = 0

    @property
    def confirmed(self) -> bool:
        return self.seen >= CONFIRMED


class Tracks:
    """All tracks of one camera."""

    def __init__(self) -> None:
        self.now: tuple[Track, ...] = ()
        self.total: collections.Counter[str] = collections.Counter()
        self._number = 0

    def feed(self, detections: Sequence[ssd.Detection]) -> tuple[Track, ...]:
        """Takes one frame's detections; returns the tracks that are in it."""
        pairs = sorted(
            (distance, old, new)
            for old, track in enumerate(self.now)
            for new, detection in enumerate(detections)
            if (distance := distance_heights(track.last, detection)) <= NEAR_HEIGHTS
        )
        of_track: dict[int, int] = {}
        for _, old, new in pairs:
            if old not in of_track and new not in of_track.values():
                of_track[old] = new
        following = [self._go_on(track, of_track.get(old), detections) for old, track in enumerate(self.now)]
        begun = [self._begin(one) for new, one in enumerate(detections) if self._is_new(new, one, of_track)]
        self.now = tuple(track for track in (*following, *begun) if track.missed <= MISSED)
        return tuple(track for track in self.now if not track.missed)

    def cut(self) -> None:
        """The picture jumped: nothing in it goes on."""
        self.now = ()

    def _go_on(self, track: Track, new: int | None, detections: Sequence[ssd.Detection]) -> Track:
        if new is None:
            return replace(track, missed=track.missed + 1)
        found = replace(track, last=detections[new], seen=track.seen + 1, missed=0)
        if found.confirmed and not track.confirmed:
            self.total[found.last.name] += 1
        return found

    def _is_new(self, new: int, detection: ssd.Detection, of_track: dict[int, int]) -> bool:
        return detection.score >= BEGIN_SCORE and new not in of_track.values()

    def _begin(self, detection: ssd.Detection) -> Track:
        self._number += 1
        return Track(self._number, detection)


def distance_heights(one: ssd.Detection, other: ssd.Detection) -> float:
    """From centre to centre in heights of the first; infinite for another class."""
    if one.name != other.name:
        return math.inf
    height = max(one.box[2] - one.box[0], 1e-6)
    y = (one.box[0] + one.box[2] - other.box[0] - other.box[2]) / 2
    x = (one.box[1] + one.box[3] - other.box[1] - other.box[3]) / 2
    return math.hypot(x, y) / height
