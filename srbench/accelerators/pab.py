"""Pyramid Attention Broadcast (arXiv 2408.12588), on diffusers' own hook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from srbench.accelerators.base import Attachment
from srbench.config.registry import plugin
from srbench.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@plugin
class PAB:
    """Computes attention in one call of `skip_range` and broadcasts it to the others.

    skip_range: N.  timestep_range: where it acts, bounds excluded, in (0, 1000); the
    paper's PAB 8,[100–970] is N = 8, (100, 970).
    hooks: `self` broadcasts self-attention alone (diffusers from 0.35 on); `self+cross` also
    cross-attention, as 0.33 and 0.34 did on Wan.
    state: `shared` is stock diffusers, where the conditional and the unconditional call of
    Wan take turns on one cache, so N = 8 recomputes every fourth step and the
    unconditional call reuses the conditional one's attention; with `self+cross` that
    switches guidance off inside the range.  `per_branch` keeps a cache for each.
    """

    COMPUTES_IN_FULL: ClassVar[bool] = True

    skip_range: Annotated[int, Field(ge=2)] = 2
    timestep_range: tuple[float, float] = (100.0, 800.0)
    hooks: Literal["self", "self+cross"] = "self"
    state: Literal["shared", "per_branch"] = "shared"

    def __post_init__(self) -> None:
        low, high = self.timestep_range
        if not 0 <= low < high <= 1000:
            raise UserError(
                f"pab.timestep_range = [{low:g}, {high:g}]",
                "two timesteps, the lower first, between 0 and 1000",
                "for example [100, 800]",
            )

    def attach(self, model: nn.Module, attachment: Attachment) -> AbstractContextManager[None]:
        from srbench.accelerators._pab import attached

        return attached(self, model, attachment)

    def _in_range(self, timesteps: Sequence[float]) -> list[int]:
        low, high = self.timestep_range
        return [i for i, t in enumerate(timesteps) if low < t < high]

    def inert_steps(self, timesteps: Sequence[float], calls_per_step: int, at_most: int) -> int:
        """Up to the first step in range, and in phase with its counter of calls."""
        inside = self._in_range(timesteps)
        first = min(inside[0] if inside else len(timesteps), at_most)
        calls = 1 if self.state == "per_branch" else calls_per_step
        phase = self.skip_range // math.gcd(self.skip_range, calls)
        return first // phase * phase

    def expects_reuse(self, timesteps: Sequence[float]) -> bool:
        return len(self._in_range(timesteps)) > self.skip_range
