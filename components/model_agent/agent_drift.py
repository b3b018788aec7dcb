"""Whether a model still sees and says what it did when it was made (pure statistics; the shell is agent_drift_watch.py).

`reference` in model.json has, for each feature of inputs and outputs, the inner edges of its bins and the share of each:

    {"inputs": {name: [{"edges": [e1, ..., ek], "shares": [s0, ..., sk], "psi": 0.4}, ...]}, "outputs": {the same}}

Bin 0 is below e1, bin i from e(i) to below e(i+1). `psi` may be left out (below). Features of a tensor: the columns of one
with two axes (64 at most), the values of one with one; mean, standard deviation and largest value of each item of all
others (images, boxes, many columns).
Items are counted into windows of `windowSamples`. A window has drifted if
  - an input's population stability index is above `psiAbove`: sum of (share - reference) * ln(share / reference), or
  - an output's chi-square test against the reference has p below `outputPBelow` divided by the number of output features.
`consecutive` drifted windows in a row are drift; one window that is not ends the row.

Both suppose that the items of a window are drawn like those of the reference. Where the world moves slowly (weather,
seasons) no window is, and everything looks drifted. Then the reference is made from data in order, with the window's length:
`psi` of a feature is the largest index that any window of the data itself had, and only what is above 1.25 of it (and above
`psiAbove`) counts; outputs with a `psi` are judged by it, too, not by the test.

`drift` of a model's settings; an empty section watches nothing:

    {"windowSamples": 1000, "psiAbove": 0.2, "outputPBelow": 0.001, "consecutive": 3, "action": "report" | "rollback"}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import agent_settings
import numpy as np

Array = np.ndarray[Any, Any]
FEATURES_LIMIT = 64
BINS_LIMIT = 64
BINS = 10
ACTIONS = ("report", "rollback")
_MARGIN = 1.25  # over the largest index of the reference's own windows
_LEAST_SHARE = 1e-4  # of a bin that the reference never saw
_EXPECTED_LEAST = 5.0  # items a bin of the chi-square test needs (Cochran's rule)
_KINDS = ("inputs", "outputs")


@dataclass(frozen=True)
class Rules:
    """What counts as drift, and what follows."""

    window: int = 1000
    psi_above: float = 0.2
    p_below: float = 0.001
    consecutive: int = 3
    action: str = "report"


@dataclass(frozen=True)
class Feature:
    """One feature's bins; `where` is inputs or outputs, `name` the tensor, `place` the number within it.

    `psi` is the largest stability index of the reference's own windows, None if they were not looked at.
    """

    where: str
    name: str
    place: int
    edges: Array
    shares: Array  # positive, sum 1
    psi: float | None = None

    @property
    def tested(self) -> bool:
        """Whether it is judged by the test, not by the index."""
        return self.where == "outputs" and self.psi is None


@dataclass(frozen=True)
class Finding:
    """One full window: the worst by index (against its limit) and by test, named `tensor[place]`; `drifted` by the rules."""

    items: int
    drifted: bool
    psi: float = 0.0
    psi_of: str = ""
    psi_limit: float = 0.0
    p: float = 1.0
    p_of: str = ""


class Window:
    """Counts items until the window is full."""

    def __init__(self, features: tuple[Feature, ...]) -> None:
        self.items = 0
        self._features = features
        self._counts = [np.zeros(len(feature.shares), np.int64) for feature in features]

    def add(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Counts the items of one request; tensors without a reference, and the other way round, are passed over."""
        found = {("inputs", name): values(array) for name, array in inputs.items()}
        found |= {("outputs", name): values(array) for name, array in outputs.items()}
        for feature, counts in zip(self._features, self._counts, strict=True):
            columns = found.get((feature.where, feature.name))
            if columns is None or feature.place >= columns.shape[1]:
                continue
            bins = np.searchsorted(feature.edges, columns[:, feature.place], side="right")
            counts += np.bincount(bins, minlength=len(counts))
        self.items += max((len(columns) for columns in found.values()), default=0)

    def judge(self, rules: Rules) -> Finding:
        """What the counts say."""
        worst, drifted = (0.0, 0.0, "", 0.0), False  # excess, index, of what, limit
        p, p_of = 1.0, ""
        tests = sum(feature.tested for feature in self._features)
        for feature, counts in zip(self._features, self._counts, strict=True):
            label = f"{feature.name}[{feature.place}]"
            if not counts.sum():
                continue
            if feature.tested:
                p, p_of = min((p, p_of), (chi_square_p(counts, feature.shares), label))
                continue
            limit = max(rules.psi_above, _MARGIN * (feature.psi or 0.0))
            index = stability_index(counts, feature.shares)
            drifted |= index > limit
            worst = max(worst, (index / limit if limit else math.inf, index, label, limit))
        drifted |= p * tests < rules.p_below * bool(tests)
        return Finding(self.items, drifted, *worst[1:], p, p_of)


class Row:
    """Counts drifted windows in a row."""

    def __init__(self) -> None:
        self.length = 0

    def add(self, finding: Finding, rules: Rules) -> bool:
        """Whether drift begins with this window: once for each row."""
        self.length = self.length + 1 if finding.drifted else 0
        return self.length == rules.consecutive


def reference(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array], bins: int = BINS, window: int = 0
) -> dict[str, Any]:
    """The section `reference` for a model from data it was made with: arrays by tensor name, items along the first axis.

    With `window` (the `windowSamples` to come) the items must be in the order in which they came, and `psi` is added.
    Raises ValueError for data that is empty or no number.
    """
    return {
        kind: {name: [_binned(column, bins, window) for column in values(array).T] for name, array in arrays.items()}
        for kind, arrays in zip(_KINDS, (inputs, outputs), strict=True)
    }


def read_reference(given: Any) -> tuple[Feature, ...]:
    """The features of a `reference`; none for an empty one. Raises ValueError."""
    if not isinstance(given, Mapping):
        raise ValueError("reference is no object")
    features = []
    for kind in _KINDS:
        for name, columns in given.get(kind, {}).items():
            if not isinstance(columns, list) or len(columns) > FEATURES_LIMIT:
                raise ValueError(f"reference: {kind} {name} must be a list of at most {FEATURES_LIMIT} features")
            features += [_feature(kind, str(name), place, one) for place, one in enumerate(columns)]
    return tuple(features)


def read(given: Mapping[str, Any]) -> Rules | None:
    """None for an empty section. Raises agent_settings.SettingsError."""
    if not given:
        return None
    action = given.get("action", "report")
    if action not in ACTIONS:
        raise agent_settings.SettingsError(
            f"settings: drift.action is {action!r}, it must be one of {', '.join(ACTIONS)}"
        )
    return Rules(
        window=int(_number(given, "windowSamples", 1000, 100, 10**7)),
        psi_above=_number(given, "psiAbove", 0.2, 0.0, 100.0),
        p_below=_number(given, "outputPBelow", 0.001, 0.0, 1.0),
        consecutive=int(_number(given, "consecutive", 3, 1, 1000)),
        action=action,
    )


def values(array: Array) -> Array:
    """The features of a tensor: items by features, float64."""
    if array.ndim < 2:
        return array.reshape(-1, 1).astype(np.float64)
    columns = math.prod(array.shape[1:])
    flat = array.reshape(len(array), columns).astype(np.float64)
    if array.ndim == 2 and columns <= FEATURES_LIMIT:
        return flat
    if not flat.size:
        return np.zeros((0, 3))
    return np.stack([flat.mean(axis=1), flat.std(axis=1), flat.max(axis=1)], axis=1)


def stability_index(counts: Array, shares: Array) -> float:
    """The population stability index; half an item is added to each bin, so that an empty one is finite."""
    found = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return float(((found - shares) * np.log(found / shares)).sum())


def chi_square_p(counts: Array, shares: Array) -> float:
    """Pearson's test: how likely counts at least this far from the shares are; neighbours are pooled until each expects 5."""
    expected = shares * counts.sum()
    pooled: list[list[float]] = []
    for count, want in zip(counts.tolist(), expected.tolist(), strict=True):
        if pooled and (pooled[-1][1] < _EXPECTED_LEAST or want < _EXPECTED_LEAST):
            pooled[-1][0] += count
            pooled[-1][1] += want
        else:
            pooled.append([count, want])
    if len(pooled) > 1 and pooled[-1][1] < _EXPECTED_LEAST:
        count, want = pooled.pop()
        pooled[-1][0] += count
        pooled[-1][1] += want
    statistic = sum((count - want) ** 2 / want for count, want in pooled)
    return upper_gamma((len(pooled) - 1) / 2, statistic / 2) if len(pooled) > 1 else 1.0


def upper_gamma(a: float, x: float) -> float:
    """Q(a, x), the upper regularised incomplete gamma function: series below a + 1, continued fraction (Lentz) above."""
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a)) if x < 700 + a else 0.0
    if x < a + 1:
        term = total = 1.0 / a
        n = a
        while abs(term) > 1e-15 * abs(total):
            n += 1
            term *= x / n
            total += term
        return max(1.0 - total * scale, 0.0)
    b, c = x + 1 - a, 1e300
    d = 1 / b
    h = d
    for i in range(1, 1000):
        an = -i * (i - a)
        b += 2
        d = 1 / (an * d + b)
        c = b + an / c
        h *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return min(scale * h, 1.0)


def _binned(column: Array, bins: int, window: int) -> dict[str, Any]:
    if not len(column) or not np.isfinite(column).all():
        raise ValueError("cannot make a reference: every feature needs data, all of it finite numbers")
    edges = np.unique(np.quantile(column, np.arange(1, bins) / bins, method="inverted_cdf"))
    if len(edges) == 1:  # a constant, or nearly: what is below, at and above it
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    places = np.searchsorted(edges, column, side="right")
    shares = [round(share, 9) for share in (np.bincount(places, minlength=len(edges) + 1) / len(column)).tolist()]
    found = {"edges": edges.tolist(), "shares": shares}
    if not window:
        return found
    if len(column) < 2 * window:
        raise ValueError(f"cannot make a reference: {len(column)} items are less than two windows of {window}")
    positive = _positive(np.array(shares))
    starts = range(0, len(column) - window + 1, max(window // 4, 1))
    counts = (np.bincount(places[start : start + window], minlength=len(shares)) for start in starts)
    return {**found, "psi": round(max(stability_index(each, positive) for each in counts), 6)}


def _positive(shares: Array) -> Array:
    floored = np.maximum(shares, _LEAST_SHARE)
    return np.asarray(floored / floored.sum())


def _feature(kind: str, name: str, place: int, given: Any) -> Feature:
    label = f"reference: {kind} {name}[{place}]"
    edges, shares = np.asarray(given["edges"], np.float64), np.asarray(given["shares"], np.float64)
    if edges.ndim != 1 or shares.shape != (len(edges) + 1,) or not 1 <= len(edges) < BINS_LIMIT:
        raise ValueError(f"{label}: there must be one more share than edges, and 2 to {BINS_LIMIT} shares")
    if not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise ValueError(f"{label}: edges must be finite and ascending")
    if not (shares >= 0).all() or not abs(float(shares.sum()) - 1) < 1e-3:
        raise ValueError(f"{label}: shares must be positive and add up to 1")
    psi = given.get("psi")
    if psi is not None and (isinstance(psi, bool) or not isinstance(psi, int | float) or not 0 <= psi < math.inf):
        raise ValueError(f"{label}: psi is {psi!r}, it must be a number")
    return Feature(kind, name, place, edges, _positive(shares), psi)


def _number(given: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise agent_settings.SettingsError(f"settings: drift.{key} is {value!r}, it must be {least:g} to {most:g}")
    return float(value)
