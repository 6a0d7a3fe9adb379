"""What an experiment will cost, told before a model is loaded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from srbench.config.experiment import Denoiser, Experiment, Method, Sampling
from srbench.config.fingerprint import may_have_gpu
from srbench.config.registry import identity
from srbench.errors import UserError, counted
from srbench.families._budget import peak
from srbench.metrics.base import all_facts
from srbench.planning.plan import Keys, Progress, Shard, Unit, settings, timed_methods
from srbench.planning.steps import Cost, Steps, cost, earliest, latest
from srbench.rules.base import Rule, replay
from srbench.sampling.paths import Assume, as_walked, schedule, state_key, trace_key
from srbench.store.objects import STATE, Listing, Store
from srbench.store.records import CellRecord, RunRecord, cell_files, read_cell, read_run_record
from srbench.suites.base import seeding
from srbench.trace import Trace

# -- what stored runs of the family say


@dataclass(frozen=True)
class Measured:
    """What runs of this family on this device have shown; each empty where there was none.

    seconds: of a plain guided step, by model.  rest: of encoding and decoding a video.
    traces: of the large model alone, by number of steps.  video, state: bytes of each.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    rest: float | None = None
    traces: tuple[Trace, ...] = ()
    video: float | None = None
    state: float | None = None


# Settings of a family that a step's time does not depend on.
_NO_MATTER = ("price", "name", "device", "steps", "shift", "sigma_grid", "negative_prompt", "fps", "teacache")
_READ = 200  # records at most: a plan is told within seconds


def measured(experiment: Experiment, results: Path, device: str, protocol: str, there: Listing) -> Measured:
    """Look through the runs below `results`, the newest first.

    device: as a run's record describes it.  there: what the store holds.
    """
    cells: list[tuple[RunRecord, CellRecord]] = []
    for folder in sorted(results.glob("*/*/run.json"), key=lambda p: -p.stat().st_mtime):
        record = _similar(folder.parent, experiment, device)
        files = cell_files(folder.parent) if record else []
        for file in files[: _READ - len(cells)]:
            cell = _readable(file)
            if record is not None and cell is not None and cell.outcome == "done":
                cells.append((record, cell))
    every = [cell for _, cell in cells]
    seconds = {model: _step_seconds(every, model) for model in ("large", "small")}
    traces = [
        c.trace
        for r, c in cells
        if c.trace and r.protocol == protocol and _is_plain(c.trace, "large") and not _resampled(r, c)
    ]
    sizes = [size for name, size in there.sizes.items() if name.endswith(STATE)] if cells else []
    return Measured(
        seconds={model: median(s) for model, s in seconds.items() if s},
        counts={model: len(s) for model, s in seconds.items()},
        rest=median(sum(s.seconds for s in c.stages if s.name != "hand_over") for c in every)
        if every
        else None,
        traces=tuple(traces),
        video=fmean(found) if (found := [c.video_bytes for c in every if c.video_bytes]) else None,
        state=median(sizes) if sizes else None,
    )


def _similar(run: Path, experiment: Experiment, device: str) -> RunRecord | None:
    """A run's record, if its steps took place on this device with models of this size."""

    def matters(family: object) -> dict[str, object]:
        plain = identity(family)
        return {k: v for k, v in plain.items() if k not in _NO_MATTER}

    try:
        record = read_run_record(run)
    except UserError:
        return None
    ours = matters(settings(experiment)["family"])
    same = record.device == device and record.threads == experiment.engine.threads
    return record if same and matters(record.resolved.get("family", {})) == ours else None


def _readable(file: Path) -> CellRecord | None:
    try:
        return read_cell(file)
    except UserError:
        return None


def _resampled(record: RunRecord, cell: CellRecord) -> bool:
    """Whether a cell's method has a sampler of its own."""
    return any(m.sampler is not None for m in record.methods if m.id == cell.method_id)


def _is_plain(trace: Trace, model: str) -> bool:
    return all(s.model == model and "+" not in s.denoiser and not s.calls_reused for s in trace.steps)


def _step_seconds(cells: Sequence[CellRecord], model: str) -> list[float]:
    """Of every step that the model did whole, without an accelerator."""
    return [
        seconds
        for cell in cells
        for step, seconds in zip(cell.trace.steps if cell.trace else (), cell.step_seconds, strict=False)
        if seconds is not None and step.model == model and "+" not in step.denoiser
    ]


# -- what a plan reckons with


@dataclass(frozen=True)
class Expectation:
    """After how many steps a rule is assumed to fire, and why."""

    at: int
    why: str


def expectations(experiment: Experiment, traces: Sequence[Trace]) -> Callable[..., Expectation]:
    """For each rule: replayed on traces measured here, else the family's word, else the paper's."""
    price = experiment.family.price
    known = price.switch if price is not None else {}

    def expect(rule: Rule, timesteps: Sequence[float]) -> Expectation:
        first, last = rule.window(timesteps)
        fitting = [t for t in traces if len(t) == len(timesteps)] if first != last else []
        if fitting:
            mean = fmean(replay(rule, t) or len(timesteps) for t in fitting)
            return Expectation(
                round(mean), f"mean {mean:.1f}, measured here, {counted(len(fitting), 'video')}"
            )
        return Expectation(*rule.expected(timesteps, known))

    return expect


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes that a plan reckons with, and where they come from.

    gpu: the GPU whose published seconds these are; None where a run on this machine, or a
    CPU's price, says them.
    """

    large: float
    small: float
    rest: float
    video: float | None
    state: float | None
    source: str
    gpu: str | None = None


def rates(experiment: Experiment, found: Measured) -> Rates | None:
    """Measured here where there is such a run, else the family's price; None where neither is."""
    price, seconds, told = experiment.family.price, {}, []
    for model in ("large", "small"):
        other = "small" if model == "large" else "large"
        if model in found.seconds:
            seconds[model] = found.seconds[model]
            why = f"measured here, median of {found.counts[model]} steps"
        elif price is not None and other in found.seconds:
            ratio = found.seconds[other] / getattr(price, other)
            seconds[model] = getattr(price, model) * ratio
            why = f"guessed: the family's price × {ratio:.2g}, as the {other} model's"
        elif price is not None:
            seconds[model], why = getattr(price, model), price.source
        else:
            return None
        told.append(f"{seconds[model]:.3g} s a {model} step ({why})")
    rest = found.rest if found.rest is not None else price.rest if price else 0.0
    return Rates(
        large=seconds["large"],
        small=seconds["small"],
        rest=rest,
        video=found.video or (price.video if price else None),
        state=found.state or (price.state if price else None),
        source=f"{'; '.join(told)}; {rest:.3g} s to encode and decode a video",
        gpu=price.gpu if price is not None and not found.seconds else None,
    )


@dataclass(frozen=True)
class Left:
    """What is still to be computed, all units together."""

    shared: Steps
    cells: int
    states: int


# What is missing of a unit: methods by name, and after which steps each beginning is kept.
_Case = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]


class Work:
    """What is still to be computed, units that lack the same counted together.

    A sweep has thousands of units and few ways to lack something.
    """

    def __init__(
        self, experiment: Experiment, methods: Sequence[Method], done: Progress, keys: Keys, there: Listing
    ) -> None:
        self.experiment, self.methods = experiment, {m.name: m for m in methods}
        self.roots = {_root(m): m for m in methods}
        self.cases: Counter[_Case] = Counter()
        for unit, own in done.cells.items():
            present = {*own, *done.elsewhere[unit]}
            if missing := tuple(m.name for m in methods if m.name not in present):
                self.cases[(missing, self._kept(unit, keys, there))] += 1

    def _kept(self, unit: Unit, keys: Keys, there: Listing) -> tuple[tuple[int, ...], ...]:
        """For each root, after which steps its state is in the store."""
        if not there.keys:
            return ((),) * len(self.roots)

        def kept(method: Method) -> tuple[int, ...]:
            denoiser = method.segments[0].denoiser
            n = len(self.experiment.family.timesteps(method.steps, method.sampler))
            unit_key, weights = keys.unit(unit.text, unit.noise_seed(method)), keys.weights([denoiser.model])
            place = unit_key, weights, schedule(n, method.sampler)
            if trace_key(*place, [], denoiser.digest) not in there.keys:
                return ()
            steps = range(1, n + 1)
            return tuple(i for i in steps if state_key(*place, [], denoiser.digest, i) in there.keys)

        return tuple(kept(m) for m in self.roots.values())

    def left(self, assume: Assume) -> Left:
        """Steps, cells and states, from the nearest kept states on."""
        shared, cells, states = Steps(), 0, 0
        for (missing, kept), units in self.cases.items():
            begun = dict(zip(self.roots, kept, strict=True))
            methods = [self.methods[name] for name in missing]
            one = cost(
                self.experiment,
                methods,
                assume,
                lambda m, n, begun=begun: max((i for i in begun[_root(m)] if i <= n), default=0),  # type: ignore[misc]
            )
            shared, cells = shared + one.shared.times(units), cells + len(missing) * units
            states += one.states * units
        return Left(shared, cells, states)


def _root(method: Method) -> tuple[Denoiser, int | None, str, Sampling | None]:
    """What two methods must have in common to begin as one."""
    return method.segments[0].denoiser, method.steps, method.noise, method.sampler


@dataclass(frozen=True)
class Price:
    """A plan's figures, as lines for a reader and as the numbers that refusals need."""

    lines: tuple[tuple[str, str], ...]
    disk: float | None


def price(
    experiment: Experiment,
    done: Progress,
    keys: Keys,
    store: Store,
    results: Path,
    device: str,
    rounds: int = 0,
    shard: Shard | None = None,
) -> Price:
    """What an experiment costs: in whole, and what of it is left to do.

    done: what the run has already, of the shard's units alone.  device: as `ground.described` says it.
    rounds: of the timing pass.  shard: the part of the run that is priced; all of it where None.
    """
    family, there = experiment.family, store.listing()
    found = measured(experiment, results, device, keys.protocol, there)
    methods = [m for m in experiment.methods if not m.lacking]
    if experiment.late_attach:
        methods = [as_walked(m, family) for m in methods]
    expect = expectations(experiment, found.traces)

    def expected(rule: Rule, timesteps: Sequence[float]) -> int:
        return expect(rule, timesteps).at

    def late(rule: Rule, timesteps: Sequence[float]) -> int:
        return max(expected(rule, timesteps), latest(rule, timesteps))

    assumptions = (earliest, expected, late)
    whole = cost(experiment, methods, expected)
    work = Work(experiment, methods, done, keys, there)
    remaining = tuple(work.left(a) for a in assumptions)
    rate = rates(experiment, found)
    disk = None
    if rate is not None and rate.video is not None:
        typical = remaining[1]
        disk = typical.cells * rate.video + typical.states * (rate.state or 0.0)
    lines = [
        *_what(experiment, done, shard or Shard()),
        *(("skipped", f"{m.label}: {m.lacking}") for m in experiment.methods if m.lacking),
        *_evaluations(experiment, len(done.cells), whole, remaining[1]),
        ("assumed switch steps", _assumptions(experiment, expect)),
        *_times(experiment, rate, len(done.cells), whole, remaining),
        *_timing(experiment, rate, rounds, expected),
        *_sizes(experiment, rate, remaining[1], disk),
    ]
    return Price(tuple(lines), disk)


def _what(experiment: Experiment, done: Progress, shard: Shard) -> list[tuple[str, str]]:
    family, suite, methods = experiment.family, experiment.suite, experiment.methods
    prompts, seeds, units = len(suite.list_prompts()), len(suite.list_seeds()), len(done.cells)
    there = sum(map(len, done.cells.values())) + sum(map(len, done.elsewhere.values()))
    how = seeding(suite)
    noise = "" if how.is_plain else f", noise seeds {how.said}"
    size = f"{family.width}×{family.height}, {family.frames} frames, {family.steps} steps"
    part = [] if shard.of == 1 else [("shard", _part(shard, units, prompts * seeds))]
    return [
        ("family", f"{family.name}, {size}"),
        ("prompts × seeds", f"{prompts} × {seeds} = {counted(prompts * seeds, 'video')} a method{noise}"),
        *part,
        ("methods", f"{len(methods)}: " + ", ".join(m.label for m in methods)),
        ("metrics", _metrics(experiment)),
        ("cells", f"{units * len(methods):,}" + (f", {there:,} of these are there already" if there else "")),
    ]


def _part(shard: Shard, units: int, whole: int) -> str:
    """What a shard does of a run.

    >>> _part(Shard(1, 4), 9, 36)
    '1/4: 9 of these 36 videos a method; every number below is of this shard alone'
    """
    these = f"{units} of these {counted(whole, 'video')} a method"
    return f"{shard.place}/{shard.of}: {these}; every number below is of this shard alone"


def _metrics(experiment: Experiment) -> str:
    """Names of scores; a suite's dimensions only counted."""
    found = all_facts(experiment.metrics, experiment.suite.list_prompts())
    suites = Counter(n.partition("/")[0] for n, f in found.items() if f.group != "similarity")
    names = [n for n, f in found.items() if f.group == "similarity"]
    return ", ".join([*names, *(f"{s} ({counted(n, 'dimension')})" for s, n in suites.items())]) or "none"


def _evaluations(experiment: Experiment, units: int, whole: Cost, rest: Left) -> list[tuple[str, str]]:
    family = experiment.family

    def told(model: str) -> str:
        alone = whole.alone.evaluations(model, family) * units
        shared = whole.shared.evaluations(model, family) * units
        fewer = f"{1 - shared / alone:.0%} fewer".replace("%", " %") if alone else ""
        saved = f" with shared steps, {alone:,} without ({fewer})" if shared < alone else ""
        to_do = rest.shared.evaluations(model, family)
        still = f"; {to_do:,} left to do" if to_do != shared else ""
        return f"{shared:,}{saved}{still}"

    return [(f"{model} model evaluations", told(model)) for model in ("large", "small")]


def _assumptions(experiment: Experiment, expect: Callable[..., Expectation]) -> str:
    """The adaptive methods' assumed switch steps, and what they rest on."""
    told = []
    for method in experiment.methods:
        timesteps = experiment.family.timesteps(method.steps, method.sampler)
        for segment in method.segments[:-1]:
            first, last = segment.until.window(timesteps)
            if first != last:
                e, most = expect(segment.until, timesteps), latest(segment.until, timesteps)
                told.append(f"{method.label}: {e.at} ({e.why}), range {first} to {max(e.at, most)}")
    return "\n".join(told) or "none: no adaptive rule"


def _times(
    experiment: Experiment, rate: Rates | None, units: int, whole: Cost, remaining: Sequence[Left]
) -> list[tuple[str, str]]:
    if rate is None:
        return [("time", "unknown: no run of this family is stored here, and its YAML has no price")]

    # where adaptive rules all fire at once their methods share a tail: both extremes may be the cheaper
    hours = [_hours(experiment, rate, r.shared, r.cells) for r in remaining]
    low, typical, high = min(hours), hours[1], max(hours)
    alone = _hours(experiment, rate, whole.alone.times(units), units * len(experiment.methods))
    workers, at_once, side_by_side, unit = parallel(experiment, rate.gpu)
    spread = _ranged(_figure, typical, low, high)
    return [
        (
            "time",
            _ranged(_duration, *(h / at_once for h in (typical, low, high)))
            + f" with {counted(workers, 'worker')}{side_by_side}",
        ),
        (unit, f"{spread}; each method alone, from nothing: {_figure(alone)}"),
        ("reckoned with", f"{rate.source}; caches are not counted as savings"),
    ]


def _hours(experiment: Experiment, rate: Rates, steps: Steps, cells: int) -> float:
    large, small = (steps.plain(model, experiment.family) for model in ("large", "small"))
    return (large * rate.large + small * rate.small + cells * rate.rest) / 3600


def _timing(
    experiment: Experiment, rate: Rates | None, rounds: int, expected: Assume
) -> list[tuple[str, str]]:
    methods = timed_methods(experiment)
    if not rounds or not methods:
        return []
    steps = cost(experiment, methods, expected).alone.times(rounds)
    often = "once" if rounds == 1 else f"{rounds} times"
    told = f"after it, {counted(len(methods), 'method')} alone, {often} each, on one prompt and seed"
    if rate is None:
        return [("timing pass", told)]
    hours = _hours(experiment, rate, steps, rounds * len(methods))
    return [("timing pass", f"{told}: {_duration(hours)}, or less where caches save")]


def _ranged(shown: Callable[[float], str], typical: float, low: float, high: float) -> str:
    """A number with its range, where there is one to see."""
    text, least, most = shown(typical), shown(low), shown(high)
    return text if least == most else f"{text} ({least} to {most})"


def parallel(experiment: Experiment, gpu: str | None = None) -> tuple[int, int, str, str]:
    """Workers, how many run truly side by side, what a reader must know of that, the unit of the sum.

    gpu: the GPU whose seconds are reckoned with, where they are not this machine's; then this
    machine's cores say nothing, and each worker is given such a GPU.
    A GPU's own workers are left as they are asked for: how they share it is not known here.
    Where none are asked for, Ray has one a GPU or one for `threads` cores: how many GPUs, and
    what is in another cluster, is not known before it is joined, and one is reckoned with.
    """
    asked, threads = experiment.engine.workers, experiment.engine.threads
    workers, one = asked or 1, "" if asked else "; one a GPU there will be, reckoned with one"
    if gpu is not None:
        return workers, workers, f" on {counted(workers, gpu)}, not on this machine{one}", "GPU-hours"
    if experiment.family.device.startswith("cuda") or (experiment.family.device == "auto" and may_have_gpu()):
        return workers, workers, one, "GPU-hours"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is None and getattr(experiment.engine, "address", None):
        one = f"; one for {counted(threads, 'core')} of the cluster there will be, reckoned with one"
        return 1, 1, f" of {counted(threads, 'thread')}{one}", "core-hours"
    workers = asked or max(1, cores // threads)
    at_once = max(1, min(workers, cores // threads))
    where = f" of {counted(threads, 'thread')} on {counted(cores, 'core')}"
    few = f", of which {at_once} at once" if at_once < workers else ""
    return workers, at_once, where + few, "core-hours"


def _sizes(
    experiment: Experiment, rate: Rates | None, rest: Left, disk: float | None
) -> list[tuple[str, str]]:
    lines = [("memory", _memory(experiment))]
    if rate is not None and disk is not None:
        states = f"{counted(rest.states, 'state')} (keep={experiment.keep})"
        unknown = bool(rest.states) and not rate.state
        videos = counted(rest.cells, "video")
        told = f"{size(disk)} more: {videos}, {states}"
        if unknown:
            told = f"{size(disk)} more for {videos}; besides, {states} of unknown size"
        lines.append(("disk", told))
    return lines


def _memory(experiment: Experiment) -> str:
    """What each worker takes of its device at the worst moment, and what takes it."""
    workers, family = experiment.engine.workers, experiment.family
    each = f"each of {counted(workers, 'worker')}" if workers else "each worker"
    denoisers = [s.denoiser for m in experiment.methods if not m.lacking for s in m.segments]
    there = peak(family, denoisers)
    if there.total is None:
        return f"not known for {each}: {there.unknown}"
    told = f"about {size(there.total)} for {each}, residency={family.residency}"
    if there.need is None:
        return f"{told}, from the family's price"
    n = there.need
    parts = (
        f"{told}: weights {size(n.weights)}, activations about {size(n.activations)}, caches {size(n.caches)}"
    )
    return parts if n.total >= there.encoder else f"{parts}; before, the text encoder {size(there.encoder)}"


def _figure(n: float) -> str:
    """Three digits for a reader.

    >>> _figure(0.01234), _figure(12.34), _figure(8954.2)
    ('0.0123', '12.3', '8,950')
    """
    return f"{float(f'{n:.3g}'):,.0f}" if n >= 100 else f"{n:.3g}"


def size(n: float) -> str:
    """Bytes for a reader.

    >>> size(8), size(30_000), size(3 * 2**30)
    ('8 B', '29.3 KiB', '3 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.3g} TiB" if n < 1e4 else f"{n:,.0f} TiB"


def _duration(hours: float) -> str:
    """For a reader.

    >>> _duration(0.05), _duration(3.2), _duration(0.0), _duration(200)
    ('3 min', '3.2 h', '0 s', '8.3 days')
    """
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{round(hours * 60)} min" if hours >= 1 / 60 else f"{round(hours * 3600)} s"
