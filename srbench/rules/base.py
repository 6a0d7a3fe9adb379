"""What a switch rule is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from srbench.trace import Trace


class Rule(Protocol):
    """Asked after every step but the last whether the segment is over.

    A rule sees the trace of the whole path, from step 0, and after how many executed
    steps its segment was entered.  It keeps nothing between calls.
    """

    kind: str

    def fires(self, trace: Trace, entered: int) -> bool:
        """Whether the segment that began after `entered` steps ends now."""
        ...

    def window(self, timesteps: Sequence[float]) -> tuple[int, int]:
        """After how many executed steps it fires at the earliest and at the latest.

        The number of steps itself means never.
        """
        ...

    def expected(
        self, timesteps: Sequence[float], known: Mapping[float, float] | None = None
    ) -> tuple[int, str]:
        """After how many steps a plan assumes that it fires, and what that rests on.

        known: what the family's price says of its adaptive switch, by δ.
        """
        ...


def replay(rule: Rule, trace: Trace, entered: int = 0) -> int | None:
    """After how many executed steps a rule would have left its segment; None if never.

    `trace` must run at least as far with the denoiser of that segment, as the large
    model's own trace does for every switch away from it.
    """
    for executed in range(entered + 1, len(trace)):
        if rule.fires(trace.until(executed), entered):
            return executed
    return None
