"""A cell's latency from what it did and how long such work takes.

In a shared run the times of a cell are not its latency: many of its steps were computed
once for several methods, on a machine that did other things in between. What is
comparable is the work: steps that compute the same take the same time, so a cell's
latency is its counts times typical times, stage by stage. Such sums of a shared run are
marked "est."; a timing pass (`timing=exclusive`) feeds the same functions with better times.

Times of different jobs are not comparable: a machine that is busy or throttled is several times
slower. So every time is divided by the same job's time of a step of the reference before
times of several jobs are pooled, and times of a job without such a step are not used.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import TypeVar

import numpy as np

from srbench.errors import UserError
from srbench.store.records import CellRecord, RunRecord, TimingPass
from srbench.trace import Step, Trace

Result = TypeVar("Result")
ONCE = ("encode", "decode")  # stages that every cell goes through once, whatever its path
STAGES = (*ONCE, "hand_over")  # the denoise stage is left out: it is a sum of steps


@dataclass(frozen=True)
class Typical:
    """Median seconds of n timings.

    warm: False where only warm-up steps were timed.  jobs: those that timed it; "" is a job
    that the records do not name.
    """

    seconds: float
    n: int
    warm: bool = True
    jobs: frozenset[str] = field(default=frozenset(), compare=False)


WARMUP = 2  # steps of a cell that are not looked at, if there are others


def work_seconds(cells: Iterable[CellRecord], warmup: int = WARMUP) -> dict[str, Typical]:
    """Median device-synchronised seconds of a step, for each `Step.work`.

    Steps that compute the same have one median, whatever method requested them.  Times of
    several jobs are pooled as multiples of each job's own step of the reference, and given in
    the seconds of one of the jobs.  What only jobs without a step of the reference timed is
    not in the result.

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


def stage_seconds(cells: Iterable[CellRecord]) -> dict[str, Typical]:
    """Median seconds of encode, hand_over and decode over all cells that recorded them.

    Of several jobs as in work_seconds.
    """
    return StepTimes(cells).stages


@dataclass(frozen=True)
class Times:
    """What a run's latencies are computed from.

    work, stages: as work_seconds and stage_seconds give them.  by_prompt: what stands in for
    work, prompt by prompt, where errors are taken from.  walked: the cells that all of it
    is of.  earlier: works that only an earlier timing pass has, with when that began.
    elsewhere: works and stages that were timed, but only in jobs without a step of the
    reference.  unit: the job whose seconds these are, where there are several.
    """

    work: dict[str, Typical]
    stages: dict[str, Typical]
    by_prompt: dict[int, dict[str, float]]
    walked: Sequence[CellRecord]
    earlier: dict[str, str] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    unit: str = ""

    def jobs(self, cells: Iterable[CellRecord]) -> frozenset[str]:
        """The jobs that timed what these cells did."""
        works = {w for trace in _traces(cells).values() for w in trace.work}
        known = [self.work[w].jobs for w in works if w in self.work]
        return frozenset().union(*known, *(s.jobs for s in self.stages.values() if known))


def rests_on_several(jobs: Collection[str]) -> bool:
    """Whether times are of several jobs, or of jobs that older records do not name."""
    return len(jobs) > 1 or "" in jobs


def times(run: RunRecord, cells: Sequence[CellRecord]) -> Times:
    """Of the run's timing passes where it has any, else of the sweep itself."""
    if run.passes:
        return _of_passes(run.passes, cells)
    own = StepTimes(cells)
    return Times(own.work, own.stages, own.by_prompt, cells, elsewhere=own.elsewhere, unit=own.scales.unit)


def _of_passes(passes: Sequence[TimingPass], cells: Sequence[CellRecord]) -> Times:
    """Of timing passes, newest first: what one has not timed is taken from the one before it.

    An earlier pass's times are converted by its own steps of the reference, as another job's are.
    """
    walks = [w for p in passes for w in p.walks]
    kinds = Kinds([*cells, *walks])
    each = [StepTimes([_of_pass(w, i) for w in p.walks], kinds=kinds) for i, p in enumerate(passes)]
    scales = Scales({str(i): own.typical for i, own in enumerate(each)}, kinds.main(walks), newest_first=True)
    prompts = sorted({c.prompt_index for c in cells})
    known: dict[str, Typical] = {}
    by_prompt: dict[int, dict[str, float]] = {p: {} for p in prompts}
    earlier: dict[str, str] = {}
    timed: set[str] = set()
    for i, (one, own) in enumerate(zip(passes, each, strict=True)):
        timed |= own.typical.keys()
        scale = scales.of.get(str(i))
        if scale is None:
            continue
        fresh = own.typical.keys() - known.keys()
        if i:
            earlier.update(dict.fromkeys(sorted(fresh), one.began))
        known |= {n: replace(own.typical[n], seconds=own.typical[n].seconds * scale) for n in sorted(fresh)}
        rounds = [{n: s * scale for n, s in r.items()} for r in by_round(one.walks, kinds)]
        for prompt, varied in spread_over(prompts, known, rounds).items():
            by_prompt[prompt].update({n: s for n, s in varied.items() if n in fresh})
    return Times(
        kinds.each(known),
        {n: known[n] for n in STAGES if n in known},
        {p: kinds.each(own) for p, own in by_prompt.items()},
        walks,
        kinds.each(earlier),
        kinds.names(timed - known.keys()),
    )


def _of_pass(walk: CellRecord, number: int) -> CellRecord:
    """A pass is one process: a job, whatever its walks call it."""
    return walk.model_copy(update={"job": str(number)})


def by_round(walks: Sequence[CellRecord], kinds: Kinds | None = None) -> list[dict[str, float]]:
    """A timing pass's medians, round by round; a method's n-th walk is of the n-th round."""
    rounds: list[list[CellRecord]] = []
    seen: Counter[str] = Counter()
    for walk in walks:
        if seen[walk.method_id] == len(rounds):
            rounds.append([])
        rounds[seen[walk.method_id]].append(walk)
        seen[walk.method_id] += 1
    medians = (StepTimes(own, kinds=kinds).typical for own in rounds)
    return [{n: t.seconds for n, t in own.items() if n not in STAGES} for own in medians]


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
        if not known:
            continue
        middle = math.fsum(known) / len(known)
        for i, prompt in enumerate(prompts):
            found[prompt][name] = max(0.0, typical.seconds + scale * (known[i % len(known)] - middle))
    return found


class Kinds:
    """Which steps of some cells compute the same, and so have one class of times.

    A step in which an accelerator reuses nothing is a step of the model alone, where the
    accelerator says so (`CellRecord.computes`).
    """

    def __init__(self, cells: Iterable[CellRecord]) -> None:
        traces = _traces(cells := list(cells))
        self._same = {denoiser: same for cell in cells for denoiser, same in cell.computes.items()}
        self._names: dict[str, list[str]] = defaultdict(list)
        every = {step.work: self(step) for trace in traces.values() for step in trace.steps}
        for work, kind in every.items():
            self._names[kind].append(work)

    def __call__(self, step: Step) -> str:
        """The class of a step."""
        if step.calls_reused or step.modules_reused or step.denoiser not in self._same:
            return step.work
        return f"{self._same[step.denoiser]} {step.calls_computed}+0"

    def each(self, of: Mapping[str, Result]) -> dict[str, Result]:
        """What is known of classes, by every `Step.work` that is of one."""
        return {work: value for kind, value in of.items() for work in self._names.get(kind, ())}

    def names(self, kinds: Iterable[str]) -> frozenset[str]:
        """Every `Step.work` of these classes; a stage is its own."""
        return frozenset(name for kind in kinds for name in self._names.get(kind, [kind]))

    def main(self, cells: Iterable[CellRecord]) -> list[str]:
        """The classes of the reference's steps, the one with the most steps first."""
        found: Counter[str] = Counter()
        for cell in cells:
            if cell.is_reference and cell.trace is not None and cell.outcome == "done":
                found.update({self(step): 0 for step in cell.trace.steps})
                found.update(map(self, cell.trace.steps))
        return sorted(found, key=lambda kind: (-found[kind], kind))


class Scales:
    """What turns the times of each job into those of one of them: its seconds of a step of the reference.

    typical: each job's own medians, by class.  main: classes of the reference's steps, the most
    important first.  newest_first: `typical` is in that order, and the newest is the unit; else the
    job that timed the most classes.  of: by job, the factor; a job that is not in it has no such
    step.  unit: the job whose factor is 1.  warm: the jobs whose step of the reference is no warm-up.
    """

    def __init__(
        self, typical: Mapping[str, Mapping[str, Typical]], main: Sequence[str], newest_first: bool = False
    ) -> None:
        self.of: dict[str, float] = {}
        self.unit, self.warm = "", frozenset(typical)
        if len(typical) <= 1:
            self.of = dict.fromkeys(typical, 1.0)
            return
        count = Counter(kind for own in typical.values() for kind in own if kind not in STAGES)
        others = sorted(count, key=lambda kind: (-count[kind], kind))
        base = next((kind for kind in [*main, *others] if count[kind]), "")
        own = {job: of[base] for job, of in typical.items() if base in of and of[base].seconds > 0}
        if not own:
            return
        self.warm = frozenset(job for job, t in own.items() if t.warm)
        self.unit = (
            next(iter(own))
            if newest_first
            else max(own, key=lambda j: (own[j].warm, len(typical[j]), own[j].n, j))
        )
        self.of = {job: own[self.unit].seconds / t.seconds for job, t in own.items()}


class StepTimes:
    """The times of cells' steps and stages, as work_seconds takes them; raises UserError as that does.

    kinds: of these cells and of whatever else the medians are for.
    """

    def __init__(self, cells: Iterable[CellRecord], warmup: int = WARMUP, kinds: Kinds | None = None) -> None:
        cells = list(cells)
        self.kinds = kinds or Kinds(cells)
        parts = _parts(cells, warmup, self.kinds)
        jobs: dict[str, dict[str, list[_Part]]] = defaultdict(lambda: defaultdict(list))
        for kind, of_kind in parts.items():
            for part in of_kind:
                jobs[part.job][kind].append(part)
        own = {job: {kind: _typical(ps) for kind, ps in of.items()} for job, of in jobs.items()}
        self.scales = Scales(own, self.kinds.main(cells))
        scaled = {kind: self._scaled(of_kind) for kind, of_kind in parts.items()}
        self._timings = {kind: _best(of_kind) for kind, of_kind in scaled.items() if of_kind}
        self.elsewhere = self.kinds.names(kind for kind, of_kind in scaled.items() if not of_kind)

    def _scaled(self, parts: Iterable[_Part]) -> list[_Part]:
        """In the seconds of one job; a multiple of a warm-up step is as little known as that is."""
        scales = self.scales
        return [
            replace(p, seconds=p.seconds * scales.of[p.job], warm=p.warm and p.job in scales.warm)
            for p in parts
            if p.job in scales.of
        ]

    @cached_property
    def typical(self) -> dict[str, Typical]:
        """By class of steps, and by stage."""
        return {kind: _typical(parts) for kind, parts in self._timings.items()}

    @property
    def work(self) -> dict[str, Typical]:
        """Of the whole run: work_seconds."""
        return self.kinds.each(self.typical)

    @property
    def stages(self) -> dict[str, Typical]:
        """Of the whole run: stage_seconds."""
        return {name: self.typical[name] for name in STAGES if name in self.typical}

    @cached_property
    def by_prompt(self) -> dict[int, dict[str, float]]:
        """The medians of each prompt's own cells, by prompt_index; only of what was timed there.

        They hold how the machine's speed changed meanwhile, which the medians over the run do
        not: so they tell how well a latency is known, and those what it is.
        """
        found: dict[int, dict[str, float]] = defaultdict(dict)
        for kind, own in self._timings.items():
            if kind in STAGES:
                continue
            every = np.concatenate([p.prompts for p in own])
            seconds = np.concatenate([p.seconds for p in own])
            order = np.argsort(every, kind="stable")
            prompts, first = np.unique(every[order], return_index=True)
            parts = np.split(seconds[order], first[1:])
            for prompt, part in zip(prompts.tolist(), parts, strict=True):
                found[prompt][kind] = float(np.median(part))
        return {prompt: self.kinds.each(own) for prompt, own in found.items()}


@dataclass(frozen=True, eq=False)
class _Part:
    """Timings of one class by one job: seconds (n,) and whose prompt each is (n,); warm as in Typical."""

    job: str
    warm: bool
    seconds: np.ndarray
    prompts: np.ndarray


def _best(parts: Sequence[_Part]) -> list[_Part]:
    """The warm ones; the others where there is none."""
    return [p for p in parts if p.warm] or list(parts)


def _typical(parts: Sequence[_Part]) -> Typical:
    best = _best(parts)
    seconds = np.concatenate([p.seconds for p in best])
    return Typical(float(np.median(seconds)), len(seconds), best[0].warm, frozenset(p.job for p in best))


def _parts(cells: Sequence[CellRecord], warmup: int, kinds: Kinds) -> dict[str, list[_Part]]:
    """All timings of steps and stages by class.  Steps that an earlier job did have none."""
    found: dict[str, list[_Part]] = defaultdict(list)
    timed: dict[tuple[str, tuple[tuple[str, bool], ...]], list[CellRecord]] = defaultdict(list)
    steps_of = once_per_trace(lambda cell: _steps(cell.trace or Trace(), kinds))
    for cell in cells:
        if _is_timed(cell):
            timed[cell.job, steps_of(cell)].append(cell)  # few, for many cells
    for (job, steps), same in timed.items():
        prompts = np.array([cell.prompt_index for cell in same])
        times = np.array([cell.step_seconds for cell in same], np.float64)  # None becomes NaN
        known = ~np.isnan(times)
        for position, (kind, switched) in enumerate(steps):
            there = known[:, position]
            if there.any():
                is_warm = position >= warmup and not switched
                found[kind].append(_Part(job, is_warm, times[there, position], prompts[there]))
    for name, of_stage in _stages(cells).items():
        found[name] += of_stage
    return found


def _stages(cells: Iterable[CellRecord]) -> dict[str, list[_Part]]:
    seen: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for cell in cells:
        if cell.outcome == "done":
            for stage in cell.stages:
                if stage.name in STAGES:
                    seen[stage.name, cell.job].append((stage.seconds, cell.prompt_index))
    found: dict[str, list[_Part]] = defaultdict(list)
    for (name, job), timings in seen.items():
        seconds, prompts = (np.array(own) for own in zip(*timings, strict=True))
        found[name].append(_Part(job, True, seconds, prompts))
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


def _steps(trace: Trace, kinds: Kinds) -> tuple[tuple[str, bool], ...]:
    """(class, is it the first after a switch) of each step."""
    models = [step.model for step in trace.steps]
    before = [models[0], *models[:-1]] if models else []
    return tuple((kinds(step), step.model != last) for step, last in zip(trace.steps, before, strict=True))


def _traces(cells: Iterable[CellRecord]) -> dict[int, Trace]:
    """Each trace of done cells once: thousands of videos share few."""
    return {id(c.trace): c.trace for c in cells if c.trace is not None and c.outcome == "done"}


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


def cell_latency(
    cell: CellRecord,
    work: Mapping[str, Typical],
    stages: Mapping[str, Typical] | None = None,
    own: Mapping[str, float] | None = None,
    elsewhere: Collection[str] = (),
) -> dict[str, float]:
    """Seconds of each stage, ≥ 0; their sum is the cell's latency.

        denoise = Σ_w (steps of work w) · work[w]
        encode, decode = once each, the median over cells
        hand_over = (switches of model) · the median over cells

    `own`: seconds of some works that stand in for work[w], as StepTimes.by_prompt has
    them.  `stages` is stage_seconds of the same cells; a stage that nobody timed is left out,
    and the caller says so.  Every cell is charged for text encoding and for decoding,
    also where sharing spared it, for a method run alone would pay them.  `elsewhere`: as in Times.

    The latency of an imported cell is what whoever made it says, as one stage `told`.

    Raises LookupError, with a sentence, where the cell has no trace or does work that
    no job timed, or none that has a step of the reference.
    """
    if cell.latency_seconds is not None:
        return {"told": cell.latency_seconds}
    if cell.trace is None or not cell.trace.steps:
        raise LookupError("no trace recorded")
    counts, switches = cell.trace.work, len(cell.trace.switches)
    known, own = stages or {}, own or {}
    needed = [*ONCE, *(["hand_over"] if switches else [])]
    _refuse_untimed(counts.keys() - work.keys(), [n for n in needed if n not in known], elsewhere)
    each = ((n, own[name] if name in own else work[name].seconds) for name, n in counts.items())
    seconds = {"denoise": math.fsum(n * s for n, s in each)}
    seconds |= {name: known[name].seconds for name in ONCE if name in known}
    if switches and "hand_over" in known:
        seconds["hand_over"] = switches * known["hand_over"].seconds
    return seconds


def _refuse_untimed(works: Collection[str], stages: Iterable[str], elsewhere: Collection[str]) -> None:
    """Raise LookupError for works without a time, and for stages timed where it cannot be converted."""
    apart = [name for name in (*sorted(works), *stages) if name in elsewhere]
    if apart:
        what = apart[0] if apart[0] in STAGES else f"the denoiser {apart[0].partition('#')[0]}"
        raise LookupError(f"{what.replace('_', '-')} was timed only in jobs without a step of the reference")
    if works:
        denoiser = min(works).partition("#")[0]
        raise LookupError(f"no step of the denoiser {denoiser} was timed in this run")


def disagreement(
    walks: Sequence[CellRecord], work: Mapping[str, Typical], stages: Mapping[str, Typical]
) -> float | None:
    """The largest relative difference of a method's median walk by the clock from counts × medians.

    The clock's holds what no step does: models moved, rules asked.  None without walks.
    """
    clock: dict[str, list[float]] = defaultdict(list)
    summed: dict[str, float] = {}
    for walk in walks:
        whole = next((s.seconds for s in walk.stages if s.name == "denoise"), None)
        if whole is not None:
            seconds = cell_latency(walk, work, stages)
            clock[walk.method_id].append(whole)
            summed[walk.method_id] = seconds["denoise"] + seconds.get("hand_over", 0.0)
    return max((abs(summed[m] / median(own) - 1) for m, own in clock.items()), default=None)
