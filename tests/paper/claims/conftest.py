"""A synthetic family: methods by their paths, with scores and times that are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from srbench.analysis import table
from srbench.paper import claims
from srbench.paper.claims import Judgement, Verdict
from srbench.store.records import CellRecord, MethodRecord, MetricFacts, RunRecord, Score
from srbench.trace import Step, Trace

ALWAYS = {"kind": "always"}
PSNR = MetricFacts(name="psnr", version=1, unit="dB", higher_is_better=True)
SSIM = MetricFacts(name="ssim/gauss11-valid", version=1, unit="", higher_is_better=True, upper_bound=1.0)
LPIPS = MetricFacts(name="lpips/alex-spatial", version=1, unit="", higher_is_better=False)
QUALITY, SEMANTIC = (
    MetricFacts(name=f"toy/{n}", version=1, unit="", higher_is_better=True, needs_reference=False, group=n)  # type: ignore[arg-type]
    for n in ("quality", "semantic")
)
STEPS = 50


def segment(model: str, until: dict[str, Any] | None = None, **denoiser: Any) -> dict[str, Any]:
    return {"denoiser": {"model": model, "accelerators": [], **denoiser}, "until": until or ALWAYS}


def fixed(step: int) -> dict[str, Any]:
    return {"kind": "fixed_step", "step": step}


def srd(delta: float, *accelerators: dict[str, Any]) -> list[dict[str, Any]]:
    rule = {"kind": "srdiffusion", "delta": delta, "min_steps": 5, "signal": "model_output"}
    return [segment("large", rule), segment("small", accelerators=list(accelerators))]


def teacache(threshold: float) -> dict[str, Any]:
    return {"kind": "teacache", "threshold": threshold, "mode": "default"}


class World:
    """A run in the making.

    add(): a method.  `large`, `small`: whether the step's model is; scores as (base, per prompt,
    noise).  judged(): the verdicts of claims on it, by key.
    """

    def __init__(self, family: str = "toy", prompts: int = 12, seeds: int = 2, **run: Any) -> None:
        self.family, self.prompts, self.seeds, self.run_fields = family, prompts, seeds, run
        self.rng = np.random.default_rng(1)
        self.hard = self.rng.normal(size=prompts)  # of each prompt
        self.cells: list[CellRecord] = []
        self.methods: list[MethodRecord] = []

    def add(
        self,
        name: str,
        path: list[dict[str, Any]],
        switch: int | Callable[[int, int], int] = STEPS,
        times: tuple[float, float] = (16.0, 3.0),
        change: Callable[[int], float] | None = None,
        steps: int | None = None,
        **scores: float | Callable[[int, int], float],
    ) -> World:
        """switch: steps of the large model.  times: of a step of each.  scores: by metric, mean
        or a function of prompt and seed; noise is added to means alone.
        """
        method_id = f"id-{name}"
        is_reference = name == "large"
        self.methods.append(
            MethodRecord(
                name=name, label=name, id=method_id, is_reference=is_reference, path=path, steps=steps
            )
        )
        for p in range(self.prompts):
            for s in range(self.seeds):
                k = switch(p, s) if callable(switch) else switch
                trace = _trace(k, change, f" {times}")
                seconds = tuple(
                    times[x.model == "small"] * (1 + 0.01 * self.rng.normal()) for x in trace.steps
                )
                self.cells.append(
                    CellRecord(
                        id=f"{name}-{p}-{s}",
                        family=self.family,
                        method=name,
                        label=name,
                        method_id=method_id,
                        path=path,
                        is_reference=is_reference,
                        prompt=f"prompt {p}",
                        prompt_index=p,
                        seed=s,
                        outcome="done",
                        protocol="p" * 12,
                        trace=trace,
                        step_seconds=seconds,
                        job="job-1",
                        scores=tuple(self._scores(p, s, scores)),
                    )
                )
        return self

    def _scores(self, p: int, s: int, wanted: dict[str, Any]) -> Sequence[Score]:
        facts = {"psnr": PSNR, "ssim": SSIM, "lpips": LPIPS, "quality": QUALITY, "semantic": SEMANTIC}
        spread = {"psnr": 0.3, "ssim": 0.003, "lpips": 0.003, "quality": 0.01, "semantic": 0.01}
        made = []
        for name, value in wanted.items():
            if callable(value):
                number = value(p, s)
            else:
                number = value + spread[name] * (0.5 * self.hard[p] + self.rng.normal())
            made.append(Score(metric=facts[name], value=number))
        return made

    def near(self, name: str, path: list[dict[str, Any]], db: float, **more: Any) -> World:
        """A method that is that near to the large model in all three measures."""
        return self.add(name, path, psnr=db, ssim=db / 30, lpips=0.5 - db / 100, **more)

    def basics(self, quality: float = 0.8, semantic: float = 0.6, **small: Any) -> World:
        """The large model at 0.9 in both groups, and the small one."""
        self.add("large", [segment("large")], quality=0.9, semantic=0.9)
        return self.add("small", [segment("small")], switch=0, quality=quality, semantic=semantic, **small)

    def made(self) -> tuple[RunRecord, list[CellRecord], table.Tables]:
        fields: dict[str, Any] = dict(
            experiment="made", run=f"run-{self.family}", family=self.family, asked=[],
            resolved={"family": {"kind": "wan"}}, store="", methods=tuple(self.methods),
            prompts=tuple(f"prompt {p}" for p in range(self.prompts)), seeds=tuple(range(self.seeds)),
            timing="exclusive", protocol="p" * 12, commit=None, dirty=None, packages={}, device="here",
            threads=1, started="",
        )  # fmt: skip
        record = RunRecord(**(fields | self.run_fields))
        return record, self.cells, table.make(record, self.cells)

    def verdict(self, key: str) -> Verdict:
        """Of one claim about this family."""
        chosen = [c for c in claims.CLAIMS if c.key == key]
        (found,) = (v for v in claims.judge([self.made()], chosen) if v.about == self.family)
        return found

    def measured(self, key: str) -> Judgement:
        return self.verdict(key).measured


def _trace(switch: int, change: Callable[[int], float] | None, mark: str) -> Trace:
    """Large for `switch` steps, then small; D of step τ, from 2 on, by `change`; mark: of its denoisers."""
    signals = ("model_output", "x0", "eps", "latent")
    return Trace(
        tuple(
            Step(
                i,
                1000 - 20 * i,
                980 - 20 * i,
                1 - i / STEPS,
                model + mark,
                model,
                None if change is None or i == 0 else dict.fromkeys(signals, change(i + 1)),
                2,
                0,
            )
            for i, model in enumerate("large" if i < switch else "small" for i in range(STEPS))
        )
    )


@pytest.fixture
def world() -> type[World]:
    return World


@pytest.fixture
def paths() -> Any:
    class Paths:
        segment, fixed, srd, teacache = map(staticmethod, (segment, fixed, srd, teacache))

        @staticmethod
        def switch(step: int) -> list[dict[str, Any]]:
            return [segment("large", fixed(step)), segment("small")]

        @staticmethod
        def pab(low: float = 100.0) -> list[dict[str, Any]]:
            return [
                segment(
                    "large", accelerators=[{"kind": "pab", "skip_range": 8, "timestep_range": [low, 950.0]}]
                )
            ]

        @staticmethod
        def tea(threshold: float = 0.1) -> list[dict[str, Any]]:
            return [segment("large", accelerators=[teacache(threshold)])]

        @staticmethod
        def noise(step: int) -> list[dict[str, Any]]:
            return [segment("large", fixed(step)), segment("large", disturb={"scale": 0.3})]

    return Paths
