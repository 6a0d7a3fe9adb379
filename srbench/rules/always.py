"""Stay to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srbench.config.registry import plugin
from srbench.trace import Trace


@plugin
class Always:
    """Never fires: the denoiser of the segment always runs."""

    def fires(self, trace: Trace, entered: int) -> bool:
        return False

    def window(self, timesteps: Sequence[float]) -> tuple[int, int]:
        return len(timesteps), len(timesteps)

    def expected(
        self, timesteps: Sequence[float], known: Mapping[float, float] | None = None
    ) -> tuple[int, str]:
        return len(timesteps), "to the end"
