"""Wan 2.1, and every family with its architecture (the embedded shapes family is one).

This module holds settings only and imports no torch; `open` gives the sampler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from srbench.families._settings import TWIN_TEACACHE, FamilySettings, Price
from srbench.families._weights import Weights
from srbench.registry import plugin

if TYPE_CHECKING:
    from srbench.families._wan import WanSampler

__all__ = ["Price", "Wan", "Weights"]


@plugin
class Wan(FamilySettings):
    """A Wan family: two transformers, one VAE, one UMT5 text encoder; see `FamilySettings`.

    steps, shift: of the UniPC flow schedule.  sigma_grid: `wan` is the grid of Wan's own
    code and of diffusers up to 0.36, `diffusers` that of 0.37 on.
    """

    shift: Annotated[float, Field(gt=0)] = 5.0
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    max_sequence_length: Annotated[int, Field(gt=0)] = 512
    sigma_grid: Literal["wan", "diffusers"] = "wan"

    def twin(self) -> dict[str, Any]:
        """5 frames of 32×32; weights by the recipe `tiny:wan`."""
        return {
            "large": Weights(source="tiny:wan", subfolder="transformer"),
            "small": Weights(source="tiny:wan", subfolder="transformer_2"),
            "components": Weights(source="tiny:wan"),
            **{"height": 32, "width": 32, "frames": 5, "price": None, "teacache": TWIN_TEACACHE},
        }

    def timesteps(self, steps: int | None = None) -> tuple[float, ...]:
        """What the model is told at each step, without a model or a scheduler.

        σ shifted, σ' = s σ / (1 + (s − 1) σ), times 1000 and cut to a whole number; a σ of 1
        made smaller by 1e-6, as the scheduler does, so it is told as 999.
        """
        n = steps or self.steps
        if self.sigma_grid == "wan":
            sigma = np.flip(1 - np.linspace(1, 1 / 1000, n + 1))[:-1]
        else:
            sigma = np.linspace(1, 1 / 1000, n + 1)[:-1]
        shifted = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        shifted = np.where(np.abs(shifted - 1) < 1e-6, shifted - 1e-6, shifted)
        return tuple(float(t) for t in (shifted * 1000).astype(np.int64))

    def open(self) -> WanSampler:
        """Load the models (torch and diffusers are imported here)."""
        from srbench.families._wan import WanSampler

        return WanSampler(self)
