"""What a run's VBench scores come to: coverage, raw means, the total or why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from srbench.analysis import statistics, table
from srbench.errors import UserError
from srbench.suites.vbench import UNIQUE
from srbench.vbench import score, staging
from srbench.vbench.run import FLICKERING, Job, score_of
from srbench.vbench.score import DIMENSIONS, Final, aggregate

Preset = Literal["run", "standard", "mlperf"]
STANDARD_SEEDS = 5
MLPERF_PROMPTS = 248


@dataclass(frozen=True)
class Coverage:
    """One dimension of one method: its raw mean over what is scored, and how much of what is due.

    raw: None where nothing counts.  counted: of those scored, how many count in it; the static filter
    and colors that were not found leave some out.  reason: of the first that is not done, or why
    nothing counts.
    """

    raw: float | None
    scored: int
    due: int
    reason: str = ""
    counted: int = 0

    @property
    def is_complete(self) -> bool:
        return self.raw is not None and self.scored == self.due and math.isfinite(self.raw)


def prompts_due(job: Job, dimension: str, preset: Preset) -> frozenset[str]:
    """The prompts that a dimension's number is over: the run's own, or all of a preset's."""
    if preset == "run" or not job.is_standard:
        return job.due(dimension)
    return frozenset(e.prompt for e in job.lines if dimension in e.dimensions)


def videos_due(job: Job, dimension: str, preset: Preset) -> int:
    """How many videos a prompt: the run's seeds, or what a preset wants.

    More than five are there for the official static filter alone, which then is due all of them.
    """
    seeds = len(job.record.seeds)
    if dimension == FLICKERING and seeds > STANDARD_SEEDS:
        return seeds
    return {"run": seeds, "standard": STANDARD_SEEDS, "mlperf": 1}[preset]


def coverage(job: Job, method: str, dimension: str, preset: Preset = "run") -> Coverage:
    """How much of a dimension there is, by its own rule of averaging."""
    due = prompts_due(job, dimension, preset)
    most = videos_due(job, dimension, preset)
    seeds = set(job.record.seeds[:most])
    cells = [c for c in job.cells if c.method == method and c.prompt in due and c.seed in seeds]
    scores = [(c, score_of(c, dimension)) for c in cells]
    done = [s for _, s in scores if s is not None and s.outcome == "done" and s.value is not None]
    lacking = next((s.reason for _, s in scores if s is not None and s.outcome != "done"), "")
    failed = next((c.reason for c in cells if c.outcome != "done"), "")
    raw = aggregate([s.value or 0.0 for s in done], [s.count for s in done])
    nothing = next((s.reason for s in done if raw is None), "")
    counted = sum(s.count > 0 for s in done)
    return Coverage(raw, len(done), len(due) * most, lacking or failed or nothing, counted)


def due_dimensions(job: Job, preset: Preset) -> tuple[str, ...]:
    """Those that a preset's number wants."""
    return score.MLPERF if preset == "mlperf" else tuple(DIMENSIONS)


def total(found: Mapping[str, Coverage], as_published: bool = False) -> Final:
    """The total of 16 complete dimensions.  Raises UserError naming those that are not."""
    _refuse(found, tuple(DIMENSIONS))
    return score.final({d: c.raw for d, c in found.items() if c.raw is not None}, as_published)


def mlperf(found: Mapping[str, Coverage]) -> float:
    """MLPerf's number of six complete dimensions.  Raises UserError naming those that are not."""
    _refuse(found, score.MLPERF)
    return score.mlperf({d: c.raw for d, c in found.items() if c.raw is not None})


def _refuse(found: Mapping[str, Coverage], wanted: Sequence[str]) -> None:
    lacking = {d: found[d] for d in wanted if d not in found or not found[d].is_complete}
    if lacking:
        told = ", ".join(
            f"{d} {c.scored}/{c.due}" + ", none of which counts" * (c.scored > 0 and c.raw is None)
            for d, c in lacking.items()
        )
        raise UserError(
            f"no total: incomplete are {told}",
            f"every due video scored in all {len(wanted)} dimensions",
            "see the reasons beside them; srbench vbench score RUN goes on from here",
        )


def what_it_is(job: Job, preset: Preset) -> str:
    """Which VBench a number is, in a sentence that belongs beside it."""
    prompts, seeds = len(job.record.prompts), len(job.record.seeds)
    if not job.is_standard:
        return f"VBench's scorers on {prompts} prompts of another suite (mode custom_input): no VBench score"
    if preset == "mlperf":
        return f"MLPerf's VBench: {MLPERF_PROMPTS} prompts × 1 video, plain mean of six raw scores"
    if preset == "standard" or (prompts == UNIQUE and seeds == STANDARD_SEEDS):
        return f"VBench standard: {UNIQUE} prompts × {STANDARD_SEEDS} videos"
    return (
        f"VBench on a subset, {prompts} of {UNIQUE} prompts × {seeds} of {STANDARD_SEEDS} videos: "
        "not comparable with published totals"
    )


def protocol(job: Job, dimensions: Sequence[str]) -> list[str]:
    """What a number depends on besides the videos, a line each: software, staging, filter, prompts."""
    found: dict[str, None] = {}
    for cell in job.cells:
        for dimension in dimensions:
            own = score_of(cell, dimension)
            for key, value in (own.made if own and own.outcome == "done" else {}).items():
                found.setdefault(f"{key}: {value}")
    told = staging.duration(job.record.resolved.get("family"))
    return list(found | {f"{k}: {v}": None for k, v in told.items()})


def differences(job: Job, dimension: str, prompts: int | None = None) -> dict[str, tuple[float, float]]:
    """Per method: mean difference from the reference over shared videos, and what could be detected.

    In raw units.  prompts: detected with that many of the same spread and seeds, as SE falls with
    their root; None for as many as there are.  Methods without two prompts in common with the
    reference are left out.
    """
    by_method: dict[str, dict[tuple[str, int], float]] = {}
    reference = next((c.method for c in job.cells if c.is_reference), None)
    for cell in job.cells:
        own = score_of(cell, dimension)
        if own and own.outcome == "done" and own.value is not None and own.count:
            by_method.setdefault(cell.method, {})[cell.prompt, cell.seed] = own.value
    base = by_method.pop(reference, {}) if reference else {}
    found = {}
    for method, values in by_method.items():
        both = [k for k in values if k in base]
        difference = statistics.paired_difference(
            [values[k] for k in both], [base[k] for k in both], [k[0] for k in both]
        )
        mean, error = difference.estimate.mean, difference.estimate.standard_error
        if mean is not None and error is not None:
            found[method] = mean, _detectable(error, difference.estimate.clusters, prompts)
    return found


def _detectable(standard_error: float, clusters: int, prompts: int | None) -> float:
    planned = prompts or clusters
    return statistics.detectable(standard_error * math.sqrt(clusters / planned), planned)


def total_detectable(job: Job, prompts: int | None = None) -> dict[str, float]:
    """Per method: the smallest difference of totals from the reference that could be detected, in points.

    By the report's cluster bootstrap; empty where there is no total or too few prompts.  prompts: as
    in `differences`.
    """
    rows = table.make(job.record, list(job.cells)).main
    names = {c.method_id: c.method for c in job.cells}
    return {
        names[row.method_id]: _detectable(value.standard_error, value.clusters, prompts)
        for row in rows
        for value in row.values
        if value.column.key == "vbench/total_difference" and value.standard_error and value.clusters > 1
    }
