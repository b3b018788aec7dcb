"""The PNG of latency against accuracy: what was accepted, what was refused, the source, the pick and the margin."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import msgspec
from PIL import Image, ImageDraw, ImageFont

from cloud.optimise import gate, outcomes, targets

WIDTH, HEIGHT = 1280, 800
_FINE = 2  # drawn this much larger, then scaled down, for smooth lines
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 40, 110, 90
_INK, _FAINT, _PAPER = (33, 37, 41), (222, 226, 230), (255, 255, 255)
COLOURS = {
    outcomes.SOURCE: (52, 58, 64),
    outcomes.ACCEPTED: (43, 138, 62),
    outcomes.REFUSED: (201, 42, 42),
    outcomes.PASSED_OVER: (134, 142, 150),
}
_LEGEND = (
    (outcomes.SOURCE, "source"),
    (outcomes.ACCEPTED, "accepted (ring: the pick)"),
    (outcomes.REFUSED, "refused"),
)
_WIDE = 6.0  # latencies that span more than this are drawn on a logarithmic axis


_MOST = 16  # names that there is room for


class _Scale(msgspec.Struct, frozen=True):
    """Values to pixels, on one axis."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        low, high = self._place(self.low), self._place(self.high)
        return self.begin + (self._place(value) - low) / (high - low) * (self.end - self.begin)

    def _place(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def draw(figures: outcomes.Figures, target: targets.Target, bounds: gate.Bounds, model: str) -> bytes:
    """The picture's bytes."""
    shown = [one for one in figures.outcomes if one.accuracy is not None and one.latency_ms > 0]
    x, y = _scales(shown, bounds)
    image = Image.new("RGB", (WIDTH * _FINE, HEIGHT * _FINE), _PAPER)
    pen = _Pen(ImageDraw.Draw(image))
    heading = f"{model} on {target.name}: latency against accuracy"
    pen.text(_LEFT, 26, heading, 24)
    named = shown if len(shown) <= _MOST else [one for one in shown if _has_name(one) or one.name == figures.best]
    rest = "; without a name: the same forms with other settings" if len(named) < len(shown) else ""
    pen.text(_LEFT, 60, f"{figures.metric}; bars: 95 % interval; margin {bounds.margin:g}{rest}", 15)
    _axes(pen, x, y, figures)
    _margin(pen, x, y, figures, bounds)
    for one in sorted(shown, key=lambda each: each.state != outcomes.REFUSED):
        _mark(pen, x, y, one, one.name == figures.best)
    accuracy = figures.source.accuracy
    assert accuracy is not None, "the source is compared with itself"
    _names(pen, x, y, shown, {one.name for one in named}, y.at(accuracy.source - bounds.margin))
    _legend(pen)
    out = io.BytesIO()
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out.getvalue()


class _Pen:
    """Draws in the picture's own pixels."""

    def __init__(self, drawing: Any) -> None:
        self._drawing = drawing

    def line(self, *points: tuple[float, float], colour: tuple[int, int, int] = _INK, width: float = 1.0) -> None:
        scaled = [(px * _FINE, py * _FINE) for px, py in points]
        self._drawing.line(scaled, fill=colour, width=round(width * _FINE))

    def circle(self, px: float, py: float, radius: float, colour: tuple[int, int, int], filled: bool = True) -> None:
        box = [(px - radius) * _FINE, (py - radius) * _FINE, (px + radius) * _FINE, (py + radius) * _FINE]
        if filled:
            self._drawing.ellipse(box, fill=colour)
        else:
            self._drawing.ellipse(box, outline=colour, width=round(2.5 * _FINE))

    def diamond(self, px: float, py: float, radius: float, colour: tuple[int, int, int]) -> None:
        corners = [(px, py - radius), (px + radius, py), (px, py + radius), (px - radius, py)]
        self._drawing.polygon([(cx * _FINE, cy * _FINE) for cx, cy in corners], fill=colour)

    def text(
        self, px: float, py: float, text: str, size: float, anchor: str = "la", colour: tuple[int, int, int] = _INK
    ) -> None:
        font = ImageFont.load_default(size * _FINE)
        place, halo = (px * _FINE, py * _FINE), 2 * _FINE  # so that a text can be read over a line
        self._drawing.text(place, text, fill=colour, font=font, anchor=anchor, stroke_width=halo, stroke_fill=_PAPER)

    def wide(self, text: str, size: float) -> float:
        """How wide a text is."""
        return float(ImageFont.load_default(size * _FINE).getlength(text)) / _FINE

    def upright(self, px: float, py: float, text: str, size: float) -> None:
        """A text turned by 90°, centred at the point."""
        font = ImageFont.load_default(size * _FINE)
        left, top, right, bottom = font.getbbox(text)
        turned = Image.new("L", (round(right - left) + 4, round(bottom - top) + 8), 0)
        ImageDraw.Draw(turned).text((2 - left, 4 - top), text, fill=255, font=font)
        turned = turned.rotate(90, expand=True)
        place = (round(px * _FINE - turned.width / 2), round(py * _FINE - turned.height / 2))
        self._drawing.bitmap(place, turned, fill=_INK)


def _has_name(one: outcomes.Outcome) -> bool:
    """Whether it is the plain candidate of its form."""
    return one.settings.level == "all" and one.settings.threads == 1


def _scales(shown: Sequence[outcomes.Outcome], bounds: gate.Bounds) -> tuple[_Scale, _Scale]:
    times = [one.latency_ms for one in shown]
    logarithmic = max(times) / min(times) > _WIDE
    room = (max(times) - min(times)) * 0.12 or max(times) * 0.2
    if logarithmic:
        low, high = min(times) / 1.25, max(times) * 1.6
    else:
        low, high = max(0.0, min(times) - room), max(times) + 2 * room
    x = _Scale(low, high, _LEFT, WIDTH - _RIGHT, logarithmic)
    lows = [one.accuracy.source + one.accuracy.low for one in shown if one.accuracy is not None]
    highs = [one.accuracy.source + max(one.accuracy.high, 0) for one in shown if one.accuracy is not None]
    least, most = min([*lows, max(highs) - bounds.margin]), max(highs)
    spare = (most - least) * 0.08 or 0.05
    return x, _Scale(least - spare, most + spare, HEIGHT - _BOTTOM, _TOP)


def _axes(pen: _Pen, x: _Scale, y: _Scale, figures: outcomes.Figures) -> None:
    for value in _ticks(x):
        pen.line((x.at(value), _TOP), (x.at(value), HEIGHT - _BOTTOM), colour=_FAINT)
        pen.text(x.at(value), HEIGHT - _BOTTOM + 8, f"{value:g}", 15, "ma")
    for value in _ticks(y):
        pen.line((_LEFT, y.at(value)), (WIDTH - _RIGHT, y.at(value)), colour=_FAINT)
        pen.text(_LEFT - 10, y.at(value), f"{value:g}", 15, "rm")
    pen.line((_LEFT, _TOP), (_LEFT, HEIGHT - _BOTTOM), (WIDTH - _RIGHT, HEIGHT - _BOTTOM), width=1.5)
    scale = ", logarithmic" if x.logarithmic else ""
    pen.text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 34, f"median latency, ms{scale} (less is better)", 17, "mm")
    pen.upright(34, (_TOP + HEIGHT - _BOTTOM) / 2, f"accuracy against {figures.against} (more is better)", 17)


def _margin(pen: _Pen, x: _Scale, y: _Scale, figures: outcomes.Figures, bounds: gate.Bounds) -> None:
    accuracy = figures.source.accuracy
    assert accuracy is not None, "the source is compared with itself"
    level = y.at(accuracy.source - bounds.margin)
    at = float(_LEFT)
    while at < WIDTH - _RIGHT:
        pen.line((at, level), (min(at + 9, WIDTH - _RIGHT), level), colour=(232, 89, 12), width=1.6)
        at += 15
    text = f"margin: a bar that goes below {accuracy.source - bounds.margin:.3g} is refused"
    pen.text(WIDTH - _RIGHT - 6, level + 5, text, 14, "ra", (217, 72, 15))


def _mark(pen: _Pen, x: _Scale, y: _Scale, one: outcomes.Outcome, picked: bool) -> None:
    accuracy, colour = one.accuracy, COLOURS[one.state]
    assert accuracy is not None, "what is shown was compared"
    px, py = x.at(one.latency_ms), y.at(accuracy.candidate)
    low, high = y.at(accuracy.source + accuracy.low), y.at(accuracy.source + accuracy.high)
    pen.line((px, low), (px, high), colour=colour, width=1.6)
    for end in (low, high):
        pen.line((px - 5, end), (px + 5, end), colour=colour, width=1.6)
    if one.state == outcomes.SOURCE:
        pen.diamond(px, py, 10, colour)
    elif one.state == outcomes.REFUSED:
        pen.line((px - 6, py - 6), (px + 6, py + 6), colour=colour, width=3)
        pen.line((px - 6, py + 6), (px + 6, py - 6), colour=colour, width=3)
    else:
        pen.circle(px, py, 7, colour)
    if picked:
        pen.circle(px, py, 14, colour, filled=False)


def _names(pen: _Pen, x: _Scale, y: _Scale, shown: Sequence[outcomes.Outcome], named: set[str], margin: float) -> None:
    """A name beside each mark, moved up or down until it covers no other, nor the line of the margin."""
    taken = [(float(_LEFT), margin - 1, float(WIDTH), margin + 1), (WIDTH - 310.0, margin, float(WIDTH), margin + 22)]
    marks = [(x.at(one.latency_ms), y.at(one.accuracy.candidate), one) for one in shown if one.accuracy is not None]
    taken += [(px - 8, py - 8, px + 8, py + 8) for px, py, _ in marks]
    marks = [each for each in marks if each[2].name in named]
    for px, py, one in sorted(marks, key=lambda each: (each[1], each[0])):
        why = f" ({one.reasons[0].code})" if one.reasons else ""
        label = f"{one.name}, {one.size_bytes / 1e6:.1f} MB{why}"
        wide = pen.wide(label, 13)
        left = px + 20 if px + 24 + wide < WIDTH - _RIGHT else px - 20 - wide
        for step in range(40):
            shift = (step + 1) // 2 * 17 * (-1 if step % 2 else 1)
            box = (left, py + shift - 8, left + wide, py + shift + 8)
            free = all(box[2] < t[0] or box[0] > t[2] or box[3] <= t[1] or box[1] >= t[3] for t in taken)
            if free and box[1] >= _TOP and box[3] <= HEIGHT - _BOTTOM:
                break
        taken.append(box)
        middle = (box[1] + box[3]) / 2
        edge = left - 3 if left > px else left + wide + 3
        if abs(middle - py) > 12:
            pen.line((px, py), (edge, middle), colour=(173, 181, 189))
        pen.text(left, middle, label, 13, "lm", COLOURS[one.state])


def _legend(pen: _Pen) -> None:
    at = float(WIDTH - _RIGHT)
    for state, text in reversed(_LEGEND):
        at -= pen.wide(text, 15)
        pen.text(at, 92, text, 15, "lm")
        at -= 16
        colour = COLOURS[state]
        if state == outcomes.SOURCE:
            pen.diamond(at, 92, 8, colour)
        elif state == outcomes.ACCEPTED:
            pen.circle(at, 92, 6, colour)
        else:
            pen.line((at - 5, 87), (at + 5, 97), colour=colour, width=3)
            pen.line((at - 5, 97), (at + 5, 87), colour=colour, width=3)
        at -= 28


def _ticks(scale: _Scale) -> list[float]:
    """Round values within the scale: 1, 2, 5 of each power on a logarithmic one, five to ten equal steps else."""
    if scale.logarithmic:
        powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
        return [d * 10.0**p for p in powers for d in (1, 2, 5) if scale.low <= d * 10.0**p <= scale.high]
    span = scale.high - scale.low
    power = 10.0 ** math.floor(math.log10(span))
    step = next((power * part for part in (0.1, 0.2, 0.5, 1.0) if span / (power * part) <= 9), power)
    first = math.ceil(scale.low / step)
    return [round(at * step, 10) for at in range(first, math.floor(scale.high / step) + 1)]
