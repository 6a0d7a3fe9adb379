"""SRDiffusion's adaptive switch (arXiv 2505.19151, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from srbench.config.registry import plugin
from srbench.trace import Trace

# mean switch step of 50 that each speedup implies: latency = S + k/50·(L − S)
PUBLISHED_DELTA, PUBLISHED_STEP = (0.002, 0.01, 0.03), (16.0, 10.1, 7.6)
Signal = Literal["model_output", "x0", "eps", "latent"]


@plugin
class SRDiffusion:
    """Fires when the change of the signal has all but stopped shrinking: 0 < d_τ < δ.

    D_τ = tanh(‖s_τ − s_{τ−1}‖₁ / ‖s_{τ−1}‖₁), d_τ = D_{τ−1} − D_τ, τ counted from 1, so
    D exists from τ = 2 and d from τ = 3 (equations 3 to 6).  The paper prints d with the
    other sign, counting t downwards; read literally that never fires where D diminishes.

    delta: δ.  min_steps: FIX_STEP; the earliest switch is after min_steps + 1 steps.
    max_steps: switch then at the latest; None as in the paper.  signal: s; the guided
    model output for Wan, the latent after the step for CogVideoX with DPM.
    sign: "diminishing" as above, "literal" for equation 4 as printed.
    """

    delta: Annotated[float, Field(gt=0, lt=1)] = 0.01
    min_steps: Annotated[int, Field(ge=0)] = 5
    max_steps: Annotated[int, Field(ge=1)] | None = None
    signal: Signal = "model_output"
    sign: Literal["diminishing", "literal"] = "diminishing"

    def fires(self, trace: Trace, entered: int) -> bool:
        executed = len(trace)
        if self.max_steps is not None and executed >= self.max_steps:
            return True
        if executed <= self.min_steps or executed < 3:
            return False
        before, now = trace.change(self.signal)[-2:]
        d = before - now if self.sign == "diminishing" else now - before
        return bool(np.isfinite(d) and 0 < d < self.delta)

    def window(self, timesteps: Sequence[float]) -> tuple[int, int]:
        n = len(timesteps)
        latest = n if self.max_steps is None else min(self.max_steps, n)
        return min(max(3, self.min_steps + 1), latest), latest

    def expected(
        self, timesteps: Sequence[float], known: Mapping[float, float] | None = None
    ) -> tuple[int, str]:
        """Interpolated in log δ between mean switch steps of 50.

        known: the family's own, by δ; else those that the paper's Wan latencies imply.
        """
        why = "of the family's price" if known else "implied by the paper's latencies on Wan 480p"
        points = sorted((known or dict(zip(PUBLISHED_DELTA, PUBLISHED_STEP, strict=True))).items())
        deltas, steps = zip(*points, strict=True)
        share = np.interp(np.log(self.delta), np.log(deltas), steps) / 50
        earliest, latest = self.window(timesteps)
        return min(max(round(share * len(timesteps)), earliest), latest), why
