"""The quantities of a table: a column, and how a done cell is measured for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isfinite
from statistics import fmean
from typing import Literal, cast

from srbench.analysis.latency import (
    ONCE,
    Times,
    cell_latency,
    disagreement,
    once_per_trace,
    rests_on_several,
    times,
)
from srbench.analysis.roles import Role
from srbench.analysis.values import DASH, Column
from srbench.errors import UserError
from srbench.store.records import CellRecord, MetricFacts, Outcome, RunRecord, Score, TimingPass
from srbench.trace import Trace

Key = tuple[int, int]  # (prompt_index, seed)
MODELS = ("large", "small")  # always shown, in this order; others follow
GIB, PERCENT = 2.0**30, 100.0
SCALE_ROW = "a scale row: it shows what a similarity means, and is no rival"


@dataclass(frozen=True)
class Gap:
    """Why a cell has no number; outcome `done` where none is due (it never switched)."""

    outcome: Outcome
    reason: str


UNSCORED = Gap("missing", "no score recorded")
UNRECORDED = Gap("missing", "the run has no record of it")
UNTOLD = Gap("missing", "no latency was given (--latency of srbench score)")
GIVEN_ONCE = Gap("missing", "one number was given for several videos, so its spread is not known")


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
    def done(self) -> Mapping[Key, CellRecord]:
        """Of its cells those that have a video."""
        return {key: cell for key, cell in self.cells.items() if cell.outcome == "done"}

    def gap(self, key: Key) -> Gap:
        """Why there is no video of a prompt and seed."""
        cell = self.cells.get(key)
        return UNRECORDED if cell is None else Gap(cell.outcome, cell.reason or "no reason recorded")

    @cached_property
    def protocols(self) -> frozenset[str]:
        """Of all its cells."""
        return frozenset(cell.protocol for cell in self.cells.values())


Measured = Mapping[Key, float | Gap]


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
    for the largest.  count: how much a cell counts in the mean over videos, 1 without it.  varied: what
    errors are taken from in place of `measure`, where that hides how well it is known: a
    latency of median step times over the run is the same for every video of as many steps.
    Where it gives gaps alone, there is no error, for their reason.
    is_ranked: whether the errors tell a best method from others.  pooled: whether a method's number
    rests on times of several jobs: then nothing is marked or named as the best.
    """

    column: Column
    measure: Callable[[CellRecord], float | Gap]
    word: Callable[[Contender], tuple[str, str] | None] = lambda method: None
    prompts: frozenset[int] | None = None
    summary: Literal["mean", "videos", "ratio", "most"] = "mean"
    count: Callable[[CellRecord], float] | None = None
    varied: Callable[[CellRecord], float | Gap] | None = None
    is_ranked: bool = True
    pooled: Callable[[Contender], bool] = lambda method: False

    def counts(self, method: Contender, measured: Measured) -> dict[Key, float]:
        """How much each number counts, in the order of numbers(measured)."""
        known, count = numbers(measured), self.count
        return dict.fromkeys(known, 1.0) if count is None else {k: count(method.cells[k]) for k in known}

    def word_of(self, method: Contender) -> tuple[str, str] | None:
        """Why this method has a word there in place of a number."""
        if method.role == "scale" and self.column.kind != "similarity":
            return DASH, SCALE_ROW
        return self.word(method)

    def of(self, method: Contender, keys: Sequence[Key]) -> Measured:
        """The number or the gap of each video that should have one; empty where a word stands."""
        return self._each(method, keys, self.measure)

    def varied_of(self, method: Contender, keys: Sequence[Key]) -> Measured:
        """As of(), by `varied` where there is one: what errors are taken from."""
        return self._each(method, keys, self.varied or self.measure)

    def _each(
        self, method: Contender, keys: Sequence[Key], measure: Callable[[CellRecord], float | Gap]
    ) -> Measured:
        if self.word_of(method):
            return {}
        done, prompts = method.done, self.prompts
        due = keys if prompts is None else [k for k in keys if k[0] in prompts]
        return _Found({k: measure(done[k]) if k in done else method.gap(k) for k in due})


class Scores:
    """All scores of some cells, looked through once: a large table has half a million.

    facts: of every metric, by name.  made: by name, what scores that another environment
    computed were made with.  Raises UserError where one name has two definitions.
    """

    def __init__(self, cells: Sequence[CellRecord]) -> None:
        self._cells = {id(cell): cell for cell in cells}  # kept, so that no other cell gets one's id
        self._found: dict[str, dict[int, Score]] = {}
        self._counted: set[str] = set()  # metrics of which some score counts other than 1
        self.facts: dict[str, MetricFacts] = {}
        self.made: dict[str, dict[str, None]] = {}
        for place, cell in self._cells.items():
            for score in cell.scores:
                metric = score.metric
                known = self.facts.setdefault(metric.name, metric)
                if known is not metric and known != metric:
                    raise UserError(
                        _differ(known, metric),
                        "one definition of a metric in a column",
                        "score the run again with one version of srbench, or of your metric",
                    )
                self._found.setdefault(metric.name, {}).setdefault(place, score)
                if score.count != 1:
                    self._counted.add(metric.name)
                if score.made and score.outcome == "done":
                    own = self.made.setdefault(metric.name, {})
                    own |= dict.fromkeys(f"{k} {v}" for k, v in score.made.items())

    def of(self, name: str) -> Iterator[tuple[CellRecord, Score]]:
        """The cells that have a score of a metric, and that."""
        return ((self._cells[place], score) for place, score in self._found[name].items())

    def prompts(self, name: str) -> frozenset[int]:
        """Of which any cell has a score of a metric."""
        return frozenset(self._cells[place].prompt_index for place in self._found[name])

    def measure(self, name: str) -> Callable[[CellRecord], float | Gap]:
        """A cell's number of a metric."""
        known = {
            place: value if score.outcome == "done" and (value := score.value) is not None and isfinite(value)
            else _no_score(score)
            for place, score in self._found[name].items()
        }  # fmt: skip
        return lambda cell: known.get(id(cell), UNSCORED)

    def count(self, name: str) -> Callable[[CellRecord], float] | None:
        """How much a cell counts in a metric's mean over videos; None where all count 1."""
        if name not in self._counted:
            return None
        counts = {place: score.count for place, score in self._found[name].items()}
        return lambda cell: counts.get(id(cell), 1.0)


def _no_score(score: Score) -> Gap:
    if score.outcome != "done":
        return Gap(score.outcome, score.reason or "no reason recorded")
    return Gap("missing", "the score is not a finite number")  # JSON has no infinity


def similarity(scores: Scores) -> list[Quantity]:
    """A quantity for each metric that compares with the reference, by name."""
    facts = [f for f in scores.facts.values() if f.group == "similarity"]
    stems = [_stem(f.name) for f in facts]
    return [
        _metric(f, scores, stems.count(_stem(f.name)) == 1, at_the_cap(f, scores))
        for f in sorted(facts, key=lambda f: (_stem(f.name), f.name))
    ]


def at_the_cap(facts: MetricFacts, scores: Scores) -> tuple[tuple[str, str], ...]:
    """PSNR's frames at its cap, which identical ones are and which lift a mean, by method that has any.

    With the mean over prompts that the others alone would give; nothing for other metrics.
    """
    if _stem(facts.name) != "psnr":
        return ()
    found: dict[tuple[str, str], dict[int, list[Score]]] = {}
    for cell, own in scores.of(facts.name):
        if own.per_frame and not cell.is_reference:
            of_method = found.setdefault((cell.method_id, cell.label), {})
            of_method.setdefault(cell.prompt_index, []).append(own)
    noted = ((method, _capped(label, own, facts)) for (method, label), own in found.items())
    return tuple((method, said) for method, said in noted if said)


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


def dimensions(scores: Scores) -> list[tuple[MetricFacts, Quantity]]:
    """A suite's dimensions: those of its quality, then of its semantics, as they were recorded.

    A dimension applies to the prompts of which any method's video has a score of it.
    """
    facts = sorted((f for f in scores.facts.values() if f.group != "similarity"), key=lambda f: f.group)
    return [(f, _dimension(f, scores)) for f in facts]


def cost(run: RunRecord, cells: Sequence[CellRecord]) -> list[Quantity]:
    """Latency, speedup, evaluations, modules reused inside them, switch step, peak memory.

    Of imported videos the first two.
    """
    found = _latency_quantities(run, cells)
    if run.source == "imported":
        return found
    return [*found, *_evaluation_quantities(cells), _modules_quantity(), _switch_quantity(), _memory()]


def _differ(one: MetricFacts, other: MetricFacts) -> str:
    if one.code != other.code:
        codes = " and ".join(m.code or "srbench's own" for m in (one, other))
        return f"{one.name}: scores of different code or settings, {codes}"
    return f"{one.name}: versions {one.version} and {other.version}, or other facts that differ"


def _stem(name: str) -> str:
    return name.partition("/")[0]


def _metric(
    facts: MetricFacts, scores: Scores, unique: bool, capped: tuple[tuple[str, str], ...]
) -> Quantity:
    stem = _stem(facts.name)
    short = stem.upper() if len(stem) <= 5 else stem
    about = [f"{short if unique else facts.name}: {facts.name}, version {facts.version}"]
    about += [] if facts.needs_reference else ["a video against itself, what the encoder alone does to it"]
    column = Column(
        key=facts.name,
        heading=short if unique else facts.name,
        unit=facts.unit,
        # an encoder's floor is taken without the reference and is no method's merit
        higher_is_better=facts.higher_is_better if facts.needs_reference else None,
        decimals=3 if facts.upper_bound == 1 else 2,
        note=", ".join(about),
        own_notes=capped,
        bounds=(facts.lower_bound, facts.upper_bound),
    )

    def word(method: Contender) -> tuple[str, str] | None:
        # Against itself a video has the metric's bound or its cap: no measurement.
        if method.is_reference and facts.needs_reference:
            return "reference", "what the others are compared with"
        return None

    return Quantity(column, scores.measure(facts.name), word)


def _dimension(facts: MetricFacts, scores: Scores) -> Quantity:
    made = ", ".join(scores.made.get(facts.name, ()))
    column = Column(
        key=facts.name,
        heading=facts.name.rpartition("/")[2].replace("_", " "),
        unit=facts.unit,
        higher_is_better=facts.higher_is_better,
        kind="dimension",
        decimals=3,
        note=f"{facts.name}, version {facts.version}, {facts.group}" + (f" ({made})" if made else ""),
        bounds=(facts.lower_bound, facts.upper_bound),
    )
    return Quantity(
        column,
        scores.measure(facts.name),
        prompts=scores.prompts(facts.name),
        summary="videos",
        count=scores.count(facts.name),
    )


def _latency_quantities(run: RunRecord, cells: Sequence[CellRecord]) -> list[Quantity]:
    if run.source == "imported":
        return _given_latencies(run, cells)
    known = times(run, cells)
    work, stages = known.work, known.stages
    reference = known.jobs(c for c in cells if c.is_reference)

    @once_per_trace
    def measure(cell: CellRecord) -> float | Gap:
        try:
            return math.fsum(cell_latency(cell, work, stages, elsewhere=known.elsewhere).values())
        except LookupError as error:
            again = "; timing=exclusive with its method times it" if run.alone or known.elsewhere else ""
            return Gap("missing", f"{error.args[0]}{again}")

    def varied(cell: CellRecord) -> float | Gap:
        found = measure(cell)
        own = known.by_prompt.get(cell.prompt_index)
        if own is None or isinstance(found, Gap):
            return found
        return math.fsum(cell_latency(cell, work, stages, own).values())

    def pooled(method: Contender) -> bool:
        return rests_on_several(known.jobs(method.cells.values()))

    def pooled_ratio(method: Contender) -> bool:
        return rests_on_several(reference | known.jobs(method.cells.values()))

    seconds, speedup = _latency_columns(run.timing != "exclusive", _latency_note(run, known))
    own_notes = _own_notes(known, cells)
    seconds, speedup = (replace(c, own_notes=own_notes) for c in (seconds, speedup))
    ranked = not run.alone
    return [
        Quantity(seconds, measure, varied=varied, is_ranked=ranked, pooled=pooled),
        Quantity(speedup, measure, summary="ratio", varied=varied, is_ranked=ranked, pooled=pooled_ratio),
    ]


def _latency_columns(estimated: bool, note: str) -> tuple[Column, Column]:
    """Latency and speedup."""
    about = "speedup: the reference's mean latency / the method's, of the videos that both have; ± likewise"
    return (
        Column("latency", "latency", "s", False, estimated, "cost", 1, note, bounds=(0.0, None)),
        Column("speedup", "speedup", "×", True, estimated, "cost", 2, about, bounds=(0.0, None)),
    )


def _given_latencies(run: RunRecord, cells: Sequence[CellRecord]) -> list[Quantity]:
    """Of imported videos, as whoever made them says.

    A number that was given for several videos is one measurement: it has no spread.
    """

    def measure(cell: CellRecord) -> float | Gap:
        return UNTOLD if cell.latency_seconds is None else cell.latency_seconds

    def varied(cell: CellRecord) -> float | Gap:
        return GIVEN_ONCE if cell.latency_videos > 1 else measure(cell)

    ranked = all(cell.latency_videos <= 1 for cell in cells)
    seconds, speedup = _latency_columns(run.timing != "exclusive", "")
    return [
        Quantity(seconds, measure, varied=varied, is_ranked=ranked),
        Quantity(speedup, measure, summary="ratio", varied=varied, is_ranked=ranked),
    ]


def _latency_note(run: RunRecord, known: Times) -> str:
    work, stages, walked = known.work, known.stages, known.walked
    if not work:
        return ""
    parts = ["seconds that one video takes, as counts of steps × their median time"]
    if run.alone:
        parts += _pass_notes(run.alone, known)
    else:
        parts += ["of a shared run (est.)"] if run.timing != "exclusive" else []
        parts += ["± is over prompts, each with the median step times of its own videos"]
        parts += _jobs_notes(known)
    absent = [name for name in ONCE if name not in stages]
    parts += [f"without {' and '.join(absent)}, which no cell timed"] if absent else []
    hosts = {c.host for c in walked if c.step_seconds}
    parts += [f"times from {len(hosts)} hosts"] if len(hosts) > 1 else []
    return f"latency: {', '.join(parts)}"


def _jobs_notes(known: Times) -> list[str]:
    """What a reader must know where several jobs timed the steps."""
    jobs = frozenset[str]().union(*(t.jobs for t in known.work.values()))
    said = []
    if len(jobs) > 1:
        said.append(
            f"step times of {len(jobs)} jobs: each job's are divided by its own step of the reference, then "
            f"pooled, in the seconds of one job{f' ({known.unit})' if known.unit else ''}"
        )
    if "" in jobs:
        said.append("older records do not say which job timed their steps")
    return [*said, "so no best is marked; timing=exclusive times all methods in one job"] if said else []


def _own_notes(known: Times, cells: Sequence[CellRecord]) -> tuple[tuple[str, str], ...]:
    """What concerns the steps of some methods alone, by method: warm-up steps, and an earlier pass."""
    notes = {w: f"warm-up steps only for: {_denoiser(w)}" for w, t in known.work.items() if not t.warm}
    for work, began in known.earlier.items():
        notes[work] = f"steps of {_denoiser(work)} from an earlier pass, begun {began}"
    done = {(c.method_id, id(c.trace)): c for c in cells if c.trace is not None and c.outcome == "done"}
    found = {
        (cell.method_id, notes[work]): None
        for cell in done.values()
        for work in (cell.trace.work if cell.trace and notes else ())
        if work in notes
    }
    return tuple(found)


def _denoiser(work: str) -> str:
    """The name in a `Step.work`, without its hash."""
    return work.partition("#")[0]


def _pass_notes(alone: TimingPass, known: Times) -> list[str]:
    """What a reader must know of a timing pass, and how well counts × medians agree with whole walks."""
    rounds = f"{alone.rounds} rounds" if alone.rounds > 1 else "1 round"
    if alone.rounds < alone.asked:
        rounds += f" of the {alone.asked} asked for"
    parts = [f"each method alone, {rounds} on one prompt and seed, begun {alone.began}"]
    if alone.busy is not None and alone.busy > CROWDED:
        parts.append(f"though {alone.busy:.0%} of the processors were busy just before")
    if alone.others_bytes is not None and alone.others_bytes > CROWDED_BYTES:
        parts.append(f"though others held {alone.others_bytes / 2**30:.1f} GiB of the device's memory")
    off = disagreement(alone.walks, known.work, known.stages)
    if off is not None:
        parts.append(f"within {off:.1%} of whole walks by the clock")
    over = "prompts and rounds, of which there are few" if alone.rounds > 1 else "prompts, not over timings"
    parts.append(f"± is over {over}, so that no best is marked")
    return list(dict.fromkeys(parts))


# above them a timing pass was not alone; a driver holds some memory
CROWDED, CROWDED_BYTES = 0.2, 1.5 * 2**30


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
    column = Column(
        f"evaluations_{what}", f"evals {what}", kind="cost", decimals=1, note=note, bounds=(0.0, None)
    )
    return Quantity(column, measure)


def _computed(cell: CellRecord, model: str) -> int:
    steps = cell.trace.steps if cell.trace else ()
    return sum(s.calls_computed for s in steps if s.model == model)


def _reused(cell: CellRecord) -> int:
    return sum(s.calls_reused for s in (cell.trace.steps if cell.trace else ()))


def _modules_quantity() -> Quantity:
    @once_per_trace
    def measure(cell: CellRecord) -> float | Gap:
        share = modules_reused(cell.trace) if cell.trace else None
        if share is None:
            return Gap("missing", "no modules counted" if cell.trace else "no trace recorded")
        return PERCENT * share

    def word(method: Contender) -> tuple[str, str] | None:
        if any(not isinstance(measure(c), Gap) for c in method.cells.values()):
            return None
        return DASH, "no accelerator that acts inside an evaluation, or none whose record counts modules"

    note = (
        "modules reused: of the modules inside the computed evaluations that an accelerator acts on (PAB: "
        "the attention layers), the share whose output came from its cache; over all steps of that model"
    )
    column = Column(
        "modules_reused",
        "modules reused",
        "%",
        kind="cost",
        decimals=0,
        note=note,
        bounds=(0.0, PERCENT),
    )
    return Quantity(column, measure, word)


def modules_reused(trace: Trace) -> float | None:
    """The share of a video's modules whose output an accelerator took from its cache, in [0, 1].

    Of the modules that it counted, and of as many in each evaluation of the same model that was
    done before it was attached (a method may share such steps, and attach late): so that a video
    has one share however it was computed.  None where nothing was counted.
    """
    counted: dict[str, list[int]] = {}  # by model: modules and evaluations of the steps with a count
    for step in trace.steps:
        if modules := step.modules_computed + step.modules_reused:
            own = counted.setdefault(step.model, [0, 0])
            own[0] += modules
            own[1] += step.calls_computed
    if not counted:
        return None
    calls = Counter[str]()
    for step in trace.steps:
        calls[step.model] += step.calls_computed
    due = math.fsum(modules * calls[model] / (own or 1) for model, (modules, own) in counted.items())
    return sum(step.modules_reused for step in trace.steps) / due


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
        bounds=(0.0, None),
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
