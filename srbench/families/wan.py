"""Wan 2.1, and every family with its architecture (the embedded shapes family is one).

This module holds settings only and imports no torch; `open` gives the sampler.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from srbench.errors import UserError
from srbench.registry import STRICT, identity, plugin

if TYPE_CHECKING:
    from srbench.families._wan import WanSampler

BUILTIN = "builtin:"
Polynomial = Annotated[tuple[float, ...], Field(min_length=2)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Weights:
    """Where a component's weights lie.

    source: a hub repository, a local folder, or `builtin:shapes`.  revision: a commit of
    the hub repository.  subfolder: inside it.
    """

    source: str
    revision: str | None = None
    subfolder: str | None = None

    @property
    def path(self) -> str:
        """What `from_pretrained` is given."""
        if self.source.startswith(BUILTIN):
            return str(Path(__file__).parents[1] / self.source.removeprefix(BUILTIN) / "model")
        return self.source

    @property
    def local(self) -> Path | None:
        """The folder, where the weights are files of this machine."""
        folder = Path(self.path)
        return folder / (self.subfolder or "") if folder.is_dir() else None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Price:
    """What a plan reckons with: seconds of one guided step, and where they come from.

    rest: seconds of encoding and decoding one video.  memory: bytes with both models
    resident.  video, state: bytes of one stored video and one kept state.  switch: after
    how many of 50 steps SRDiffusion leaves the large model, by δ.
    """

    large: Annotated[float, Field(gt=0)]
    small: Annotated[float, Field(gt=0)]
    rest: Annotated[float, Field(ge=0)] = 0.0
    memory: Annotated[float, Field(gt=0)] | None = None
    video: Annotated[float, Field(gt=0)] | None = None
    state: Annotated[float, Field(gt=0)] | None = None
    switch: dict[float, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    source: str


def _four_n_plus_one(frames: int) -> int:
    if frames % 4 != 1:
        raise ValueError(f"4 n + 1 frames, as {frames // 4 * 4 + 1}")
    return frames


@plugin
class Wan:
    """A Wan family: two transformers, one VAE, one UMT5 text encoder.

    name: for readers and folders.  components: tokenizer, text encoder, VAE and
    scheduler.  height, width: pixels, multiples of 16.  frames: 4 n + 1.  steps, shift: of
    the UniPC flow schedule.  sigma_grid: `wan` is the grid of Wan's own code and of
    diffusers up to 0.36, `diffusers` that of 0.37 on.
    teacache: rescale polynomials by model and mode, highest power first; where there are
    none, `teacache.json` beside the weights, as `srbench.calibrate` writes it.
    """

    name: str
    large: Weights
    small: Weights
    components: Weights
    height: Annotated[int, Field(gt=0, multiple_of=16)]
    width: Annotated[int, Field(gt=0, multiple_of=16)]
    frames: Annotated[int, Field(gt=0), AfterValidator(_four_n_plus_one)]
    fps: Annotated[int, Field(gt=0)]
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    shift: Annotated[float, Field(gt=0)] = 5.0
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    negative_prompt: str = ""
    max_sequence_length: Annotated[int, Field(gt=0)] = 512
    sigma_grid: Literal["wan", "diffusers"] = "wan"
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: str = "auto"
    price: Price | None = None
    teacache: dict[Literal["large", "small"], dict[Literal["default", "ret_steps"], Polynomial]] = Field(
        default_factory=dict
    )

    def timesteps(self, steps: int | None = None) -> tuple[float, ...]:
        """What the model is told at each step, without a model or a scheduler.

        σ shifted, σ' = s σ / (1 + (s − 1) σ), times 1000 and cut to a whole number.
        """
        n = steps or self.steps
        if self.sigma_grid == "wan":
            sigma = np.flip(1 - np.linspace(1, 1 / 1000, n + 1))[:-1]
        else:
            sigma = np.linspace(1, 1 / 1000, n + 1)[:-1]
        shifted = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        return tuple(float(t) for t in (shifted * 1000).astype(np.int64))

    @property
    def calls_per_step(self) -> int:
        """Model evaluations of a step with the family's own guidance."""
        return 2 if self.guidance_scale > 1 else 1

    def mistakes(self) -> list[UserError]:
        """What can be known to be wrong with local weights before a model loads."""
        from srbench.families import _checkpoint

        parts = [
            ("large", self.large, self.large.subfolder or "transformer"),
            ("small", self.small, self.small.subfolder or "transformer"),
            ("components", self.components, "vae"),
            ("components", self.components, "text_encoder"),
        ]
        found: list[UserError] = []
        for role, weights, subfolder in parts:
            folder = Path(weights.path)
            looks_local = weights.source.startswith((BUILTIN, "/", ".")) or folder.exists()
            if looks_local and folder.is_dir():
                found += _checkpoint.mistakes(folder / subfolder, f"family.{role}.source")
            elif looks_local:
                found.append(
                    UserError(
                        f"family.{role}.source = {weights.source}",
                        "a folder in diffusers layout with the weights in it",
                        "give its path, or a hub repository's name",
                    )
                )
        return list({str(m): m for m in found}.values())

    def essence(self) -> dict[str, Any]:
        """The settings that can change a bit of a video: all but price, name and device."""
        plain = identity(self)
        return {k: v for k, v in plain.items() if k not in ("price", "name", "device")}

    def weights_identity(self) -> dict[str, Any]:
        """What names the weights in keys: hashes of local files, else repository and revision."""
        from srbench.store.objects import folder_hash

        return {
            role: folder_hash(w.local) if w.local else [w.source, w.revision, w.subfolder]
            for role, w in (("large", self.large), ("small", self.small), ("components", self.components))
        }

    def polynomials(self, role: Literal["large", "small"]) -> dict[str, tuple[float, ...]]:
        """TeaCache's polynomials of a model by mode: the setting's, else those beside the weights."""
        if role in self.teacache:
            return {str(mode): p for mode, p in self.teacache[role].items()}
        file = self.components.local / "teacache.json" if self.components.local else None
        if file is None or not file.exists():
            return {}
        fits = json.loads(file.read_text("utf-8")).get(role, {})
        return {mode: tuple(fit["coefficients"]) for mode, fit in fits.items()}

    def open(self) -> WanSampler:
        """Load the models (torch and diffusers are imported here)."""
        from srbench.families._wan import WanSampler

        return WanSampler(self)
