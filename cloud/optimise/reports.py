"""report.json: everything that was asked, measured and decided, the refused and the passed over with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloud.optimise import certificates, gate, outcomes, saturation, targets


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """`digests` are SHA-256 in hex of source, calibration and evaluation; `verdict` is one sentence.

    `saturation` tells, for each form that was narrowed, of every multiplying node whether it got 7 bits, and why.
    """

    format: int
    verdict: str
    target: targets.Target
    machine: dict[str, Any]
    bounds: gate.Bounds
    digests: Mapping[str, str]
    figures: outcomes.Figures
    saturation: Mapping[str, tuple[saturation.Layer, ...]] = {}


def verdict(figures: outcomes.Figures) -> str:
    """One sentence; it says optimised only of a model that is not the source."""
    if not figures.best:
        return "The source wins: no accepted candidate is faster, nothing was optimised."
    best, source = figures.named(figures.best), figures.source
    assert best.accuracy is not None, "an accepted candidate was compared"
    return (
        f"Optimised: {best.name}, {source.latency_ms / best.latency_ms:.2f} times as fast as the source "
        f"({best.latency_ms:.2f} ms against {source.latency_ms:.2f} ms), {best.size_bytes / source.size_bytes:.0%} of its "
        f"size, {best.accuracy.candidate:.4f} ({best.accuracy.source + best.accuracy.low:.4f} to "
        f"{best.accuracy.source + best.accuracy.high:.4f}) in {figures.metric}."
    )


def write(
    figures: outcomes.Figures,
    target: targets.Target,
    bounds: gate.Bounds,
    digests: Mapping[str, str],
    layers: Mapping[str, tuple[saturation.Layer, ...]],
) -> bytes:
    """The bytes of report.json; `layers` are its `saturation`."""
    kind, features = certificates.machine()
    machine = {"class": kind, "features": list(features)}
    report = Report(1, verdict(figures), target, machine, bounds, digests, figures, layers)
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
