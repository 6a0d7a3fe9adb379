"""What a run did, step by step: the only thing a switch rule sees.

A trace holds no times; those are kept apart (`CellRecord.step_seconds`), so that two runs
of the same work have the same trace, byte for byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

SIGNALS = ("model_output", "x0", "eps", "latent")


@dataclass(frozen=True)
class Step:
    """One denoising step.

    index: position in the schedule, from 0.  timestep: what the model is told, in
    (0, 1000]; next_timestep: the one after it, 0 at the last step.  sigma: noise level
    before the step, in [0, 1].  change: D of every signal (SIGNALS),
    tanh(|s − s_prev|₁ / |s_prev|₁) in [0, 1); None at the first step.  calls: model
    evaluations computed and reused (a guided step has two); modules: computed and reused
    parts inside them, for accelerators that act there.
    """

    index: int
    timestep: float
    next_timestep: float
    sigma: float
    denoiser: str
    model: str
    change: dict[str, float] | None
    calls_computed: int
    calls_reused: int
    modules_computed: int = 0
    modules_reused: int = 0

    @property
    def work(self) -> str:
        """Steps with the same work take the same time: denoiser and what it computed.

        >>> Step(0, 999, 996, 1.0, "large", "large", None, 2, 0).work
        'large 2+0'
        """
        inner = (
            f" {self.modules_computed}+{self.modules_reused}"
            if self.modules_computed or self.modules_reused
            else ""
        )
        return f"{self.denoiser} {self.calls_computed}+{self.calls_reused}{inner}"


@dataclass(frozen=True)
class Trace:
    """The steps of a path so far, in order."""

    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Trace:
        return replace(self, steps=(*self.steps, step))

    def __len__(self) -> int:
        return len(self.steps)

    def change(self, signal: str) -> np.ndarray:
        """D of one signal per step: float64 (steps,), NaN at the first step."""
        return np.array([np.nan if s.change is None else s.change[signal] for s in self.steps], np.float64)

    def until(self, executed: int) -> Trace:
        """The trace as it was after `executed` steps."""
        return Trace(self.steps[:executed])

    @cached_property
    def work(self) -> Mapping[str, int]:
        """How many steps there are of each `Step.work`, which take the same time."""
        return Counter(step.work for step in self.steps)

    @cached_property
    def switches(self) -> tuple[int, ...]:
        """After how many executed steps the model changed, in order."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return tuple(b.index for a, b in pairs if a.model != b.model)
