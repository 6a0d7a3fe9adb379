"""The comparison table as values: CSV, terminal, Markdown and LaTeX come from these rows.

A row is a method (one path, however many names it has), a column a quantity. A value
knows its error, how many videos and prompts stand behind it, its protocol, and, where
something is missing, the reason.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from srbench.errors import UserError
from srbench.report import statistics
from srbench.report.latency import ONCE, Typical, cell_latency, stage_seconds, work_seconds
from srbench.report.statistics import Estimate
from srbench.store.records import CellRecord, MetricFacts, Outcome, RunRecord, Score

Key = tuple[int, int]  # (prompt_index, seed)
DASH = "–"
WORST_FIRST: tuple[Outcome, ...] = ("failed", "missing", "skipped", "done")
MODELS = ("large", "small")  # always shown, in this order; others follow
CSV_FIELDS = (
    "method,method_id,label,column,unit,value,standard_error,n,clusters,protocol,outcome,reason"
).split(",")


@dataclass(frozen=True)
class Column:
    """A quantity: key (stable, for CSV), heading and unit (for readers).

    higher_is_better: None where neither direction is better.  estimated: the number is a
    sum of a shared run's step times, marked "est.".  group: tables that are too wide are
    parted between the two.  decimals: the fewest digits after the point.  note: a
    sentence that belongs below the table.
    """

    key: str
    heading: str
    unit: str = ""
    higher_is_better: bool | None = None
    estimated: bool = False
    group: Literal["quality", "cost"] = "quality"
    decimals: int = 2
    note: str = ""

    @property
    def title(self) -> str:
        """As in `PSNR ↑ dB` or `latency s est.`"""
        arrow = {None: "", True: "↑", False: "↓"}[self.higher_is_better]
        return " ".join(part for part in (self.heading, arrow, self.marked_unit) if part)

    @property
    def marked_unit(self) -> str:
        """The unit, with the mark of an estimate: the mark must go wherever a number goes."""
        return f"{self.unit} est." if self.estimated else self.unit


@dataclass(frozen=True)
class Value:
    """One number of the table, or why there is none.

    value, standard_error: in the column's unit; None is shown as "–".  n, clusters:
    videos and prompts behind it.  outcome: `done` only where no video is lacking, so a
    filter on it leaves whole values.  reason: a footnote's text.  word: shown in place of
    a number where none applies ("reference"); its reason needs no footnote.
    """

    column: Column
    value: float | None
    standard_error: float | None
    n: int
    clusters: int
    protocol: str
    outcome: Outcome = "done"
    reason: str = ""
    word: str = ""

    @property
    def footnote(self) -> str:
        return "" if self.word else self.reason


@dataclass(frozen=True)
class Row:
    """A method's values, in the columns' order, which is the same in all rows."""

    method: str
    method_id: str
    label: str
    is_reference: bool
    values: tuple[Value, ...]

    def __getitem__(self, key: str) -> Value:
        """The value of the column `key`; KeyError where there is no such column."""
        for value in self.values:
            if value.column.key == key:
                return value
        raise KeyError(key)


@dataclass(frozen=True)
class _Gap:
    """Why a cell has no number; outcome `done` where none is due (it never switched)."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class _Method:
    method: str
    method_id: str
    label: str
    is_reference: bool
    cells: Mapping[Key, CellRecord]


Measured = Mapping[Key, float | _Gap]


@dataclass(frozen=True)
class _Quantity:
    """A column and how a done cell is measured for it.

    word: (word, reason) for a method to which the quantity doesn't apply, else None.
    ratio: the value is mean(reference) / mean(method), not the method's mean.
    """

    column: Column
    measure: Callable[[CellRecord], float | _Gap]
    word: Callable[[_Method], tuple[str, str] | None] = lambda method: None
    ratio: bool = False


def rows(run: RunRecord, cells: Sequence[CellRecord]) -> list[Row]:
    """One row for each method: the reference, then in the order the run named them.

    Methods with one path (one method_id) are one row.  Means are over prompts, see
    report.statistics; a cell that lacks a number is left out of the mean and told of in
    the value's reason and outcome.

    Raises UserError where there are no cells, two references, or where one column would
    hold numbers of different protocols or of differently defined metrics.
    """
    if not cells:
        raise UserError(f"run {run.run}: no cells", "at least one recorded cell", "run the experiment first")
    planned = {(i, seed) for i in range(len(run.prompts)) for seed in run.seeds}
    keys = sorted(planned | {(c.prompt_index, c.seed) for c in cells})
    methods = _methods(run, cells)
    columns = [_column(run, quantity, methods, keys) for quantity in _quantities(run, cells)]
    return [
        Row(m.method, m.method_id, m.label, m.is_reference, tuple(c[i] for c in columns))
        for i, m in enumerate(methods)
    ]


def to_csv(table: Iterable[Row], path: Path) -> None:
    """Write the rows tidily, one line per (row, column), whole or not at all.

    UTF-8; numbers with all their digits; empty where there is none.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_csv_line(row, value) for row in table for value in row.values)
    os.replace(partial, path)


def decimals(values: Iterable[Value]) -> int:
    """Digits after the point for one column, from the column's own number up to 5.

    As many as it takes for two significant digits of the smallest number and one of the
    smallest error: an error above 0 must not print as 0.
    """
    column = list(values)
    numbers = [abs(v.value) for v in column if v.value]
    # Below 1e-9 of its number an error is rounding of the sums, not spread.
    errors = [
        v.standard_error for v in column if v.standard_error and v.standard_error > 1e-9 * abs(v.value or 0)
    ]
    needed = [1 - math.floor(math.log10(min(numbers)))] if numbers else []
    needed += [-math.floor(math.log10(min(errors)))] if errors else []
    return max(column[0].column.decimals, min(5, max(needed, default=0)))


def shown(value: Value, digits: int) -> str:
    """As in `24.31 ±0.42`, `24.31 ±–`, `reference` or `–`."""
    if value.word:
        return value.word
    if value.value is None:
        return DASH
    error = DASH if value.standard_error is None else f"{value.standard_error:.{digits}f}"
    return f"{value.value:.{digits}f} ±{error}"


# Rows: which methods, in which order


def _methods(run: RunRecord, cells: Sequence[CellRecord]) -> list[_Method]:
    """Every method that a job of this run asked for, with its cells; one without cells too."""
    grouped: dict[str, list[CellRecord]] = {}
    for cell in cells:
        grouped.setdefault(cell.method_id, []).append(cell)
    asked = {m.id: _Method(m.name, m.id, m.label, m.is_reference, {}) for m in run.methods}
    methods = list((asked | {i: _method(i, group) for i, group in grouped.items()}).values())
    methods.sort(key=lambda m: not m.is_reference)
    if sum(m.is_reference for m in methods) > 1:
        raise UserError(
            f"references: {', '.join(m.method for m in methods if m.is_reference)}",
            "one reference in a run",
            "report the runs apart",
        )
    return methods


def _method(method_id: str, cells: Sequence[CellRecord]) -> _Method:
    chosen: dict[Key, CellRecord] = {}
    for cell in cells:  # two names of one path have the same cells twice
        key = (cell.prompt_index, cell.seed)
        if key not in chosen or (chosen[key].outcome != "done" and cell.outcome == "done"):
            chosen[key] = cell
    label = " = ".join(dict.fromkeys(c.label for c in cells))
    return _Method(cells[0].method, method_id, label, any(c.is_reference for c in cells), chosen)


# Columns: what is measured


def _quantities(run: RunRecord, cells: Sequence[CellRecord]) -> list[_Quantity]:
    return [
        *_metric_quantities(cells),
        *_latency_quantities(run, cells),
        *_evaluation_quantities(cells),
        _switch_quantity(),
    ]


def _metric_quantities(cells: Sequence[CellRecord]) -> list[_Quantity]:
    facts: dict[str, MetricFacts] = {}
    for score in (s for c in cells for s in c.scores):
        known = facts.setdefault(score.metric.name, score.metric)
        if known != score.metric:
            raise UserError(
                f"{known.name}: versions {known.version} and {score.metric.version}, "
                "or other facts that differ",
                "one definition of a metric in a column",
                "score the run again with one version of srbench",
            )
    stems = [_stem(name) for name in facts]
    return [_metric_quantity(f, stems.count(_stem(f.name)) == 1) for f in facts.values()]


def _stem(name: str) -> str:
    return name.partition("/")[0]


def _metric_quantity(facts: MetricFacts, unique: bool) -> _Quantity:
    stem = _stem(facts.name)
    short = stem.upper() if len(stem) <= 5 else stem
    column = Column(
        key=facts.name,
        heading=short if unique else facts.name,
        unit=facts.unit,
        higher_is_better=facts.higher_is_better,
        decimals=3 if facts.upper_bound == 1 else 2,
        note=f"{short if unique else facts.name}: {facts.name}, version {facts.version}",
    )

    def measure(cell: CellRecord) -> float | _Gap:
        score = next((s for s in cell.scores if s.metric.name == facts.name), None)
        return _Gap("missing", "no score recorded") if score is None else _score(score)

    def word(method: _Method) -> tuple[str, str] | None:
        # Against itself a video has the metric's bound or its cap: no measurement.
        if method.is_reference and facts.needs_reference:
            return "reference", "what the others are compared with"
        return None

    return _Quantity(column, measure, word)


def _score(score: Score) -> float | _Gap:
    if score.outcome != "done":
        return _Gap(score.outcome, score.reason or "no reason recorded")
    if score.value is None or not math.isfinite(score.value):  # JSON has no infinity
        return _Gap("missing", "the score is not a finite number")
    return score.value


def _latency_quantities(run: RunRecord, cells: Sequence[CellRecord]) -> list[_Quantity]:
    work, stages = work_seconds(cells), stage_seconds(cells)
    estimated = run.timing != "exclusive"

    def measure(cell: CellRecord) -> float | _Gap:
        try:
            return math.fsum(cell_latency(cell, work, stages).values())
        except LookupError as error:
            return _Gap("missing", str(error.args[0]))

    note = _latency_note(cells, work, stages, estimated)
    seconds = Column("latency", "latency", "s", None, estimated, "cost", 1, note)
    speedup = Column("speedup", "speedup", "×", None, estimated, "cost", 2)
    return [_Quantity(seconds, measure), _Quantity(speedup, measure, ratio=True)]


def _latency_note(
    cells: Sequence[CellRecord],
    work: Mapping[str, Typical],
    stages: Mapping[str, Typical],
    estimated: bool,
) -> str:
    if not work:
        return ""
    parts = ["counts of steps × their median time"]
    parts += ["of a shared run (est.)"] if estimated else []
    parts += ["± is over prompts, not over timings"]
    absent = [name for name in ONCE if name not in stages]
    parts += [f"without {' and '.join(absent)}, which no cell timed"] if absent else []
    cold = [name for name, typical in work.items() if not typical.warm]
    parts += [f"warm-up steps only for: {'; '.join(cold)}"] if cold else []
    hosts = {c.host for c in cells if c.step_seconds}
    parts += [f"times from {len(hosts)} hosts"] if len(hosts) > 1 else []
    return f"latency: {', '.join(parts)}"


def _evaluation_quantities(cells: Sequence[CellRecord]) -> list[_Quantity]:
    used = {s.model for c in cells if c.trace is not None for s in c.trace.steps}
    models = [*MODELS, *sorted(used.difference(MODELS))]
    counted = [_count(m, partial(_computed, model=m)) for m in models]
    return [*counted, _count("reused", _reused)]


def _count(what: str, count: Callable[[CellRecord], int]) -> _Quantity:
    def measure(cell: CellRecord) -> float | _Gap:
        if cell.trace is None:
            return _Gap("missing", "no trace recorded")
        return float(count(cell))

    column = Column(f"evaluations_{what}", f"evals {what}", "per video", None, False, "cost", decimals=1)
    return _Quantity(column, measure)


def _computed(cell: CellRecord, model: str) -> int:
    steps = cell.trace.steps if cell.trace else ()
    return sum(s.calls_computed for s in steps if s.model == model)


def _reused(cell: CellRecord) -> int:
    return sum(s.calls_reused for s in (cell.trace.steps if cell.trace else ()))


def _switch_quantity() -> _Quantity:
    def measure(cell: CellRecord) -> float | _Gap:
        if cell.trace is None:
            return _Gap("missing", "no trace recorded")
        if not cell.trace.switches:
            return _Gap("done", "never switched")
        return float(cell.trace.switches[0])

    def word(method: _Method) -> tuple[str, str] | None:
        paths = [cell.path for cell in method.cells.values()]
        if paths and all(len(path) == 1 for path in paths):
            return DASH, "the path has one segment"
        return None

    column = Column(
        "switch_step",
        "switch step",
        group="cost",
        decimals=1,
        note="switch step: steps done before the first change of model",
    )
    return _Quantity(column, measure, word)


# Values: one quantity of all methods


def _column(
    run: RunRecord, quantity: _Quantity, methods: Sequence[_Method], keys: Sequence[Key]
) -> list[Value]:
    measured = [
        {} if quantity.word(m) else {k: _measure(quantity, m.cells.get(k)) for k in keys} for m in methods
    ]
    protocol = _one_protocol(quantity.column, methods, measured) or run.protocol
    reference = measured[0] if methods[0].is_reference else None
    return [
        _value(quantity, method, own, reference, protocol)
        for method, own in zip(methods, measured, strict=True)
    ]


def _measure(quantity: _Quantity, cell: CellRecord | None) -> float | _Gap:
    if cell is None:
        return _Gap("missing", "the run has no record of it")
    if cell.outcome != "done":
        return _Gap(cell.outcome, cell.reason or "no reason recorded")
    return quantity.measure(cell)


def _one_protocol(column: Column, methods: Sequence[_Method], measured: Sequence[Measured]) -> str | None:
    found: dict[str, list[str]] = {}
    for method, own in zip(methods, measured, strict=True):
        for protocol in dict.fromkeys(method.cells[k].protocol for k in _numbers(own)):
            found.setdefault(protocol, []).append(method.method)
    if len(found) > 1:
        listed = "; ".join(f"{p[:12]} ({', '.join(names)})" for p, names in found.items())
        raise UserError(
            f"column {column.key}: {len(found)} protocols, {listed}",
            "one protocol for all numbers of a column",
            "report them as separate runs, or run all cells again under one protocol",
        )
    return next(iter(found), None)


def _value(
    quantity: _Quantity,
    method: _Method,
    own: Measured,
    reference: Measured | None,
    protocol: str,
) -> Value:
    column, word = quantity.column, quantity.word(method)
    if word:
        return Value(column, None, None, 0, 0, protocol, "done", word[1], word[0])
    outcome, gaps = _gaps(own)
    if not quantity.ratio:
        estimate, more = _mean(own), ""
    elif reference is None:
        estimate, more = Estimate(None, None, 0, 0), "no reference in this run"
        outcome = "missing" if outcome == "done" else outcome
    else:
        estimate, more = _speedup(reference, own)
        outcome = "missing" if more and outcome == "done" else outcome
    said = [gaps, more, "" if estimate.reason == statistics.NO_VALUE else estimate.reason]
    reason = "; ".join(part for part in said if part)
    return Value(
        column,
        estimate.mean,
        estimate.standard_error,
        estimate.n,
        estimate.clusters,
        protocol,
        outcome,
        reason,
    )


def _numbers(measured: Measured) -> dict[Key, float]:
    return {k: v for k, v in measured.items() if not isinstance(v, _Gap)}


def _mean(own: Measured) -> Estimate:
    numbers = _numbers(own)
    return statistics.clustered_mean(list(numbers.values()), [k[0] for k in numbers])


def _speedup(reference: Measured, own: Measured) -> tuple[Estimate, str]:
    """Ratio of mean latencies over the videos both have, and what the reference lacks."""
    base, numbers = _numbers(reference), _numbers(own)
    both = [k for k in numbers if k in base]
    estimate = statistics.ratio_of_means(
        [base[k] for k in both], [numbers[k] for k in both], [k[0] for k in both]
    )
    lacking = len(numbers) - len(both)
    return estimate, f"{lacking} of {len(own)} lack the reference's latency" if lacking else ""


def _gaps(own: Measured) -> tuple[Outcome, str]:
    """The worst outcome, and a sentence with how many of each and the first reason."""
    found: dict[Outcome, list[str]] = {}
    for gap in own.values():
        if isinstance(gap, _Gap):
            found.setdefault(gap.outcome, []).append(gap.reason)
    parts = []
    for outcome in (o for o in WORST_FIRST if o in found):
        reasons = found[outcome]
        word = "" if outcome == "done" else f"{outcome}: "
        parts.append(f"{len(reasons)} of {len(own)} {word}{_first_sentence(reasons[0])}")
    return next((o for o in WORST_FIRST if o in found), "done"), "; ".join(parts)


def _first_sentence(text: str) -> str:
    return text.strip().split("\n")[0].partition(". ")[0].rstrip(".")


def _csv_line(row: Row, value: Value) -> dict[str, str]:
    def number(x: float | None) -> str:
        return "" if x is None else repr(x)

    return {
        "method": row.method,
        "method_id": row.method_id,
        "label": row.label,
        "column": value.column.key,
        "unit": value.column.marked_unit,
        "value": number(value.value),
        "standard_error": number(value.standard_error),
        "n": str(value.n),
        "clusters": str(value.clusters),
        "protocol": value.protocol,
        "outcome": value.outcome,
        "reason": value.reason,
    }
