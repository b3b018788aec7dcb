"""Drift: statistics against known values, false alarms by simulation, real shifts, the return to the version before."""

from __future__ import annotations

import csv
import gzip
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import agent_check
import agent_drift
import agent_drift_watch
import agent_engine
import agent_settings
import numpy as np
import pytest

from tests.components import parts

SEED = 20261124
ITEMS = 20_000  # of a reference
WINDOW = 500
Array = np.ndarray[Any, Any]


def data(random: np.random.Generator, count: int, shift: float = 0.0) -> tuple[dict[str, Array], dict[str, Array]]:
    """Four features of different shapes, one output with a heavy tail."""
    x = np.stack(
        [
            random.normal(8 + shift, 3, count),
            random.exponential(2, count),
            random.uniform(0, 1, count),
            random.poisson(3, count),
        ],
        axis=1,
    )
    y = (x[:, :1] ** 2 + random.normal(0, 5, (count, 1))).astype(np.float32)
    return {"x": x.astype(np.float32)}, {"y": y}


def made_reference(random: np.random.Generator) -> tuple[agent_drift.Feature, ...]:
    return agent_drift.read_reference(agent_drift.reference(*data(random, ITEMS)))


def window(
    features: tuple[agent_drift.Feature, ...], inputs: dict[str, Array], outputs: dict[str, Array]
) -> agent_drift.Window:
    made = agent_drift.Window(features)
    made.add(inputs, outputs)
    return made


# ---- statistics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "x", "expected"),
    # P(chi-square > 2x) with 2a degrees of freedom, from published tables (Abramowitz and Stegun, table 26.8)
    [
        (0.5, 3.841459 / 2, 0.05),
        (4.5, 16.918978 / 2, 0.05),
        (4.5, 27.877165 / 2, 0.001),
        (15, 50.892181 / 2, 0.01),
        (15, 0.0, 1.0),
    ],
)
def test_chi_square_tail_when_compared_with_the_tables_then_equal(a: float, x: float, expected: float) -> None:
    assert agent_drift.upper_gamma(a, x) == pytest.approx(expected, rel=1e-5)


def test_stability_index_when_counted_by_hand_then_equal() -> None:
    counts, shares = np.array([500, 300, 200]), np.array([0.4, 0.4, 0.2])

    index = agent_drift.stability_index(counts, shares)

    by_hand = 0.1 * np.log(0.5 / 0.4) + -0.1 * np.log(0.3 / 0.4)
    assert index == pytest.approx(by_hand, rel=0.02)  # half an item is added to each bin


def test_chi_square_when_bins_expect_few_items_then_pooled_with_neighbours() -> None:
    shares = np.array([0.001, 0.499, 0.499, 0.001])

    assert agent_drift.chi_square_p(np.array([1, 49, 50, 0]), shares) == pytest.approx(1.0)
    assert agent_drift.chi_square_p(np.array([0, 90, 10, 0]), shares) < 1e-12


def test_chi_square_when_nothing_drifts_then_p_is_uniform() -> None:
    random = np.random.default_rng(SEED)
    shares = np.full(10, 0.1)

    found = np.array([agent_drift.chi_square_p(random.multinomial(1000, shares), shares) for _ in range(2000)])

    for level in (0.01, 0.05, 0.5):
        assert abs((found < level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 2000)


def test_false_alarms_when_nothing_drifts_then_below_the_stated_rate_and_never_three_in_a_row() -> None:
    """Stated in components/README.md: of windows of 500 items with 4 inputs and 1 output fewer than 0.2 % look drifted."""
    random = np.random.default_rng(SEED)
    features, rules, row = made_reference(random), agent_drift.Rules(window=WINDOW), agent_drift.Row()
    windows = 3000

    findings = [window(features, *data(random, WINDOW)).judge(rules) for _ in range(windows)]

    drifted = sum(finding.drifted for finding in findings)
    events = sum(row.add(finding, rules) for finding in findings)
    assert drifted <= 0.002 * windows + 3 * np.sqrt(0.002 * windows)
    assert events == 0
    assert max(finding.psi for finding in findings) < 0.1


@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_shift_when_an_input_moves_by_two_thirds_of_its_deviation_then_found_at_once(shift: float) -> None:
    random = np.random.default_rng(SEED)
    features, rules, row = made_reference(random), agent_drift.Rules(window=WINDOW), agent_drift.Row()

    findings = [window(features, *data(random, WINDOW, shift)).judge(rules) for _ in range(20)]

    assert [row.add(finding, rules) for finding in findings] == [False, False, True, *[False] * 17]
    assert all(finding.psi_of == "x[0]" and finding.p_of == "y[0]" and finding.p < 1e-6 for finding in findings)


def test_shift_when_only_the_answers_change_then_found_by_the_output_test() -> None:
    random = np.random.default_rng(SEED)
    features, rules = made_reference(random), agent_drift.Rules(window=WINDOW)
    inputs, outputs = data(random, WINDOW)

    finding = window(features, inputs, {"y": outputs["y"] * 1.3}).judge(rules)

    assert finding.drifted
    assert finding.psi < rules.psi_above
    assert (finding.p_of, finding.p < 1e-4) == ("y[0]", True)


def slow(random: np.random.Generator, count: int) -> Array:
    """A world that moves slowly: each value is close to the one before (AR(1), about 200 items long)."""
    noise, found, value = random.normal(0, 0.1, count), np.empty((count, 1)), 0.0
    for number in range(count):
        value = 0.995 * value + noise[number]
        found[number] = value
    return found


def test_reference_when_made_in_order_then_a_slow_world_is_no_drift_and_a_broken_sensor_is() -> None:
    random = np.random.default_rng(SEED)
    learned, later = slow(random, 100_000), slow(random, 100_000)
    long = 5000  # against the 200
    rules = agent_drift.Rules(window=long)
    careless, careful = (
        agent_drift.read_reference(agent_drift.reference({"x": learned}, {"y": learned}, window=of)) for of in (0, long)
    )
    stuck = np.full((long, 1), 0.3)

    counted = [
        [window(features, {"x": part}, {"y": part}).judge(rules).drifted for part in np.split(later, 20)]
        for features in (careless, careful)
    ]
    broken = window(careful, {"x": stuck}, {"y": stuck}).judge(rules)

    assert sum(counted[0]) > 15
    assert sum(counted[1]) <= 1
    assert (broken.drifted, broken.psi > broken.psi_limit, broken.p_of) == (True, True, "")


def measured_year(turbine: str) -> Array:
    """Wind speed and outdoor temperature, every ten minutes from December 2014 to November 2015."""
    with gzip.open(parts.MONITOR / "scada.csv.gz", "rt", newline="") as text:
        rows = [line[3:6:2] for line in csv.reader(text) if line[0] == turbine and all(line)]
    found = np.array(rows, np.float64)
    return found[(found[:, 1] > -40) & (found[:, 1] < 60)]


def learned_season() -> Array:
    with gzip.open(parts.MODEL / "training/scada_2014.csv.gz", "rt", newline="") as text:
        rows = [line[3:6:2] for line in list(csv.reader(text))[1:] if line[0] == "R80711" and all(line)]
    return np.array(rows, np.float64)


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        (lambda x: x, 0.0, 0.25),
        (lambda x: x * [1.4, 1], 0.8, 1.0),
        (lambda x: x * [0, 1] + [5.3, 0], 1.0, 1.0),
        (lambda x: x + np.array([0, 15]), 0.5, 1.0),
    ],
    ids=["healthy", "wind 40 % too high", "wind stuck", "15 degrees too warm"],
)
def test_turbine_when_watched_for_a_year_by_fortnights_then_faults_stand_out(
    fault: Any, least: float, most: float
) -> None:
    """The shares of windows that drift, as components/README.md states them: ten months are learned, a year is watched."""
    fortnight = 2016
    features = agent_drift.read_reference(agent_drift.reference({"x": learned_season()}, {}, window=fortnight))
    year = fault(measured_year("R80711"))
    rules = agent_drift.Rules(window=fortnight)

    windows = [year[start : start + fortnight] for start in range(0, len(year) - fortnight, fortnight)]
    drifted = [window(features, {"x": part}, {}).judge(rules).drifted for part in windows]

    assert len(drifted) >= 24
    assert least <= sum(drifted) / len(drifted) <= most


def test_row_when_a_good_window_comes_between_then_it_begins_anew() -> None:
    rules, row = agent_drift.Rules(consecutive=2), agent_drift.Row()
    findings = [agent_drift.Finding(1, drifted) for drifted in (True, False, True, True, True, False, True, True)]

    assert [row.add(finding, rules) for finding in findings] == [False, False, False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("shape", "features"),
    [((), 1), ((7,), 1), ((7, 3), 3), ((7, 65), 3), ((2, 3, 4, 4), 3), ((0, 3), 3), ((0, 3, 3), 3)],
    ids=str,
)
def test_values_when_of_any_shape_then_items_by_features(shape: tuple[int, ...], features: int) -> None:
    found = agent_drift.values(np.ones(shape, np.float32))

    assert found.shape == (shape[0] if shape else 1, features)
    assert found.dtype == np.float64


def test_reference_when_a_feature_is_constant_or_has_few_values_then_a_change_is_seen() -> None:
    random = np.random.default_rng(SEED)
    inputs = {"x": np.stack([np.full(1000, 5.0), random.integers(0, 2, 1000)], axis=1)}
    features = agent_drift.read_reference(agent_drift.reference(inputs, {}))
    changed = {"x": np.stack([np.full(200, 5.1), random.integers(0, 2, 200)], axis=1)}

    same, moved = (window(features, x, {}).judge(agent_drift.Rules()) for x in (inputs, changed))

    assert (same.drifted, moved.drifted, moved.psi_of) == (False, True, "x[0]")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "no object"),
        ({"inputs": {"x": [{"edges": [1.0], "shares": [1.0]}]}}, "one more share"),
        ({"inputs": {"x": [{"edges": [2.0, 1.0], "shares": [0.2, 0.3, 0.5]}]}}, "ascending"),
        ({"inputs": {"x": [{"edges": [1.0], "shares": [0.2, 0.3]}]}}, "add up to 1"),
        ({"outputs": {"x": [{}] * 65}}, "at most 64"),
        ({"inputs": {"x": [{"edges": [1.0], "shares": [0.2, 0.8], "psi": -1}]}}, "psi is -1"),
    ],
)
def test_reference_when_it_means_nothing_then_refused_with_the_place(given: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        agent_drift.read_reference(given)


def test_offer_when_the_reference_is_wrong_then_refused(tmp_path: Any) -> None:
    def spoil(described: dict[str, Any]) -> None:
        described["reference"] = {"inputs": {"conditions": [{"edges": [], "shares": [1.0]}]}}

    folder = parts.changed_model(tmp_path / "m", spoil)

    with pytest.raises(agent_check.RefusedError, match=r"inputs conditions\[0\]"):
        agent_check.read_manifest((folder / "model.json").read_bytes())


@pytest.mark.parametrize(
    "given",
    [{"action": "explode"}, {"windowSamples": 10}, {"psiAbove": True}, {"consecutive": 0}, {"outputPBelow": 2}],
    ids=str,
)
def test_settings_when_they_mean_nothing_then_refused_with_the_key(given: dict[str, Any]) -> None:
    with pytest.raises(agent_settings.SettingsError, match=next(iter(given))):
        agent_drift.read(given)


# ---- watching ------------------------------------------------------------------------------------------------------------


class Shop:
    """Aliases of two versions: an alias table that works, without models."""

    def __init__(self, features: tuple[agent_drift.Feature, ...], action: str, versions: int = 2) -> None:
        settings = agent_settings.Settings(drift={"windowSamples": WINDOW, "action": action, "consecutive": 2})
        model = SimpleNamespace(
            manifest=SimpleNamespace(reference=features), predict=lambda inputs: {"y": inputs["x"][:, :1] ** 2}
        )
        self.versions = [
            SimpleNamespace(model=model, component="c", version=f"1.{number}.0", digest=str(number), settings=settings)
            for number in range(versions)
        ]
        self.holds: list[tuple[str, str, str]] = []

    def serving(self, alias: str) -> Any:
        return self.versions[-1]

    def hold(self, alias: str, by: str, reason: str) -> str:
        if len(self.versions) == 1:
            raise agent_check.RefusedError("NO_PREVIOUS: there is no version before")
        self.holds.append((alias, by, reason))
        self.versions.pop()
        return "held"


class Heard:
    """A publisher that remembers."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, dict[str, Any]]] = []
        self.came = threading.Event()

    def publish(self, alias: str, kind: str, fields: Any, *, local: bool = True, cloud: bool = True) -> None:
        self.messages.append((alias, kind, dict(fields)))
        self.came.set()

    def counts(self) -> dict[str, int]:
        return {}

    def close(self, within_s: float = 1.0) -> None:
        pass


class Watching:
    def __init__(self, action: str, versions: int = 2) -> None:
        self.random = np.random.default_rng(SEED)
        x, _ = data(self.random, ITEMS)
        features = agent_drift.read_reference(agent_drift.reference(x, {"y": x["x"][:, :1] ** 2}))
        self.shop, self.heard = Shop(features, action, versions), Heard()
        self.drift = agent_drift_watch.Drift(self.shop, self.heard)
        self.engine = agent_engine.Engine(self.shop.serving)
        self.engine.observers.append(self.drift.observe)

    def ask(self, windows: int, shift: float) -> None:
        """Requests of 25 items; after each window waits until it is judged."""
        for _ in range(windows):
            version = self.shop.serving("a")
            self.engine.predict(
                "a", data(self.random, 25, shift)[0], 1e12
            )  # a version that is new is watched from here on
            before = self.drift.figures("a")["windows"]
            for _ in range(WINDOW // 25 - 1):
                self.engine.predict("a", data(self.random, 25, shift)[0], 1e12)
            parts.until(
                lambda before=before, version=version: (
                    self.drift.figures("a").get("windows", 0) > before or self.shop.serving("a") is not version
                ),
                "the window to be judged",
            )


@pytest.fixture
def watching(request: pytest.FixtureRequest) -> Iterator[Watching]:
    made = Watching(*request.param)
    yield made
    made.drift.close()


@pytest.mark.parametrize("watching", [("report",)], indirect=True)
def test_watch_when_inputs_shift_then_one_event_with_its_figures(watching: Watching) -> None:
    watching.ask(3, 0.0)
    assert watching.heard.messages == []

    watching.ask(4, 3.0)

    assert watching.heard.came.wait(20)
    ((alias, kind, fields),) = watching.heard.messages
    assert (alias, kind, fields["outcome"], fields["version"]) == ("a", "drift", "reported", "1.1.0")
    assert (fields["psiOf"], fields["psi"] > 0.2, fields["outputP"] < 0.001) == ("x[0]", True, True)
    assert "population stability index" in fields["message"]
    assert watching.shop.holds == []
    figures = watching.drift.figures("a")
    assert (figures["windows"], figures["drifted"], figures["events"], figures["dropped"]) == (7, 4, 1, 0)


@pytest.mark.parametrize("watching", [("rollback",)], indirect=True)
def test_watch_when_told_to_roll_back_then_the_alias_is_held_and_the_version_before_is_watched_anew(
    watching: Watching,
) -> None:
    watching.ask(2, 3.0)

    assert watching.heard.came.wait(20)
    ((_, _, fields),) = watching.heard.messages
    assert (fields["outcome"], fields["version"], fields["message"]) == ("held", "1.1.0", "held")
    ((alias, by, reason),) = watching.shop.holds
    assert (alias, by) == ("a", "drift")
    assert "2 windows of 500 in a row" in reason
    watching.ask(1, 0.0)
    assert watching.drift.figures("a")["drifted"] == 0


@pytest.mark.parametrize("watching", [("rollback", 1)], indirect=True)
def test_watch_when_there_is_no_version_before_then_reported_and_nothing_changes(watching: Watching) -> None:
    watching.ask(4, 3.0)

    assert watching.heard.came.wait(20)
    ((_, _, fields),) = watching.heard.messages
    assert fields["outcome"] == "refused"
    assert "NO_PREVIOUS" in fields["message"]
    assert watching.shop.serving("a").version == "1.0.0"


@pytest.mark.parametrize("watching", [("rollback", 1)], indirect=True)
def test_watch_when_the_hold_is_possible_later_then_it_comes_with_the_next_drifted_window(watching: Watching) -> None:
    watching.ask(3, 3.0)
    watching.shop.versions.insert(0, watching.shop.versions[0])  # as when a trial ends, which forbids a hold

    watching.ask(1, 3.0)

    parts.until(lambda: len(watching.heard.messages) == 2, "the second message")
    assert [fields["outcome"] for _, _, fields in watching.heard.messages] == ["refused", "held"]
    assert len(watching.shop.holds) == 1


@pytest.mark.parametrize("watching", [("report",)], indirect=True)
def test_watch_when_a_trial_answers_then_its_answers_are_not_counted(watching: Watching) -> None:
    candidate = SimpleNamespace(
        **{**vars(watching.shop.serving("a")), "digest": "other", "settings": agent_settings.Settings()}
    )
    watching.ask(1, 0.0)
    watching.engine.route = lambda alias, serving: candidate

    for _ in range(100):
        watching.engine.predict("a", data(watching.random, 25, 3.0)[0], 1e12)

    watching.engine.route = lambda alias, serving: serving
    watching.ask(1, 0.0)
    assert watching.drift.figures("a")["drifted"] == 0
