"""Stay to the end."""

from __future__ import annotations

from srbench.registry import plugin
from srbench.trace import Trace


@plugin
class Always:
    """Never fires: the denoiser of the segment always runs."""

    def fires(self, trace: Trace, entered: int) -> bool:
        return False
