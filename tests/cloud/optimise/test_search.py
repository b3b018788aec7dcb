from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloud.optimise import bench, candidates, forms, gate, outcomes, reports, runtimes, samples, scores, search, targets
from tests.cloud.optimise import labs, models, strange

TARGET = targets.Target("board", threads=2)
BOUNDS = gate.Bounds(margin=0.05, class_margin=0.2)
WIDE = gate.Bounds(margin=0.2, class_margin=0.5)  # a small network's answers move more, and differ between CPUs
HELD = samples.made({"x": np.zeros((60, 1), np.float32)})
LISTED = candidates.listed(TARGET)
LEVELS = dict(zip(runtimes.LEVELS, (1.0, 1.1, 1.3, 2.0), strict=True))


def _search(
    lab: search.Lab,
    listed: tuple[candidates.Candidate, ...] = LISTED,
    held: samples.Samples = HELD,
    *,
    exhaustive: bool = False,
    bounds: gate.Bounds = BOUNDS,
) -> outcomes.Figures:
    plan = search.Plan(exhaustive=exhaustive, rounds=2, runs=2, final_rounds=2)
    return search.Search(lab, scores.Metric("top1"), held, bounds, TARGET, plan, lambda line: None).run(listed)


def _usual(one: candidates.Candidate) -> float:
    return {"static": 4.0, "dynamic": 20.0, "fp16": 12.0}.get(one.form.kind, 10.0) * LEVELS[one.settings.level]


def _loss(one: candidates.Candidate) -> float:
    return 0.3 if one.form.kind == "dynamic" or (not one.form.per_channel and one.form.kind == "static") else 0.0


def test_run_when_forms_differ_then_the_fastest_accepted_is_picked_and_each_refusal_has_its_reason() -> None:
    found = _search(labs.Paper(HELD, _usual, _loss))

    assert found.named(found.best).form == "INT8 per-channel U8S8"
    assert found.source.name == "source"
    assert {one.name for one in found.outcomes} == {one.name for one in LISTED}
    told = {one.name: [each.code for each in one.reasons] for one in found.outcomes if one.state != outcomes.ACCEPTED}
    assert told.pop("source") == []
    assert all(told.values())
    assert "MARGIN" in told["INT8 dynamic"]
    assert "MARGIN" in told["INT8 per-tensor S8S8"]
    assert found.named("fp16").state == outcomes.ACCEPTED


def test_run_when_pruned_then_hopeless_forms_cost_a_slice_and_slow_ones_one_look() -> None:
    pruned, whole = labs.Paper(HELD, _usual, _loss), labs.Paper(HELD, _usual, _loss)
    found = _search(pruned)
    _search(whole, exhaustive=True)

    accuracy = found.named("INT8 dynamic").accuracy
    assert accuracy is not None
    assert accuracy.samples == search.SLICE
    assert len(pruned.entered) < len(whole.entered) / 2
    assert pruned.answered < whole.answered / 2


@pytest.mark.parametrize("seed", range(8))
def test_run_when_pruned_then_its_pick_is_within_five_percent_of_the_exhaustive_one(seed: int) -> None:
    # Costs as machines have them: a form decides most, a setting something, some pairs surprise. Losses of either kind.
    draw = random.Random(seed)
    forms_ms = {form.name: draw.uniform(3, 25) for form in candidates.FORMS}
    levels = {level: draw.uniform(0.85, 2.5) if level != "all" else 1.0 for level in runtimes.LEVELS}
    threads = {1: 1.0, 2: draw.uniform(0.65, 1.8)}
    losses = {form.name: draw.choice([0.0, 0.0, 0.01, 0.2]) for form in candidates.FORMS}
    surprise = {one.name: draw.uniform(0.95, 1.1) for one in LISTED}

    def cost(one: candidates.Candidate) -> float:
        settings = one.settings
        return forms_ms[one.form.name] * levels[settings.level] * threads[settings.threads] * surprise[one.name]

    def loss(one: candidates.Candidate) -> float:
        return 0.0 if one.form.kind == "source" else losses[one.form.name]

    pruned = _search(labs.Paper(HELD, cost, loss))
    whole = _search(labs.Paper(HELD, cost, loss), exhaustive=True)

    best = {found.exhaustive: found.named(found.best) if found.best else found.source for found in (pruned, whole)}
    assert best[False].latency_ms <= best[True].latency_ms * 1.05


def test_run_when_nothing_is_faster_then_the_source_wins_and_nobody_says_optimised() -> None:
    found = _search(labs.Paper(HELD, lambda one: 10.0 if one.form.kind == "source" else 9.9, lambda one: 0.0))

    assert found.best == ""
    assert "ptimised: " not in reports.verdict(found)
    assert "nothing was optimised" in reports.verdict(found)


def test_run_when_only_a_setting_of_the_source_is_faster_then_the_source_wins() -> None:
    def cost(one: candidates.Candidate) -> float:
        return 5.0 if one.settings.threads == 2 else 10.0

    found = _search(labs.Paper(HELD, cost, lambda one: 0.0 if one.form.kind == "source" else 0.5))

    assert found.best == ""


def test_run_when_two_are_as_fast_then_one_thread_is_preferred() -> None:
    found = _search(labs.Paper(HELD, lambda one: 10.0 if one.form.kind == "source" else 4.0, lambda one: 0.0))

    assert found.named(found.best).settings.threads == 1


def test_same_when_turns_cannot_tell_then_it_is_and_when_one_always_loses_it_is_not() -> None:
    one, other = (outcomes.begun(each) for each in LISTED[:2])
    fastest, near = (msgspec.structs.replace(each, ratio=ratio) for each, ratio in ((one, 0.60), (other, 0.64)))
    turns = {fastest.name: [5.0, 7.0, 5.0, 7.0]}

    assert search._is_same(near, fastest, {**turns, near.name: [6.0, 6.0, 6.0, 6.0]})
    assert not search._is_same(near, fastest, {**turns, near.name: [5.5, 7.5, 5.5, 7.5]})
    assert not search._is_same(near, fastest, {})


def _of(*names: str, runtime: str = "onnxruntime") -> list[candidates.Candidate]:
    levels = ("all", "disabled") if runtime == "onnxruntime" else ("all",)
    return [
        candidates.Candidate(candidates.form(name), runtime, runtimes.Settings(level))
        for name in names
        for level in levels
    ]


def test_run_when_a_small_cnn_is_searched_both_ways_then_the_picks_agree(tmp_path: Path) -> None:
    listed = tuple(_of("source", "fp16", "INT8 per-channel U8S8 narrow", "INT8 dynamic"))
    held = samples.made({"image": models.images(60, seed=5)})
    maker = forms.Maker(models.cnn(tmp_path / "cnn.onnx"), samples.made({"image": models.images(20)}), tmp_path)
    labs_ = [labs.Timetable(maker, bench.Bench(held, tmp_path), _usual) for _ in range(2)]

    pruned, whole = (_search(lab, listed, held, exhaustive=lab is labs_[1], bounds=WIDE) for lab in labs_)

    assert pruned.best == whole.best == "INT8 per-channel U8S8 narrow"
    assert pruned.named(pruned.best).accuracy == whole.named(whole.best).accuracy
    assert pruned.named(pruned.best).latency_ms <= whole.named(whole.best).latency_ms * 1.05
    assert pruned.measured < whole.measured == len(listed)
    assert pruned.source.deviation == 0
    assert pruned.named("fp16").size_bytes < pruned.source.size_bytes


def test_run_when_a_runtime_lowers_precision_or_dies_then_refused_and_the_others_go_on(tmp_path: Path) -> None:
    listed = (
        *_of("source"),
        *_of("source", runtime=strange.HALVED),
        *_of("source", runtime=strange.DYING),
        *_of("INT8 per-channel U8S8 narrow"),
    )
    held = samples.made({"image": models.images(40, seed=5)})
    maker = forms.Maker(models.cnn(tmp_path / "cnn.onnx"), samples.made({"image": models.images(20)}), tmp_path)

    found = _search(labs.Probing(maker, bench.Bench(held, tmp_path), _usual), listed, held, bounds=WIDE)

    halved, dying = found.named("source · Halved"), found.named("source · Dying")
    assert "PRECISION_LOWERED" in [one.code for one in halved.reasons]
    assert halved.effective == "bfloat16"
    assert [one.code for one in dying.reasons] == ["NOT_LOADED"]
    assert found.named(found.best).form == "INT8 per-channel U8S8 narrow"
