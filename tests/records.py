"""Synthetic records: 50 guided steps, the large model until it switches, then the small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srbench.store.records import CellRecord, MethodRecord, MetricFacts, RunRecord, Score, Stage, write_json
from srbench.trace import Step, Trace

STEPS = 50
LARGE_SECONDS, SMALL_SECONDS = 16.0, 4.0
PSNR = MetricFacts(name="psnr", version=1, unit="dB", higher_is_better=True, lower_bound=0.0)
SSIM = MetricFacts(name="ssim/gauss11-valid", version=1, unit="", higher_is_better=True, upper_bound=1.0)
LPIPS = MetricFacts(name="lpips/alex-spatial", version=1, unit="", higher_is_better=False, upper_bound=1.0)


def make_trace(switch: int = STEPS, steps: int = STEPS) -> Trace:
    """Large for `switch` steps, then small; two computed calls a step."""
    models = ["large" if i < switch else "small" for i in range(steps)]
    return Trace(
        tuple(
            Step(i, 1000 * (1 - i / steps), 1000 * (1 - (i + 1) / steps), 1 - i / steps, m, m, None, 2, 0)
            for i, m in enumerate(models)
        )
    )


def make_cell(method: str, prompt: int, seed: int, switch: int = STEPS, **changes: Any) -> CellRecord:
    """A done cell whose steps all take their model's time; `changes` replaces fields."""
    trace = make_trace(switch)
    seconds = {"large": LARGE_SECONDS, "small": SMALL_SECONDS}
    stages = [Stage(name="encode", seconds=0.5), Stage(name="decode", seconds=3.0)]
    if trace.switches:
        stages.append(Stage(name="hand_over", seconds=0.25))
    fields: dict[str, Any] = dict(
        id=f"{method}-{prompt}-{seed}",
        family="wan",
        method=method,
        label=method,
        method_id=f"id-{method}",
        path=[{}, {}] if method.startswith("srd") else [{}],
        is_reference=method == "large",
        prompt=f"prompt {prompt}",
        prompt_index=prompt,
        seed=seed,
        outcome="done",
        protocol="p" * 64,
        trace=trace,
        step_seconds=tuple(seconds[s.model] for s in trace.steps),
        stages=tuple(stages),
        host="here",
        job="job-1",
    )
    return CellRecord(**(fields | changes))


def make_scores(psnr: float, ssim: float = 0.8, lpips: float = 0.2) -> tuple[Score, ...]:
    pairs = ((PSNR, psnr), (SSIM, ssim), (LPIPS, lpips))
    return tuple(Score(metric=facts, value=value) for facts, value in pairs)


def make_scored(facts: MetricFacts, value: float, frames: tuple[float, ...], **changes: Any) -> Score:
    return Score(metric=facts, value=value, per_frame=frames, **changes)


def make_dimension(name: str, group: str, **facts: Any) -> MetricFacts:
    """A suite's dimension, in [0, 1]."""
    given = dict(version=1, unit="", higher_is_better=True, needs_reference=False)
    return MetricFacts(name=name, group=group, **(given | facts))


def named(*names: str, **labels: str) -> tuple[MethodRecord, ...]:
    """Methods that a run was asked for, in order."""
    return tuple(
        MethodRecord(
            name=n, label=labels.get(n, n), id=f"id-{n}", is_reference=n == "large", path=[{}], steps=None
        )
        for n in names
    )


def make_run(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = dict(
        experiment="wan480_delta_sweep",
        run="2025-01-31_a1b2",
        family="wan",
        asked=["+experiment=wan480_delta_sweep"],
        resolved={},
        store="../../store",
        methods=named("small", "large", "srd_0.01"),
        prompts=(),
        seeds=(),
        timing="shared",
        protocol="p" * 64,
        commit="0123456789abcdef",
        dirty=True,
        packages={},
        device="NVIDIA H100",
        threads=1,
        started="2025-01-31T12:00:00Z",
    )
    return RunRecord(**(fields | changes))


def make_cells(prompts: int = 3, seeds: int = 2) -> list[CellRecord]:
    """Reference, small and SRDiffusion over prompts × seeds."""
    cells = []
    for p in range(prompts):
        for s in range(seeds):
            near = make_scores(24.0 + p + 0.1 * s, 0.81 + 0.02 * p, 0.15 - 0.01 * p)
            far = make_scores(12.0 + p, 0.41 + 0.02 * p, 0.55)
            cells.append(make_cell("large", p, s))
            cells.append(make_cell("small", p, s, switch=0, scores=far))
            cells.append(make_cell("srd_0.01", p, s, switch=10 + p + s, scores=near))
    return cells


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes records as a run does; returns the folder."""

    def write(run: RunRecord, cells: list[CellRecord]) -> Path:
        write_json(tmp_path / "run.json", run)
        for i, cell in enumerate(cells):
            write_json(tmp_path / "cells" / f"{i:03}.json", cell)
        return tmp_path

    return write


@pytest.fixture
def make() -> Any:
    """The helpers above, for tests: conftest can't be imported by name from every root."""

    class Make:
        cell, cells, run = staticmethod(make_cell), staticmethod(make_cells), staticmethod(make_run)
        named = staticmethod(named)
        scores, trace = staticmethod(make_scores), staticmethod(make_trace)
        dimension, scored = staticmethod(make_dimension), staticmethod(make_scored)
        psnr, ssim = PSNR, SSIM

    return Make
