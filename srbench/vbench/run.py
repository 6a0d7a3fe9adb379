"""Scores of a run's videos by VBench: what is due, what is there, and the rest through its worker."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from srbench import video
from srbench.errors import UserError, did_you_mean, one_line
from srbench.store.objects import Store, locked
from srbench.store.records import (
    CellRecord,
    Outcome,
    RunRecord,
    Score,
    cell_path,
    linked,
    read_cell,
    read_run,
    write_cell,
)
from srbench.suites.vbench import Entry, entries
from srbench.vbench import environment, staging, weights
from srbench.vbench.results import Failure, Result, read
from srbench.vbench.score import DIMENSIONS, facts
from srbench.vbench.staging import Encoding, Staged

# What VBench scores of prompts that are not its own; human_action takes its label from the
# official file name, and the others need facts of the prompt that only its own list has.
CUSTOM = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "temporal_style",
    "overall_consistency",
)
FLICKERING = "temporal_flickering"
NO_FILTER = "none, as cache papers do; the official one keeps 5 static of 25 videos a prompt"
OFFICIAL_FILTER = "official, the first 5 static of {} videos a prompt; VBench samples 25"
KEPT, SAMPLED = 5, 25  # of a prompt by the official filter, and how many it may be given
NOT_STATIC = "not static: the official filter leaves this video out"
NOT_NEEDED = "after the first 5 static videos of its prompt, which the official filter keeps"
LEFT_OUT = "VBench left this video out of its result without a word"
WORKER_SAYS = "worker.json"
Filter = Literal["none", "official"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to score and how.

    dimensions, methods: empty for all.  device: as torch names it.  encoding: of what is
    staged.  again: also what is scored already.  keep: the encoded videos afterwards.
    static_filter: of temporal_flickering, `official` leaves out what VBench's own filter does not
    call static, and takes up to 25 seeds.
    """

    dimensions: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    device: str = "cpu"
    encoding: Encoding = "rgb"
    again: bool = False
    keep: bool = False
    static_filter: Filter = "none"

    def is_filtered(self, dimension: str) -> bool:
        return dimension == FLICKERING and self.static_filter == "official"


@dataclass(frozen=True)
class Job:
    """A run as VBench sees it.

    lines: VBench's own list, empty for prompts of another suite, which go by mode custom_input.
    """

    run: Path
    record: RunRecord
    cells: tuple[CellRecord, ...]
    lines: tuple[Entry, ...]
    info: Path | None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def is_standard(self) -> bool:
        return bool(self.lines)

    @property
    def methods(self) -> tuple[str, ...]:
        """Those with cells, by name."""
        return tuple(dict.fromkeys(c.method for c in self.cells))

    @property
    def scale_rows(self) -> frozenset[str]:
        """Methods that only show what a similarity means: not scored unless asked for by name."""
        return frozenset(m.name for m in self.record.methods if m.role == "scale")

    def due(self, dimension: str) -> frozenset[str]:
        """The run's prompts that a dimension is taken on."""
        if not self.is_standard:
            return frozenset(self.record.prompts) if dimension in CUSTOM else frozenset()
        own = {e.prompt for e in self.lines if dimension in e.dimensions}
        return frozenset(own.intersection(self.record.prompts))

    def dimensions(self) -> tuple[str, ...]:
        """Those that any of the run's prompts is made for, in VBench's order."""
        return tuple(d for d in DIMENSIONS if self.due(d))


def open_run(run: Path) -> Job:
    """A run's records and VBench's list.  Raises UserError where one is lacking."""
    record, cells = read_run(run)
    suite = record.resolved.get("suite")
    kind = suite.get("kind") if isinstance(suite, dict) else suite
    given = suite.get("info") if isinstance(suite, dict) else None
    info = Path(given) if given else environment.info()
    lines = entries(info) if kind == "vbench" and info else ()
    if kind == "vbench" and not lines:
        raise UserError("a run of VBench's prompts without its list", "the environment", environment.SETUP)
    names = named(record, cells)
    cells = [
        c.model_copy(update={"method": names[c.method_id]}) if c.method_id in names else c for c in cells
    ]
    record = record.model_copy(
        update={
            "methods": tuple(m.model_copy(update={"name": names.get(m.id, m.name)}) for m in record.methods)
        }
    )
    extended = suite.get("extended") if isinstance(suite, dict) else None
    settings = {
        "mode": "vbench_standard" if lines else "custom_input, prompts of another suite",
        "prompts": "extended" if extended else "plain",
        **staging.duration(record.resolved.get("family")),
    }
    return Job(run, record, tuple(cells), lines, info, settings)


def named(record: RunRecord, cells: Iterable[CellRecord]) -> dict[str, str]:
    """By method_id a name of its own for methods that share theirs, as those of one sweep: the label."""
    ids: dict[str, set[str]] = {}
    for method_id, name in [
        *((m.id, m.name) for m in record.methods),
        *((c.method_id, c.method) for c in cells),
    ]:
        ids.setdefault(name, set()).add(method_id)
    shared = {i for own in ids.values() if len(own) > 1 for i in own}
    labels = {c.method_id: c.label for c in cells} | {m.id: m.label for m in record.methods}
    often = Counter(labels.values())
    return {i: labels[i] if often[labels[i]] == 1 else f"{labels[i]} {i[:6]}" for i in sorted(shared)}


def score(run: Path, options: Options, say: Say = print) -> dict[Outcome, int]:
    """Score what is missing; results are recorded dimension by dimension, method by method.

    Returns how many scores of each outcome the asked ones have afterwards.  A dimension whose
    weights are lacking is recorded as missing, with the sentence; one that VBench fails on as
    failed.  Both are tried again the next time, what is done never.

    Raises UserError for a name that is unknown, a missing environment, more than five seeds (25
    for the official static filter), and scores that other software or settings made.
    """
    environment.refuse_lacking()
    job = open_run(run)
    dimensions, methods = _asked(job, options)
    for dimension in dimensions:
        staging.refuse_more(job.record.seeds, SAMPLED if options.is_filtered(dimension) else KEPT)
    kept = run / "vbench" / "encoded"
    _refuse_mixtures(job, dimensions, options)
    try:
        for method in methods:
            for dimension in dimensions:
                _score(job, dimension, method, options, kept, say)
            if not options.keep:
                shutil.rmtree(kept, ignore_errors=True)
    finally:
        if not options.keep:
            shutil.rmtree(kept, ignore_errors=True)
    return count(open_run(run), dimensions, methods)


def _asked(job: Job, options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    there = job.dimensions()
    for name in options.dimensions:
        if name not in DIMENSIONS:
            raise UserError(
                f"dimension {name!r}", "one of VBench's 16 dimensions", did_you_mean(name, DIMENSIONS)
            )
        if name not in there:
            raise UserError(
                f"dimension {name} on this run's prompts",
                f"one of {', '.join(there) or 'none'}",
                "VBench takes the others on its own prompts only",
            )
    named = job.methods
    rivals = tuple(n for n in named if n not in job.scale_rows)
    for name in options.methods:
        if name not in named:
            raise UserError(f"method {name!r}", "a method of the run", did_you_mean(name, named))
    wanted = set(options.dimensions or there)
    return tuple(d for d in there if d in wanted), options.methods or rivals


def count(job: Job, dimensions: Iterable[str], methods: Iterable[str]) -> dict[Outcome, int]:
    """How many scores of each outcome; a done video without one counts as missing."""
    found: dict[Outcome, int] = {}
    for dimension in dimensions:
        for cell in _cells(job, dimension, methods):
            own = score_of(cell, dimension)
            outcome: Outcome = own.outcome if own else "missing"
            found[outcome] = found.get(outcome, 0) + 1
    return found


def score_of(cell: CellRecord, dimension: str) -> Score | None:
    """A cell's score of a dimension by the definition used here, whatever its outcome."""
    own = facts(dimension)
    return next((s for s in cell.scores if s.metric == own), None)


def _cells(job: Job, dimension: str, methods: Iterable[str]) -> Iterator[CellRecord]:
    due, names = job.due(dimension), set(methods)
    for cell in job.cells:
        if cell.outcome == "done" and cell.method in names and cell.prompt in due:
            yield cell


# -- one dimension of one method


def _score(job: Job, dimension: str, method: str, options: Options, kept: Path, say: Say) -> None:
    cells = list(_cells(job, dimension, [method]))
    current = [read_cell(cell_path(job.run, c.id)) for c in cells]  # an earlier method's twins included
    settings = job.settings | _filter_told(job, dimension, options)
    todo = _todo(current, dimension, options)
    if not options.again:
        _refuse_other_filter(current, dimension, settings)
    label = f"{dimension}, {method}"
    if not todo:
        say(f"{label}: {len(cells)} scored already")
        return
    note = partial(_note, job.run, dimension, settings)
    if lacking := weights.lacking(weights.STATIC_FILTER if options.is_filtered(dimension) else dimension):
        note([c for c in todo if not _is_done(score_of(c, dimension))], "missing", lacking)
        say(f"{label}: missing: {lacking}")
        return
    try:
        told = _through_worker(job, dimension, todo, options, kept, settings)
    except Failure as failure:
        note(todo, "failed", str(failure))
        say(f"{label}: failed: {failure}")
        return
    _refuse_mixture(job, dimension, told, options)
    _write(job.run, dimension, told)
    good = sum(s.outcome == "done" for s in told.values())
    say(f"{label}: {good} of {len(todo)} scored now, {len(cells) - len(todo)} before")


def _todo(cells: Sequence[CellRecord], dimension: str, options: Options) -> list[CellRecord]:
    """What is to be scored.  Which five the filter keeps depends on all of a prompt's videos."""
    open_ones = [c for c in cells if options.again or not _is_done(score_of(c, dimension))]
    if not options.is_filtered(dimension):
        return open_ones
    prompts = {c.prompt for c in open_ones}
    return [c for c in cells if c.prompt in prompts]


def _filter_told(job: Job, dimension: str, options: Options) -> dict[str, str]:
    if dimension != FLICKERING:
        return {}
    official = OFFICIAL_FILTER.format(len(job.record.seeds))
    return {"static filter": official if options.is_filtered(dimension) else NO_FILTER}


def _refuse_other_filter(cells: Sequence[CellRecord], dimension: str, settings: Mapping[str, str]) -> None:
    """Scores that are there already must be what was asked for.  Raises UserError."""
    for cell in cells:
        own = score_of(cell, dimension)
        before = own.made.get("static filter") if own and _is_done(own) else None
        if before and before != settings.get("static filter"):
            raise UserError(
                f"static filter {settings['static filter']}, after scores with: {before}",
                "one setting in a column",
                "leave --static-filter as it was, or score all of it again: --again",
            )


def _is_done(score: Score | None) -> bool:
    return score is not None and score.outcome == "done"


def _note(
    run: Path,
    dimension: str,
    settings: Mapping[str, str],
    cells: Sequence[CellRecord],
    outcome: Outcome,
    reason: str,
) -> None:
    made = dict(settings)
    own = Score(metric=facts(dimension), value=None, outcome=outcome, reason=one_line(reason, 500), made=made)
    _write(run, dimension, {c.id: own for c in cells})


def _write(run: Path, dimension: str, scores: Mapping[str, Score]) -> None:
    """Put scores into the cells' records; what else they hold by now stays."""
    order = [facts(d).name for d in DIMENSIONS]
    with locked(run):
        for cell_id, own in scores.items():
            cell = read_cell(cell_path(run, cell_id))
            others = [s for s in cell.scores if s.metric.name != own.metric.name]
            place = {name: i for i, name in enumerate(order)}
            ranked = sorted([*others, own], key=lambda s: place.get(s.metric.name, -1))
            write_cell(run, cell.model_copy(update={"scores": tuple(ranked)}))


def _refuse_mixture(job: Job, dimension: str, fresh: Mapping[str, Score], options: Options) -> None:
    """Scores move with torch, device and encoding: one column holds those of one of each.

    Raises UserError; with `again` those of the methods asked for are being replaced.
    """
    old = _made(job, dimension, options)
    new = next((s.made for s in fresh.values() if _is_done(s)), None)
    if new is not None:
        _refuse_difference(dimension, new, old)


def _refuse_mixtures(job: Job, dimensions: Sequence[str], options: Options) -> None:
    """As _refuse_mixture, before anything is computed: the environment is asked what it is.

    Scores that are there may be a mixture themselves, as an interrupted `again` leaves them.
    """
    old = {d: _made(job, d, options) for d in dimensions}
    if not any(old.values()):
        return
    ground = environment.ground(options.device)
    for dimension, made in old.items():
        if made:
            _refuse_difference(dimension, made[0], made[1:])
            detects = dimension in weights.GRIT
            own = {k: v for k, v in ground.items() if detects or k != "detectron2"}
            _refuse_difference(dimension, own, made)


def _made(job: Job, dimension: str, options: Options) -> list[dict[str, str]]:
    """What made the dimension's scores that are to stay; with `again` those asked for go."""
    replaced = set(options.methods or job.methods) if options.again else set()
    names = set(job.methods) - replaced
    return [s.made for c in _cells(job, dimension, names) if (s := score_of(c, dimension)) and _is_done(s)]


def _refuse_difference(dimension: str, new: Mapping[str, str], old: Iterable[Mapping[str, str]]) -> None:
    """Raises UserError where one of the old differs in anything that the new tells."""
    for other in old:
        if differ := [k for k in sorted(new) if other.get(k) != new[k]]:
            raise UserError(
                f"{dimension} by {', '.join(f'{k} {new[k]}' for k in differ)}",
                f"as before: {', '.join(f'{k} {other.get(k)}' for k in differ)}",
                "use the same environment, device and encoding, or score all of it again: --again",
            )


# -- the worker


def path_of(job: Job, cell: CellRecord) -> Path:
    """Where a cell's video lies.  Raises Failure where it is gone or damaged."""
    if cell.source == "imported":
        path: Path | None = linked(job.run, cell).resolve()
    else:
        path = Store((job.run / job.record.store).resolve()).get(cell.key, cell.video)
    if path is None or not path.exists():
        raise Failure(f"the video of prompt {cell.prompt_index}, seed {cell.seed} is gone or damaged")
    return path


@functools.cache
def _frames_shown(file: Path) -> int:
    return video.look(file).frames


def _frames(cell: CellRecord, file: Path) -> int:
    """How many frames a staged file shows: of those that srbench wrote, one for each packet."""
    return _frames_shown(file) if cell.source == "imported" else video.header(file).packets


def stage(job: Job, cells: Sequence[CellRecord], encoding: Encoding, kept: Path) -> tuple[list[Staged], str]:
    """The cells' videos as files that VBench can read, and how they were encoded.

    Raises Failure where a video is gone or cannot be encoded, or two came in different ways.
    """
    staged, told = [], set()
    for cell in cells:
        try:
            file, how = staging.readable(path_of(job, cell), kept, encoding)
            index = list(job.record.seeds).index(cell.seed)
            staged.append(Staged(cell.id, cell.prompt, index, file, _frames(cell, file)))
        except UserError as error:
            raise Failure(f"{error.got}: {error.do}") from None
        told.add(how)
    if len(told) > 1:
        raise Failure(f"videos of two kinds, {' and '.join(sorted(told))}")
    return staged, "".join(told)


def _through_worker(
    job: Job,
    dimension: str,
    cells: Sequence[CellRecord],
    options: Options,
    kept: Path,
    settings: Mapping[str, str],
) -> dict[str, Score]:
    """A score for every cell, done or failed.  Raises Failure where none can be trusted."""
    staged, how = stage(job, cells, options.encoding, kept)
    settings = {**settings, "staged": how}
    scores: dict[str, Score] = {}
    if options.is_filtered(dimension):
        staged, scores = _filtered(job, staged, options.device, settings)
    for links in staging.named(staged, job.is_standard):
        with staging.folder(job.run / "vbench", links) as folder:
            found, ground = work(job, dimension, folder, links, options.device)
        for name, one in links.items():
            scores[one.cell] = _as_score(dimension, found[name], settings | ground)
    return scores


def _filtered(
    job: Job, staged: Sequence[Staged], device: str, settings: Mapping[str, str]
) -> tuple[list[Staged], dict[str, Score]]:
    """The videos that VBench's static filter keeps, renumbered as it does; scores that leave the rest out.

    Raises Failure.
    """
    kept: list[Staged] = []
    left_out: dict[str, Score] = {}
    for links in staging.named(staged, job.is_standard):
        with staging.folder(job.run / "vbench", links) as folder:
            static, ground = judge(job, folder, links, device)
        made = {**settings, **ground}
        indices: dict[str, int] = {}
        for name, one in sorted(links.items()):
            if static.get(name):
                index = indices[one.prompt] = indices.get(one.prompt, -1) + 1
                kept.append(replace(one, index=index))
            else:
                why = NOT_STATIC if name in static else NOT_NEEDED
                left_out[one.cell] = _as_score(FLICKERING, Result(0.0, 0.0, why), made)
    return kept, left_out


def _as_score(dimension: str, result: Result | None, made: Mapping[str, str]) -> Score:
    own = facts(dimension)
    told = dict(made)
    if result is None:
        return Score(metric=own, value=None, outcome="failed", reason=LEFT_OUT, made=told)
    return Score(metric=own, value=result.value, count=result.count, reason=result.reason, made=told)


def work(
    job: Job, dimension: str, folder: Path, links: Mapping[str, Staged], device: str
) -> tuple[dict[str, Result | None], dict[str, str]]:
    """One process of VBench's environment on one folder: results by file name, and their ground.

    Raises Failure; what the process said is in RUN/vbench/logs.
    """
    asked = {
        "mode": "vbench_standard" if job.is_standard else "custom_input",
        "prompts": {} if job.is_standard else {n: one.prompt for n, one in links.items()},
    }
    info = _info(job, dimension, links)
    with _worked(job, dimension, folder, device, asked, info) as (place, told):
        frames = {name: one.frames for name, one in links.items()}
        return read(place / "srbench_eval_results.json", dimension, frames), _ground(told)


def judge(
    job: Job, folder: Path, links: Mapping[str, Staged], device: str
) -> tuple[dict[str, bool], dict[str, str]]:
    """As `work`, by the static filter: whether each file that it looked at is static.

    Of each prompt it looks at files by name until it has five.  Raises Failure.
    """
    names: dict[str, list[str]] = {}
    for name, one in sorted(links.items()):
        names.setdefault(one.prompt, []).append(name)
    asked = {"mode": weights.STATIC_FILTER, "prompts": names, "most": KEPT}
    with _worked(job, weights.STATIC_FILTER, folder, device, asked) as (_, told):
        return {str(n): bool(static) for n, static in told["static"].items()}, _ground(told)


@contextlib.contextmanager
def _worked(
    job: Job,
    what: str,
    folder: Path,
    device: str,
    more: Mapping[str, Any],
    info: Sequence[Mapping[str, Any]] = (),
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Inside, the folder into which a worker that is done wrote, and what it told.  Raises Failure."""
    log = job.run / "vbench" / "logs" / f"{what}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=job.run / "vbench") as made:
        place = Path(made)
        asked = {
            "dimension": what,
            "device": device,
            "videos": str(folder.resolve()),
            "info": str((place / "info.json").resolve()),
            "out": str(place.resolve()),
            "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
            **more,
        }
        (place / "info.json").write_text(json.dumps(info), "utf-8")
        (place / "job.json").write_text(json.dumps(asked), "utf-8")
        bert = environment.weights_home() / "bert-base-uncased"
        if bert.is_dir():  # transformers finds a folder of that name where it is started
            (place / bert.name).symlink_to(bert.resolve())
        with open(log, "w", encoding="utf-8") as out:
            done = subprocess.run(
                [str(environment.python()), str(environment.WORKER), str((place / "job.json").resolve())],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment.clean(),
                cwd=place,
            )
        if done.returncode:
            raise Failure(f"{_last_line(log)} (in {log.relative_to(job.run)})")
        yield place, json.loads((place / WORKER_SAYS).read_text("utf-8"))


def _ground(plain: Mapping[str, Any]) -> dict[str, str]:
    """The ground of the scores.  Raises Failure for errors that VBench swallowed."""
    if plain["swallowed_count"]:
        raise Failure(
            f"the detector failed on {plain['swallowed_count']} frames, which VBench takes for nothing "
            f"found: {plain['swallowed'][0]}"
        )
    return {str(k): str(v) for k, v in plain["ground"].items()}


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "the worker ended without a word"


def _info(job: Job, dimension: str, links: Mapping[str, Staged]) -> list[dict[str, Any]]:
    """VBench's own lines of the staged prompts alone: it then misses none."""
    if not job.is_standard or job.info is None:
        return []
    staged = {one.prompt for one in links.values()}
    plain = json.loads(job.info.read_text("utf-8"))
    return [e for e in plain if e["prompt_en"] in staged and dimension in e["dimension"]]
