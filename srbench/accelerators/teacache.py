"""TeaCache (arXiv 2411.19108), as a hook on the block stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from srbench.accelerators.base import Attachment
from srbench.config.registry import plugin

if TYPE_CHECKING:
    from torch import nn


@plugin
class TeaCache:
    """Skips all blocks while the time embedding has changed little since they last ran.

    Accumulates p(mean|e − e′| / mean|e′|) over steps, e′ the step before's embedding and p the
    rescale polynomial; below `threshold` the blocks' last residual (output − input) is
    added instead of running them, else they run and the sum starts again from 0.

    mode: `default` reads the time embedding e, first and last step always computed;
    `ret_steps` reads the projected embedding e0, first five steps always computed (Wan alone).
    coefficients: p, highest power first; the family's own for this model where None, which belong
    to its checkpoint: on weights of a method's own they must be given.
    threshold 0 never reuses.  In a segment that begins later, "first" means its first.
    """

    EXCLUDES: ClassVar[Mapping[str, str]] = {
        "pab": "pab counts the calls of attention modules, which teacache skips, "
        "so its N and its range would be of other steps"
    }

    COMPUTES_IN_FULL: ClassVar[bool] = True

    threshold: Annotated[float, Field(ge=0)]
    mode: Literal["default", "ret_steps"] = "default"
    coefficients: Annotated[tuple[float, ...], Field(min_length=1)] | None = None

    def settled(self, polynomials: Mapping[str, tuple[float, ...]]) -> TeaCache:
        """The same with its coefficients written in, where the family has some for its mode."""
        own = polynomials.get(self.mode) if self.coefficients is None else self.coefficients
        return replace(cast(Any, self), coefficients=own)

    def attach(self, model: nn.Module, attachment: Attachment) -> AbstractContextManager[None]:
        from srbench.accelerators._teacache import attached

        return attached(self, model, attachment)

    @property
    def first_steps(self) -> int:
        return 5 if self.mode == "ret_steps" else 1

    def inert_steps(self, timesteps: Sequence[float], calls_per_step: int, at_most: int) -> int:
        return 0

    def expects_reuse(self, timesteps: Sequence[float]) -> bool:
        # a rendering segment can be too short for anything to be reused
        return self.threshold > 0 and len(timesteps) >= 20
