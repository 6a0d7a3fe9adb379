"""Switch at a noise level, as Wan 2.2 does between its experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from srbench.config.registry import plugin
from srbench.trace import Trace


@plugin
class Boundary:
    """Fires when the next step's timestep lies below `ratio` × 1000.

    The same steps as `WanPipeline(boundary_ratio=ratio)`, provided that the first
    timestep is at or above the boundary.  Without guidance before the boundary that pipeline has none
    behind it either, so the Wan family refuses a path that would.  Without guidance behind it alone, the
    pipeline evaluates both branches and weights one with 0: the same video up to rounding.
    """

    ratio: Annotated[float, Field(gt=0, lt=1)]

    def fires(self, trace: Trace, entered: int) -> bool:
        return trace.steps[-1].next_timestep < self.ratio * 1000

    def window(self, timesteps: Sequence[float]) -> tuple[int, int]:
        below = [i for i, t in enumerate(timesteps) if t < self.ratio * 1000]
        # the first step has no predecessor that could fire before it
        at = max(1, below[0]) if below else len(timesteps)
        return at, at

    def expected(
        self, timesteps: Sequence[float], known: Mapping[float, float] | None = None
    ) -> tuple[int, str]:
        return self.window(timesteps)[0], "set by the schedule"
