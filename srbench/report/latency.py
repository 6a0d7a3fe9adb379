"""A cell's latency from what it did and how long such work takes.

In a shared run a cell's own times are not its latency: many of its steps were computed
once for several methods, on a machine that did other things between. What is
comparable is the work: steps of one `Step.work` class take the same time, so a cell's
latency is its counts times typical times, stage by stage. Such sums of a shared run are
marked "est."; a timing pass (`timing=exclusive`) feeds the same functions with better times.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TypeVar

import numpy as np

from srbench.errors import UserError
from srbench.store.records import CellRecord, RunRecord
from srbench.trace import Trace

Result = TypeVar("Result")
ONCE = ("encode", "decode")  # stages that every cell goes through once, whatever its path


@dataclass(frozen=True)
class Typical:
    """Median seconds of n timings; warm is False where only warm-up steps were there."""

    seconds: float
    n: int
    warm: bool = True


WARMUP = 2  # steps of a cell that are not looked at, if there are others


def work_seconds(cells: Iterable[CellRecord], warmup: int = WARMUP) -> dict[str, Typical]:
    """Median device-synchronised seconds of a step, for each class of `Step.work`.

    Left out: the first `warmup` steps of each cell and the first step after a switch of
    model (its weights may just have been moved), unless a class has no other step; then
    those are used and the class is marked not warm.  Cells that are not done, or have no
    times, count for nothing.

    A step that several methods shared stands in each one's cell with the same time.
    That weighs it more in the median and makes `n` larger than the number of
    independent timings, but doesn't bias the median within its class.

    Raises UserError where a cell's times don't fit its steps.
    """
    return StepTimes(cells, warmup).work


@dataclass(frozen=True)
class Times:
    """What a run's latencies are reckoned with.

    work, stages: as work_seconds and stage_seconds give them.  by_prompt: what stands in for
    work, prompt by prompt, where errors are taken from.  walked: the cells that all of it
    is of.  earlier: kinds of work that only an earlier timing pass has, with when that began.
    """

    work: dict[str, Typical]
    stages: dict[str, Typical]
    by_prompt: dict[int, dict[str, float]]
    walked: Sequence[CellRecord]
    earlier: dict[str, str]


def times(run: RunRecord, cells: Sequence[CellRecord]) -> Times:
    """Of the run's timing passes where it has any, else of the sweep itself.

    What the newest pass has not timed is taken from the one before it, and so on.
    """
    if not run.passes:
        own = StepTimes(cells)
        return Times(own.work, stage_seconds(cells), own.by_prompt, cells, {})
    prompts = sorted({c.prompt_index for c in cells})
    made = Times({}, {}, {p: {} for p in prompts}, [w for p in run.passes for w in p.walks], {})
    for one in run.passes:
        work = StepTimes(one.walks).work
        fresh = work.keys() - made.work.keys()
        if one is not run.passes[0]:
            made.earlier.update(dict.fromkeys(sorted(fresh), one.began))
        for prompt, varied in spread_over(prompts, work, by_round(one.walks)).items():
            made.by_prompt[prompt].update({w: s for w, s in varied.items() if w in fresh})
        made.work.update({w: work[w] for w in sorted(fresh)})
        stages = stage_seconds(one.walks)
        made.stages.update({n: stages[n] for n in stages.keys() - made.stages.keys()})
    return made


def by_round(walks: Sequence[CellRecord]) -> list[dict[str, float]]:
    """A timing pass's medians, round by round; a method's n-th walk is of the n-th round."""
    rounds: list[list[CellRecord]] = []
    seen: Counter[str] = Counter()
    for walk in walks:
        if seen[walk.method_id] == len(rounds):
            rounds.append([])
        rounds[seen[walk.method_id]].append(walk)
        seen[walk.method_id] += 1
    return [{name: t.seconds for name, t in work_seconds(own).items()} for own in rounds]


def spread_over(
    prompts: Sequence[int], work: Mapping[str, Typical], rounds: Sequence[Mapping[str, float]]
) -> dict[int, dict[str, float]]:
    """Seconds for each prompt, which spread over prompts as the rounds' own spread makes a mean uncertain.

        s_i = m + √((G − 1) / (R − 1)) · (m_{i mod R} − m)        G prompts, R rounds, m their mean

    One prompt was walked, so prompts as such say nothing of how well a time is known; rounds do.
    The standard error of the G values' mean is then that of the mean of R rounds, exactly where R
    divides G.  Empty with one round, of which no spread is known, and where there is no video.
    """
    if len(rounds) < 2 or not prompts:
        return {}
    scale = math.sqrt((len(prompts) - 1) / (len(rounds) - 1))
    found: dict[int, dict[str, float]] = {p: {} for p in prompts}
    for name, typical in work.items():
        known = [r[name] for r in rounds if name in r]
        middle = math.fsum(known) / len(known)
        for i, prompt in enumerate(prompts):
            found[prompt][name] = max(0.0, typical.seconds + scale * (known[i % len(known)] - middle))
    return found


def apart(cells: Sequence[CellRecord]) -> dict[str, float]:
    """Methods by label whose steps another job timed than the reference's, and the seconds between.

    Between the moments at which a video and the reference's were finished, median over prompts
    and seeds.  One job does a prompt and seed in about the seconds that all its steps take
    together: what lies three times as far apart, and ten minutes, is told of.
    """
    finished: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    spent: dict[tuple[int, int], float] = defaultdict(float)
    for cell in cells:
        if cell.outcome == "done" and cell.step_seconds and cell.finished:
            unit = cell.prompt_index, cell.seed
            moment = datetime.datetime.fromisoformat(cell.finished).timestamp()
            finished[unit][REFERENCE if cell.is_reference else cell.label] = moment
            spent[unit] += math.fsum(s or 0.0 for s in cell.step_seconds)
    gaps: dict[str, list[float]] = defaultdict(list)
    allowed: dict[str, list[float]] = defaultdict(list)
    for unit, moments in finished.items():
        at = moments.pop(REFERENCE, None)
        if at is None:
            continue
        for label, moment in moments.items():
            gaps[label].append(abs(moment - at))
            allowed[label].append(max(APART, 3 * spent[unit]))
    found = {label: median(own) for label, own in gaps.items()}
    return {label: gap for label, gap in found.items() if gap > median(allowed[label])}


REFERENCE = ""  # no label is empty
APART = 600.0  # seconds


class StepTimes:
    """The step times of cells, as work_seconds takes them; raises UserError as that does."""

    def __init__(self, cells: Iterable[CellRecord], warmup: int = WARMUP) -> None:
        self._timings = _timings(cells, warmup)

    @cached_property
    def work(self) -> dict[str, Typical]:
        """Of the whole run: work_seconds."""
        return {
            work: Typical(float(np.median(own.seconds)), len(own.seconds), own.warm)
            for work, own in self._timings.items()
        }

    @cached_property
    def by_prompt(self) -> dict[int, dict[str, float]]:
        """The medians of each prompt's own cells, by prompt_index; only of what was timed there.

        They hold how the machine's speed changed meanwhile, which the medians over the run do
        not: so they tell how well a latency is known, and those what it is.
        """
        found: dict[int, dict[str, float]] = defaultdict(dict)
        for work, own in self._timings.items():
            order = np.argsort(own.prompts, kind="stable")
            prompts, first = np.unique(own.prompts[order], return_index=True)
            parts = np.split(own.seconds[order], first[1:])
            for prompt, part in zip(prompts.tolist(), parts, strict=True):
                found[prompt][work] = float(np.median(part))
        return dict(found)


@dataclass(frozen=True, eq=False)
class _Timings:
    """Of one class of work: seconds (n,) and whose prompt each is (n,); warm as in Typical."""

    seconds: np.ndarray
    prompts: np.ndarray
    warm: bool


def _timings(cells: Iterable[CellRecord], warmup: int) -> dict[str, _Timings]:
    warm: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    cold: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    timed: dict[tuple[tuple[str, bool], ...], list[CellRecord]] = defaultdict(list)
    kinds = once_per_trace(lambda cell: _kinds(cell.trace or Trace()))
    for cell in cells:
        if _is_timed(cell):
            timed[kinds(cell)].append(cell)  # few, for many cells
    for steps, same in timed.items():
        prompts = np.array([cell.prompt_index for cell in same])
        times = np.array([cell.step_seconds for cell in same], np.float64)  # None becomes NaN
        for position, (work, switched) in enumerate(steps):
            is_cold = position < warmup or switched
            (cold if is_cold else warm)[work].append((times[:, position], prompts))
    return _known(cold, False) | _known(warm, True)


def _known(times: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], warm: bool) -> dict[str, _Timings]:
    """What was timed: it is NaN where an earlier run did that step."""
    found = {}
    for work, parts in times.items():
        seconds, prompts = (np.concatenate(of) for of in zip(*parts, strict=True))
        known = ~np.isnan(seconds)
        if known.any():
            found[work] = _Timings(seconds[known], prompts[known], warm)
    return found


def _is_timed(cell: CellRecord) -> bool:
    """Has it times?  Raises UserError where they don't fit its steps."""
    if cell.outcome != "done" or cell.trace is None or not cell.step_seconds:
        return False
    if len(cell.trace) != len(cell.step_seconds):
        raise UserError(
            f"cell {cell.id[:12]} ({cell.method}): {len(cell.step_seconds)} times, {len(cell.trace)} steps",
            "one time for each step",
            "delete the cell's record and run the experiment again",
        )
    return True


def _kinds(trace: Trace) -> tuple[tuple[str, bool], ...]:
    """(work, is it the first after a switch) of each step."""
    models = [step.model for step in trace.steps]
    before = [models[0], *models[:-1]] if models else []
    return tuple((step.work, step.model != last) for step, last in zip(trace.steps, before, strict=True))


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


def stage_seconds(cells: Iterable[CellRecord]) -> dict[str, Typical]:
    """Median seconds of encode, hand_over and decode over all cells that recorded them.

    The denoise stage is left out: it is a sum of steps, see cell_latency.
    """
    seen: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        if cell.outcome == "done":
            for stage in cell.stages:
                if stage.name != "denoise":
                    seen[stage.name].append(stage.seconds)
    return {name: Typical(median(times), len(times)) for name, times in seen.items()}


def cell_latency(
    cell: CellRecord,
    work: Mapping[str, Typical],
    stages: Mapping[str, Typical] | None = None,
    own: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Seconds of each stage, ≥ 0; their sum is the cell's latency.

        denoise = Σ_w (steps of work w) · work[w]
        encode, decode = once each, the median over cells
        hand_over = (switches of model) · the median over cells

    `own`: seconds of some classes that stand in for work[w], as StepTimes.by_prompt has
    them.  `stages` is stage_seconds of the same cells; a stage that nobody timed is left out,
    and the caller says so.  Every cell is charged for text encoding and for decoding,
    also where sharing spared it, for a method run alone would pay them.

    An imported cell's latency is what whoever made it says, as one stage `told`.

    Raises LookupError, with a sentence, where the cell has no trace or does work that
    no cell was timed at.
    """
    if cell.latency_seconds is not None:
        return {"told": cell.latency_seconds}
    if cell.trace is None or not cell.trace.steps:
        raise LookupError("no trace recorded")
    counts = cell.trace.work
    untimed = sorted(counts.keys() - work.keys())
    if untimed:
        denoiser = untimed[0].partition("#")[0]
        raise LookupError(f"no step of the denoiser {denoiser} was timed in this run")
    known, own = stages or {}, own or {}
    each = ((n, own[name] if name in own else work[name].seconds) for name, n in counts.items())
    seconds = {"denoise": math.fsum(n * s for n, s in each)}
    seconds |= {name: known[name].seconds for name in ONCE if name in known}
    switches = len(cell.trace.switches)
    if switches and "hand_over" in known:
        seconds["hand_over"] = switches * known["hand_over"].seconds
    return seconds


def disagreement(
    walks: Sequence[CellRecord], work: Mapping[str, Typical], stages: Mapping[str, Typical]
) -> float | None:
    """The largest relative difference of a method's median walk by the clock from counts × medians.

    The clock's holds what no step does: models moved, rules asked.  None without walks.
    """
    clock: dict[str, list[float]] = defaultdict(list)
    reckoned: dict[str, float] = {}
    for walk in walks:
        whole = next((s.seconds for s in walk.stages if s.name == "denoise"), None)
        if whole is not None:
            seconds = cell_latency(walk, work, stages)
            clock[walk.method_id].append(whole)
            reckoned[walk.method_id] = seconds["denoise"] + seconds.get("hand_over", 0.0)
    return max((abs(reckoned[m] / median(own) - 1) for m, own in clock.items()), default=None)
