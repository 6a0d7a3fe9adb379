"""What a family is to everything above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srbench.config.custom_weights import OwnWeights
from srbench.config.experiment import Denoiser, DType, Role, Sampling
from srbench.trace import Step

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class State:
    """All that survives a denoising step; a value, so a fork is another reference to it.

    index: steps done, which is the position in the schedule.  latents: the family's latent
    shape with a batch of one; float32, or the model's dtype where the family's pipeline
    has them so.  scheduler: with its multistep history, never changed in place.
    sample, output: what the step before started from and what the model said, from which
    its signals follow, for D.
    generator: a torch.Generator's state, uint8, where the sampler draws noise at every
    step.  previous_x0: the x0 that the step before predicted, where the sampler is
    multistep and keeps its history here.  space: the model whose latent space and noise
    schedule the latents are in, where those differ.  sampler: the method's own, which made the
    scheduler; the family's where None.
    """

    index: int
    latents: Tensor
    scheduler: Any
    sample: Tensor | None = None
    output: Tensor | None = None
    generator: Tensor | None = None
    previous_x0: Tensor | None = None
    space: Role = "large"
    sampler: Sampling | None = None

    @property
    def done(self) -> bool:
        return self.index == len(self.scheduler.timesteps)


@dataclass(frozen=True)
class Text:
    """A prompt and its negative prompt, encoded: (1, length, width) each."""

    prompt: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Encoded:
    """One text's embedding, (1, length, width), and the seconds it took."""

    embedding: Tensor
    seconds: float


class Sampler(Protocol):
    """A family with its models in memory."""

    device: torch.device
    fps: int

    def encode(self, texts: Sequence[str]) -> dict[str, Encoded]:
        """Every distinct text, encoded.  The encoder is loaded for it and unloaded after it."""
        ...

    def start(self, seed: int, steps: int | None, sampler: Sampling | None = None) -> State:
        """Pure noise, the same for one seed whatever the method, in the large model's space."""
        ...

    def timesteps(self, steps: int | None, sampler: Sampling | None = None) -> tuple[float, ...]:
        """What the model is told at each step, falling from 1000."""
        ...

    def model(self, role: Role, dtype: DType | None = None, own: OwnWeights | None = None) -> Any:
        """The large or the small model on the device, loaded when first asked for.

        dtype: a copy in another precision; the family's own where None.  own: weights in the place of
        the family's.
        """
        ...

    def calls_per_step(self, denoiser: Denoiser) -> int:
        """Model calls of a step: 2 with guidance whose branches are not one batch, else 1."""
        ...

    def attach(self, denoiser: Denoiser, steps: int) -> AbstractContextManager[None]:
        """Attach a denoiser's accelerators; on leaving, the model is as before."""
        ...

    def step(self, denoiser: Denoiser, state: State, text: Text) -> tuple[State, Step]:
        """One denoising step (Algorithm 1, lines 4 to 7)."""
        ...

    def hand_over(self, state: State, new: Denoiser) -> State:
        """The state as the next denoiser needs it, whichever one it comes from."""
        ...

    def disturb(self, state: State, noise: Tensor) -> State:
        """The state with noise, of the latents' shape, added to where its path goes on from."""
        ...

    def decode(self, state: State) -> NDArray[np.uint8]:
        """The video of a finished state: (frames, height, width, 3), RGB."""
        ...

    def freeze(self, state: State) -> tuple[dict[str, Tensor], dict[str, str]]:
        """A state as named tensors and strings, for a safetensors file."""
        ...

    def thaw(self, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> State:
        """The inverse of `freeze`."""
        ...
