"""The quantities of a table: a column, and how a done cell is measured for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Literal, TypeVar, cast

from srbench.errors import UserError
from srbench.report.latency import ONCE, Typical, cell_latency, stage_seconds, work_seconds
from srbench.report.roles import Role
from srbench.report.values import DASH, Column
from srbench.store.records import CellRecord, MetricFacts, Outcome, RunRecord, Score
from srbench.trace import Trace

Key = tuple[int, int]  # (prompt_index, seed)
MODELS = ("large", "small")  # always shown, in this order; others follow
GIB = 2.0**30
SCALE_ROW = "a scale row: it shows what a similarity means, and is no rival"


@dataclass(frozen=True)
class Gap:
    """Why a cell has no number; outcome `done` where none is due (it never switched)."""

    outcome: Outcome
    reason: str


UNSCORED = Gap("missing", "no score recorded")
UNRECORDED = Gap("missing", "the run has no record of it")
UNTOLD = Gap("missing", "not told (--latency of srbench.score)")


@dataclass(frozen=True)
class Contender:
    """A method of the run with its cells by prompt and seed; `cells` may be empty."""

    method: str
    method_id: str
    label: str
    role: Role
    cells: Mapping[Key, CellRecord]

    @property
    def is_reference(self) -> bool:
        return self.role == "reference"

    @cached_property
    def protocols(self) -> frozenset[str]:
        """Of all its cells."""
        return frozenset(cell.protocol for cell in self.cells.values())


Measured = Mapping[Key, float | Gap]
Result = TypeVar("Result")


def once_per_trace(compute: Callable[[CellRecord], Result]) -> Callable[[CellRecord], Result]:
    """`compute`, which may look at the cell's trace alone, called once for each trace there is.

    Thousands of videos share few traces, and counting their steps is most of a table's time.
    """
    known: dict[int, tuple[Trace | None, Result]] = {}

    def result(cell: CellRecord) -> Result:
        found = known.get(id(cell.trace))
        if found is None:  # the trace is kept beside it: its id is then no other's
            found = known[id(cell.trace)] = (cell.trace, compute(cell))
        return found[1]

    return result


class _Found(dict[Key, float | Gap]):
    """What was measured of a method, which nobody changes: its numbers are sought once."""

    @cached_property
    def known(self) -> Mapping[Key, float]:
        gaps = any(isinstance(v, Gap) for v in self.values())
        return _known(self) if gaps else cast(Mapping[Key, float], self)


def numbers(measured: Measured) -> Mapping[Key, float]:
    """What was measured, without the gaps."""
    return measured.known if isinstance(measured, _Found) else _known(measured)


def _known(measured: Measured) -> dict[Key, float]:
    return {k: v for k, v in measured.items() if not isinstance(v, Gap)}


@dataclass(frozen=True)
class Quantity:
    """A column and how a done cell is measured for it.

    word: (word, reason) for a method to which the quantity doesn't apply, else None.
    prompts: those to which it applies; None for all.  summary: `mean` over prompts,
    `videos` for the mean over videos, `ratio` for mean(reference) / mean(method), `most`
    for the largest.  count: how much a cell counts in the mean over videos.
    """

    column: Column
    measure: Callable[[CellRecord], float | Gap]
    word: Callable[[Contender], tuple[str, str] | None] = lambda method: None
    prompts: frozenset[int] | None = None
    summary: Literal["mean", "videos", "ratio", "most"] = "mean"
    count: Callable[[CellRecord], float] = lambda cell: 1.0

    def counts(self, method: Contender, measured: Measured) -> dict[Key, float]:
        """How much each number counts, in the order of numbers(measured)."""
        return {k: self.count(method.cells[k]) for k in numbers(measured)}

    def word_of(self, method: Contender) -> tuple[str, str] | None:
        """Why this method has a word there in place of a number."""
        if method.role == "scale" and self.column.kind != "similarity":
            return DASH, SCALE_ROW
        return self.word(method)

    def of(self, method: Contender, keys: Sequence[Key]) -> Measured:
        """The number or the gap of each video that should have one; empty where a word stands."""
        if self.word_of(method):
            return {}
        cells, measure = method.cells, self.measure
        made = _Found()
        for key in keys:
            if self.prompts is None or key[0] in self.prompts:
                cell = cells.get(key)
                if cell is None:
                    made[key] = UNRECORDED
                elif cell.outcome != "done":
                    made[key] = Gap(cell.outcome, cell.reason or "no reason recorded")
                else:
                    made[key] = measure(cell)
        return made


def similarity(cells: Sequence[CellRecord]) -> list[Quantity]:
    """A quantity for each metric that compares with the reference, by name.

    Raises UserError where one name has two definitions.
    """
    facts = [f for f in definitions(cells).values() if f.group == "similarity"]
    stems, scores = [_stem(f.name) for f in facts], _Scores(cells, [f.name for f in facts])
    return [
        _metric(f, scores, stems.count(_stem(f.name)) == 1, at_the_cap(f, cells))
        for f in sorted(facts, key=lambda f: (_stem(f.name), f.name))
    ]


def at_the_cap(facts: MetricFacts, cells: Sequence[CellRecord]) -> list[str]:
    """PSNR's frames at its cap, which identical ones are and which lift a mean, for each method that has any.

    With the mean over prompts that the others alone would give; nothing for other metrics.
    """
    if _stem(facts.name) != "psnr":
        return []
    found: dict[str, dict[int, list[Score]]] = {}
    for cell in (c for c in cells if not c.is_reference):
        own = next((s for s in cell.scores if s.metric.name == facts.name and s.per_frame), None)
        if own is not None:
            found.setdefault(cell.label, {}).setdefault(cell.prompt_index, []).append(own)
    return [said for label, by_prompt in found.items() if (said := _capped(label, by_prompt, facts))]


def _capped(label: str, by_prompt: Mapping[int, Sequence[Score]], facts: MetricFacts) -> str:
    """As in `large in bfloat16: 24 of 408 frames at 100 dB, mean 54.20 without`."""
    scores = [s for own in by_prompt.values() for s in own]
    capped = sum(s.at_bound for s in scores)
    if not capped:
        return ""
    below = ([s.value_below_bound for s in own] for own in by_prompt.values())
    means = [fmean(known) for own in below if (known := [v for v in own if v is not None])]
    without = f", mean {fmean(means):.2f} without" if means else ""
    frames = sum(len(s.per_frame) for s in scores)
    return f"{label}: {capped} of {frames} frames at {facts.upper_bound:g} {facts.unit}{without}"


def dimensions(cells: Sequence[CellRecord]) -> list[tuple[MetricFacts, Quantity]]:
    """A suite's dimensions: those of its quality, then of its semantics, as they were recorded.

    A dimension applies to the prompts of which any method's video has a score of it.
    """
    applies: dict[str, set[int]] = {}
    for cell in cells:
        for score in cell.scores:
            if score.metric.group != "similarity":
                applies.setdefault(score.metric.name, set()).add(cell.prompt_index)
    known = definitions(cells)
    names = sorted(applies, key=lambda name: known[name].group)
    made, scores = _made(cells), _Scores(cells, names)
    return [
        (known[name], _dimension(known[name], scores, frozenset(applies[name]), made.get(name, "")))
        for name in names
    ]


def _made(cells: Sequence[CellRecord]) -> dict[str, str]:
    """By metric, what scores that another environment computed were made with."""
    found: dict[str, dict[str, None]] = {}
    for score in (s for c in cells for s in c.scores if s.made and s.outcome == "done"):
        own = found.setdefault(score.metric.name, {})
        own |= dict.fromkeys(f"{k} {v}" for k, v in score.made.items())
    return {name: ", ".join(parts) for name, parts in found.items()}


def cost(run: RunRecord, cells: Sequence[CellRecord]) -> list[Quantity]:
    """Latency, speedup, evaluations, switch step, peak memory; of imported videos the first two."""
    if run.source == "imported":
        return _latency_quantities(run, cells)
    return [*_latency_quantities(run, cells), *_evaluation_quantities(cells), _switch_quantity(), _memory()]


def definitions(cells: Sequence[CellRecord]) -> dict[str, MetricFacts]:
    """Every metric's facts by its name.  Raises UserError where one name has two."""
    facts: dict[str, MetricFacts] = {}
    for score in (s for c in cells for s in c.scores):
        known = facts.setdefault(score.metric.name, score.metric)
        if known is not score.metric and known != score.metric:
            raise UserError(
                _differ(known, score.metric),
                "one definition of a metric in a column",
                "score the run again with one version of srbench, or of your metric",
            )
    return facts


def _differ(one: MetricFacts, other: MetricFacts) -> str:
    if one.code != other.code:
        codes = " and ".join(m.code or "srbench's own" for m in (one, other))
        return f"{one.name}: scores of different code or settings, {codes}"
    return f"{one.name}: versions {one.version} and {other.version}, or other facts that differ"


def _stem(name: str) -> str:
    return name.partition("/")[0]


def _metric(facts: MetricFacts, scores: _Scores, unique: bool, capped: Sequence[str]) -> Quantity:
    stem = _stem(facts.name)
    short = stem.upper() if len(stem) <= 5 else stem
    about = [f"{short if unique else facts.name}: {facts.name}, version {facts.version}", *capped]
    about += [] if facts.needs_reference else ["a video against itself, what the encoder alone does to it"]
    column = Column(
        key=facts.name,
        heading=short if unique else facts.name,
        unit=facts.unit,
        # an encoder's floor is taken without the reference and is no method's merit
        higher_is_better=facts.higher_is_better if facts.needs_reference else None,
        decimals=3 if facts.upper_bound == 1 else 2,
        note=", ".join(about),
    )

    def word(method: Contender) -> tuple[str, str] | None:
        # Against itself a video has the metric's bound or its cap: no measurement.
        if method.is_reference and facts.needs_reference:
            return "reference", "what the others are compared with"
        return None

    return Quantity(column, scores.measure(facts.name), word)


def _dimension(facts: MetricFacts, scores: _Scores, prompts: frozenset[int], made: str = "") -> Quantity:
    column = Column(
        key=facts.name,
        heading=facts.name.rpartition("/")[2].replace("_", " "),
        unit=facts.unit,
        higher_is_better=facts.higher_is_better,
        kind="dimension",
        decimals=3,
        note=f"{facts.name}, version {facts.version}, {facts.group}" + (f" ({made})" if made else ""),
    )
    return Quantity(
        column,
        scores.measure(facts.name),
        prompts=prompts,
        summary="videos",
        count=scores.count(facts.name),
    )


class _Scores:
    """A metric's number, or gap, of each cell: looked up a million times for a large table."""

    def __init__(self, cells: Sequence[CellRecord], names: Collection[str]) -> None:
        self._cells = cells  # kept, so that no other cell gets one's id
        self._found: dict[str, dict[int, Score]] = {name: {} for name in names}
        for cell in cells:
            for score in cell.scores:
                if (own := self._found.get(score.metric.name)) is not None:
                    own.setdefault(id(cell), score)

    def measure(self, name: str) -> Callable[[CellRecord], float | Gap]:
        """A cell's number of a metric."""
        known = {cell: _score(score) for cell, score in self._found[name].items()}
        return lambda cell: known.get(id(cell), UNSCORED)

    def count(self, name: str) -> Callable[[CellRecord], float]:
        """How much a cell counts in a metric's mean over videos."""
        counts = {cell: score.count for cell, score in self._found[name].items()}
        return lambda cell: counts.get(id(cell), 1.0)


def _score(score: Score) -> float | Gap:
    if score.outcome != "done":
        return Gap(score.outcome, score.reason or "no reason recorded")
    if score.value is None or not math.isfinite(score.value):  # JSON has no infinity
        return Gap("missing", "the score is not a finite number")
    return score.value


def _latency_quantities(run: RunRecord, cells: Sequence[CellRecord]) -> list[Quantity]:
    work, stages = work_seconds(cells), stage_seconds(cells)
    estimated = run.timing != "exclusive"

    @once_per_trace
    def of_trace(cell: CellRecord) -> float | Gap:
        try:
            return math.fsum(cell_latency(cell, work, stages).values())
        except LookupError as error:
            return Gap("missing", str(error.args[0]))

    def measure(cell: CellRecord) -> float | Gap:
        if cell.source == "imported":  # it has no trace, and may have a latency of its own
            return UNTOLD if cell.latency_seconds is None else cell.latency_seconds
        return of_trace(cell)

    note = _latency_note(cells, work, stages, estimated)
    seconds = Column("latency", "latency", "s", False, estimated, "cost", 1, note)
    about = "speedup: the reference's mean latency / the method's, over the videos that both have"
    speedup = Column("speedup", "speedup", "×", True, estimated, "cost", 2, about)
    return [Quantity(seconds, measure), Quantity(speedup, measure, summary="ratio")]


def _latency_note(
    cells: Sequence[CellRecord],
    work: Mapping[str, Typical],
    stages: Mapping[str, Typical],
    estimated: bool,
) -> str:
    if not work:
        return ""
    parts = ["seconds that one video takes, as counts of steps × their median time"]
    parts += ["of a shared run (est.)"] if estimated else []
    parts += ["± is over prompts, not over timings"]
    absent = [name for name in ONCE if name not in stages]
    parts += [f"without {' and '.join(absent)}, which no cell timed"] if absent else []
    cold = [name for name, typical in work.items() if not typical.warm]
    parts += [f"warm-up steps only for: {'; '.join(cold)}"] if cold else []
    hosts = {c.host for c in cells if c.step_seconds}
    parts += [f"times from {len(hosts)} hosts"] if len(hosts) > 1 else []
    return f"latency: {', '.join(parts)}"


def _evaluation_quantities(cells: Sequence[CellRecord]) -> list[Quantity]:
    traces = {id(c.trace): c.trace for c in cells if c.trace is not None}
    used = {s.model for trace in traces.values() for s in trace.steps}
    models = [*MODELS, *sorted(used.difference(MODELS))]
    counted = [_count(m, partial(_computed, model=m)) for m in models]
    return [*counted, _count("reused", _reused)]


def _count(what: str, count: Callable[[CellRecord], int]) -> Quantity:
    @once_per_trace
    def measure(cell: CellRecord) -> float | Gap:
        if cell.trace is None:
            return Gap("missing", "no trace recorded")
        return float(count(cell))

    source = "taken from an accelerator's cache" if what == "reused" else f"computed by the {what} model"
    note = f"evals {what}: model evaluations {source}, a video (a guided step is two evaluations)"
    column = Column(f"evaluations_{what}", f"evals {what}", "", None, False, "cost", 1, note)
    return Quantity(column, measure)


def _computed(cell: CellRecord, model: str) -> int:
    steps = cell.trace.steps if cell.trace else ()
    return sum(s.calls_computed for s in steps if s.model == model)


def _reused(cell: CellRecord) -> int:
    return sum(s.calls_reused for s in (cell.trace.steps if cell.trace else ()))


def _switch_quantity() -> Quantity:
    @once_per_trace
    def measure(cell: CellRecord) -> float | Gap:
        if cell.trace is None:
            return Gap("missing", "no trace recorded")
        if not cell.trace.switches:
            return Gap("done", "never switched")
        return float(cell.trace.switches[0])

    def word(method: Contender) -> tuple[str, str] | None:
        paths = [cell.path for cell in method.cells.values()]
        if paths and all(len(path) == 1 for path in paths):
            return DASH, "the path has one segment"
        return None

    column = Column(
        "switch_step",
        "switch step",
        kind="cost",
        decimals=1,
        note="switch step: steps done before the first change of model",
    )
    return Quantity(column, measure, word)


def _memory() -> Quantity:
    def measure(cell: CellRecord) -> float | Gap:
        if cell.peak_memory_bytes is None:
            return Gap("missing", "not recorded, as on a CPU or where an earlier run did some steps")
        return cell.peak_memory_bytes / GIB

    note = (
        "peak memory: the most that the process held on the device during the steps and the decoding of "
        "any of the method's videos, models of other methods that stayed there included, text encoding not"
    )
    column = Column("peak_memory", "peak memory", "GiB", False, False, "cost", 1, note)
    return Quantity(column, measure, summary="most")
