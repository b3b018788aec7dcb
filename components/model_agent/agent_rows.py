"""Whether requests for a model may be joined: what it answers to a row must not depend on the rows beside it.

Golden samples are cut into rows, asked alone, and then joined in different orders and counts up to maxRows: with themselves,
with each other, and with rows made of them (turned round, shifted, faded, zero), which show what equal ones hide: a row less the
mean of all is zero beside itself, too. Answers to golden rows are compared within model.json's tolerance; of those to rows that
were made nobody said how much they may waver. More than ROWS_LIMIT rows, or INPUTS_LIMIT_BYTES of inputs, are not joined here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import agent_batches
import agent_check
import agent_isolated
import numpy as np

Array = np.ndarray[Any, Any]
Tensors = dict[str, Array]
ROWS_LIMIT = 256
INPUTS_LIMIT_BYTES = 64_000_000
CODE = "NOT_BATCHABLE"
_GOLDEN = 8  # rows of one layout
_ADVICE = (
    "leave batching out of its settings, export a model whose rows do not know of each other, or widen model.json's tolerance "
    "if so little does not matter"
)


@dataclass(frozen=True)
class Row:
    """One row of the inputs (first dimension 1), what it is called, and the model's answer to it alone; {} for a made one."""

    name: str
    inputs: Tensors
    answer: Tensors


class Figures:
    """How many golden rows were compared and how many are answered otherwise, of all runs."""

    def __init__(self) -> None:
        self.compared = self.wrong = 0
        self.first = ""

    def take(self, why: str) -> None:
        """One more; `why` its answer is another, "" if it is not."""
        self.compared += 1
        self.wrong += bool(why)
        self.first = self.first or why


def check(model: Any, max_rows: int) -> str:
    """The figures, if the model (with `manifest` and `predict`) passes. Raises agent_check.RefusedError NOT_BATCHABLE."""
    figures = Figures()
    try:
        for golden in _layouts(model.manifest.golden).values():
            _check(model, golden, max_rows, figures)
    except (agent_check.InputError, agent_isolated.CrashedError) as error:
        raise agent_check.RefusedError(f"batching: its rows cannot be joined: {error}; {_ADVICE}", CODE) from error
    if not figures.compared:
        raise agent_check.RefusedError(
            "batching: no golden sample has as many rows in each of its inputs: nothing would show that they can be joined",
            CODE,
        )
    if figures.wrong:
        raise agent_check.RefusedError(
            f"batching: {figures.wrong} of {figures.compared} golden rows are answered otherwise beside others than alone; the "
            f"first: {figures.first}; {_ADVICE}",
            CODE,
        )
    return f"{figures.compared} joined golden rows are answered as alone"


def plan(golden: int, rows: int, limit: int) -> Iterator[tuple[int, ...]]:
    """Which rows to join (by place; the first `golden` of `rows` are compared), each time `limit` at most, 2 at least."""
    yield 0, 0
    for beside in range(golden, rows):
        yield 0, beside
        yield beside, 0
    for count in sorted({2, min(3, limit), max(2, limit // 2), limit}):
        for start in range(0, rows, count):
            order = tuple((start + place) % rows for place in range(count))
            yield order
            yield order[::-1]


def _check(model: Any, golden: Sequence[tuple[str, Tensors]], max_rows: int, figures: Figures) -> None:
    rows = [Row(name, inputs, _alone(model, name, inputs)) for name, inputs in golden]
    rows += [Row("", made, {}) for made in _made(model, rows[0].inputs)]
    size = sum(array.nbytes for array in rows[0].inputs.values())
    limit = max(2, min(max_rows, ROWS_LIMIT, INPUTS_LIMIT_BYTES // max(1, size)))
    for order in dict.fromkeys(plan(len(golden), len(rows), limit)):
        joined = [rows[place] for place in order]
        answers = model.predict(
            {name: np.concatenate([row.inputs[name] for row in joined]) for name in joined[0].inputs}
        )
        _check_rows(answers, len(joined))
        for place, row in enumerate(joined):
            if row.answer:
                own = {name: each[place : place + 1] for name, each in answers.items()}
                why = _difference(model.manifest, row.answer, own)
                figures.take(f"{row.name}, row {place + 1} of {len(joined)}: {why}" if why else "")


def _layouts(samples: Sequence[tuple[Tensors, Tensors]]) -> dict[Any, list[tuple[str, Tensors]]]:
    """Golden rows with their names, by what requests must have in common to be joined; of each sample the first rows first."""
    found = dict[Any, list[tuple[str, Tensors]]]()
    most = max((agent_batches.layout_of(inputs)[1] for inputs, _ in samples), default=0)
    for at in range(min(most, _GOLDEN)):
        for number, (inputs, _) in enumerate(samples, 1):
            layout, rows = agent_batches.layout_of(inputs)
            known = found.setdefault(layout, []) if at < rows else []
            if at < rows and len(known) < _GOLDEN:
                known.append((f"golden sample {number}", {name: each[at : at + 1] for name, each in inputs.items()}))
    return found


def _alone(model: Any, name: str, inputs: Tensors) -> Tensors:
    try:
        answer: Tensors = model.predict(inputs)
    except agent_check.InputError as error:
        raise agent_check.InputError(f"{name}, one row of it: {error}") from error
    _check_rows(answer, 1)
    return answer


def _check_rows(answers: Mapping[str, Array], rows: int) -> None:
    for name, each in answers.items():
        if not each.ndim or each.shape[0] != rows:
            raise agent_check.InputError(f"output {name} has shape {list(each.shape)} for {rows} rows")


def _made(model: Any, row: Tensors) -> list[Tensors]:
    """Other rows that the model takes: of values like those of this one."""
    turned = {name: each.reshape(-1)[::-1].reshape(each.shape) for name, each in row.items()}
    shifted = {name: np.roll(each, 1) for name, each in row.items()}
    faded = {name: (each * 0.5).astype(each.dtype) for name, each in row.items()}
    zero = {name: np.zeros_like(each) for name, each in row.items()}
    found = list[Tensors]()
    for made in (turned, shifted, faded, zero):
        known = (row, *found)
        if not any(all(np.array_equal(made[name], one[name]) for name in made) for one in known) and _takes(
            model, made
        ):
            found.append(made)
    return found


def _takes(model: Any, inputs: Tensors) -> bool:
    try:
        model.predict(inputs)
    except agent_check.InputError:
        return False
    return True


def _difference(manifest: Any, alone: Tensors, joined: Tensors) -> str:
    """Why the answer is another one, with the figures of the largest difference; "" if it is not."""
    for name, each in alone.items():
        want, found = each.astype(np.float64), joined[name].astype(np.float64)
        allowed = manifest.absolute + manifest.relative * np.abs(want)
        excess = np.abs(found - want) - allowed
        if not (excess <= 0).all():  # nor is what is no number
            at = np.unravel_index(int(excess.argmax()), excess.shape)
            return f"{name} is {found[at]:.6g}, alone {want[at]:.6g} +- {allowed[at]:.3g}"
    return ""
