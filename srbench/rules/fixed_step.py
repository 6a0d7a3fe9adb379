"""Switch after a given number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from srbench.config.registry import plugin
from srbench.trace import Trace


@plugin
class FixedStep:
    """Fires once `step` steps of the schedule are done, whoever did them (Algorithm 1 with a
    fixed switch; T-Stitch's fraction times the number of steps).
    """

    step: Annotated[int, Field(ge=1)]

    def fires(self, trace: Trace, entered: int) -> bool:
        return len(trace) >= self.step

    def window(self, timesteps: Sequence[float]) -> tuple[int, int]:
        at = min(self.step, len(timesteps))
        return at, at

    def expected(
        self, timesteps: Sequence[float], known: Mapping[float, float] | None = None
    ) -> tuple[int, str]:
        return min(self.step, len(timesteps)), "set"
