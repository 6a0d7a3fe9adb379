"""CogVideoX's denoising loop, one step at a time, bit for bit as diffusers' `CogVideoXPipeline`."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from numpy.typing import NDArray
from torch import Tensor
from transformers import T5EncoderModel

from srbench.config.experiment import Denoiser, Role, Sampling
from srbench.families._sampler import DiffusersSampler, to_pixels
from srbench.families.base import State
from srbench.families.cogvideox import CogVideoX

SCHEDULERS = {"dpm": CogVideoXDPMScheduler, "ddim": CogVideoXDDIMScheduler}


class CogVideoXSampler(DiffusersSampler[CogVideoX]):
    """A CogVideoX family with its models in memory.

    Latents live in the dtype of the model that works on them; the model's output is
    float32 from guidance on.
    """

    transformer_class = CogVideoXTransformer3DModel
    pipeline_class = CogVideoXPipeline
    vae_class = AutoencoderKLCogVideoX
    encoder_class = T5EncoderModel

    def __init__(self, family: CogVideoX) -> None:
        super().__init__(family)
        self.vae_dtype = self.dtype

    def _text_pipeline(self, tokenizer: Any, encoder: Any) -> CogVideoXPipeline:
        return CogVideoXPipeline(tokenizer, encoder, None, None, self._make_scheduler("large"))

    # -- what the two models do not share

    def _solver(self, sampler: Sampling | None) -> str:
        return (sampler and sampler.solver) or self.family.sampler

    def _make_scheduler(self, space: Role, sampler: Sampling | None = None) -> Any:
        """From the model's own repository, for its shift of the signal-to-noise ratio."""
        weights = self.family.components if space == "large" else self.family.small
        return SCHEDULERS[self._solver(sampler)].from_pretrained(
            weights.path, subfolder="scheduler", timestep_spacing="trailing"
        )

    @functools.cached_property
    def _vae_scale(self) -> dict[Role, float]:
        """What each model's latents were multiplied with after the VAE that they share."""

        def scale(folder: Any) -> float:
            config = json.loads((folder / "vae" / "config.json").read_text("utf-8"))
            return float(config.get("scaling_factor", 1.15258426))  # the class's default

        return {"large": scale(self.family.components.folder), "small": scale(self.family.small.folder)}

    # -- the schedule

    def _schedule(self, steps: int | None, space: Role = "large", sampler: Sampling | None = None) -> Any:
        scheduler = self._make_scheduler(space, sampler)
        scheduler.set_timesteps(steps or self.family.steps, device=self.device)
        return scheduler

    def _begin(self, seed: int, sampler: Sampling | None) -> tuple[Tensor, Tensor | None]:
        """(1, frames, 16, height, width) in the family's dtype."""
        frames, height, width = self._latent_size()
        generator = torch.Generator().manual_seed(seed)
        shape = (1, frames, self._facts.channels, height, width)
        noise = self._noise(shape, generator, self.dtype)
        return noise, generator.get_state() if self._solver(sampler) == "dpm" else None

    def _fork(self, scheduler: Any) -> Any:
        """Its history is in the state: nothing to copy."""
        return scheduler

    # -- denoising

    def _guidance_at(self, denoiser: Denoiser, t: float, steps: int) -> float:
        """Dynamic guidance by the formula of diffusers, which mixes timestep and step count."""
        guidance = self.family.guidance(denoiser)
        if not self.family.dynamic_guidance:
            return guidance
        return 1 + guidance * ((1 - math.cos(math.pi * ((steps - t) / steps) ** 5.0)) / 2)

    def _forward(self, model: Any, x: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """The output in float32, so guidance is too."""
        return model(
            hidden_states=x,
            timestep=t,
            encoder_hidden_states=embedding,
            image_rotary_emb=self._rotary(model, x),
            return_dict=False,
        )[0].float()

    def _rotary(self, model: Any, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rotary tables for a model that uses them, and only then: either mistake runs silently wrong."""
        if not model.config.use_rotary_positional_embeddings:
            return None
        cached = self._rotary_tables
        key = id(model), x.shape[1:]
        if key not in cached:
            # the pipeline's own function needs only these attributes of a pipeline
            pipeline = CogVideoXPipeline(None, None, None, model, None)
            cached[key] = pipeline._prepare_rotary_positional_embeddings(
                self.family.height, self.family.width, x.shape[1], self.device
            )
        return cached[key]

    @functools.cached_property
    def _rotary_tables(self) -> dict[Any, tuple[Tensor, Tensor]]:
        return {}

    def _noise_level(self, scheduler: Any, index: int) -> float:
        """√(1 − ᾱ), which is 1 at the first timestep (zero terminal SNR)."""
        return float((1 - scheduler.alphas_cumprod[int(scheduler.timesteps[index])]) ** 0.5)

    def _signals(
        self, scheduler: Any, index: int, sample: Tensor, output: Tensor, latents: Tensor
    ) -> dict[str, Tensor]:
        """x_t = √ᾱ x0 + √(1 − ᾱ) ε and output v = √ᾱ ε − √(1 − ᾱ) x0 give x0 and ε."""
        alpha = scheduler.alphas_cumprod[int(scheduler.timesteps[index])]
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        return {
            "model_output": output,
            "x0": signal * sample - noise * output,
            "eps": noise * sample + signal * output,
            "latent": latents,
        }

    def _advance(self, scheduler: Any, state: State, output: Tensor) -> State:
        i, x = state.index, state.latents
        t = scheduler.timesteps[i]
        if state.generator is None:
            latents = scheduler.step(output, t, x, return_dict=False)[0]
            return replace(state, latents=latents.to(x.dtype))
        generator = torch.Generator()
        generator.set_state(state.generator)
        back = scheduler.timesteps[i - 1] if i > 0 else None
        latents, x0 = scheduler.step(
            output, state.previous_x0, t, back, x, generator=generator, return_dict=False
        )
        return replace(state, latents=latents.to(x.dtype), previous_x0=x0, generator=generator.get_state())

    def hand_over(self, state: State, new: Denoiser) -> State:
        """From one model's latent space and noise schedule to the other's, as the paper has it.

        The latents are taken as they are.  That is approximate: the 5B model scales its
        latents by 0.7 and shifts its noise schedule by 1, the 2B one by 1.15258426 and 3,
        which nearly cancel.  Between steps 6 and 20 of 50 the signal comes out 1 to 7 %
        too large and the noise up to 4.5 % too small for the small model's schedule;
        the timesteps are the same.  From here on the new model's schedule and scale are
        used, also for decoding.
        The sampler's history is a predicted x0, free of noise, so it is rescaled exactly.
        D is not taken across the change, for the two steps' signals have no common scale.
        Between two precisions of one model only the latents' dtype changes.
        """
        dtype = self.dtype if new.dtype is None else getattr(torch, new.dtype)
        state = replace(state, latents=state.latents.to(dtype))
        if state.space == new.model:
            return state
        x0 = state.previous_x0
        if x0 is not None:
            x0 = x0 * (self._vae_scale[new.model] / self._vae_scale[state.space])
        return replace(
            state,
            scheduler=self._schedule(len(state.scheduler.timesteps), new.model, state.sampler),
            previous_x0=x0,
            sample=None,
            output=None,
            space=new.model,
        )

    @torch.no_grad()
    def decode(self, state: State) -> NDArray[np.uint8]:
        latents = state.latents.to(self.vae_dtype).permute(0, 2, 1, 3, 4)
        return to_pixels(self._vae.decode(1 / self._vae_scale[state.space] * latents).sample[0])
