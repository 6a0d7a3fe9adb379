"""Wan's denoising loop, one step at a time, bit for bit as diffusers' `WanPipeline` runs it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import UMT5EncoderModel

from srbench.experiment import Role
from srbench.families._sampler import DiffusersSampler, to_pixels
from srbench.families.base import State
from srbench.families.wan import Wan


class WanSampler(DiffusersSampler[Wan]):
    """A Wan family with its models in memory."""

    transformer_class = WanTransformer3DModel
    vae_class = AutoencoderKLWan
    # as Wan's own pipelines load it: in bfloat16 it loses 1 dB and more
    vae_dtype = torch.float32
    encoder_class = UMT5EncoderModel

    def _text_pipeline(self, tokenizer: Any, encoder: Any) -> WanPipeline:
        return WanPipeline(tokenizer, encoder, None, self._make_scheduler())

    # -- the schedule

    def _make_scheduler(self) -> UniPCMultistepScheduler:
        return UniPCMultistepScheduler.from_pretrained(
            self.family.components.path, subfolder="scheduler", flow_shift=self.family.shift
        )

    def _schedule(self, steps: int | None, space: Role = "large") -> UniPCMultistepScheduler:
        """One schedule for both models."""
        scheduler, n = self._make_scheduler(), steps or self.family.steps
        if self.family.sigma_grid == "wan":
            grid = np.flip(1 - np.linspace(1, 1 / 1000, n + 1))[:-1].copy()
            scheduler.set_timesteps(sigmas=grid, device=self.device)
        else:
            scheduler.set_timesteps(n, device=self.device)
        # without it the first step looks its index up, which fails where two timesteps are equal
        scheduler.set_begin_index(0)
        return scheduler

    def _begin(self, seed: int) -> tuple[Tensor, None]:
        """(1, 16, frames, height, width), float32 whatever the models' dtype."""
        shape = (1, self._vae_config["z_dim"], *self._latent_size())
        return self._noise(shape, torch.Generator().manual_seed(seed), torch.float32), None

    def _fork(self, scheduler: UniPCMultistepScheduler) -> UniPCMultistepScheduler:
        """The lists are copied, the tensors in them are not: `step` never writes into one."""
        fork = copy.copy(scheduler)
        fork.model_outputs = list(scheduler.model_outputs)
        fork.timestep_list = list(scheduler.timestep_list)
        return fork

    # -- denoising

    def _forward(self, model: Any, x: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """The output stays in the model's dtype, as guidance does."""
        return model(hidden_states=x, timestep=t, encoder_hidden_states=embedding, return_dict=False)[0]

    def _noise_level(self, scheduler: UniPCMultistepScheduler, index: int) -> float:
        return float(scheduler.sigmas[index])

    def _signals(
        self,
        scheduler: UniPCMultistepScheduler,
        index: int,
        sample: Tensor,
        output: Tensor,
        latents: Tensor,
    ) -> dict[str, Tensor]:
        """x_σ = (1 − σ) x0 + σ ε and output = ε − x0 give x0 and ε."""
        sigma = scheduler.sigmas[index]
        return {
            "model_output": output,
            "x0": sample - sigma * output,
            "eps": sample + (1 - sigma) * output,
            "latent": latents,
        }

    def _advance(self, scheduler: UniPCMultistepScheduler, state: State, output: Tensor) -> State:
        t = scheduler.timesteps[state.index]
        return replace(state, latents=scheduler.step(output, t, state.latents, return_dict=False)[0])

    def disturb(self, state: State, noise: Tensor) -> State:
        """Noise in the latents, and in the sample from which UniPC's corrector makes them anew.

        The corrector starts each step from the sample before, by σ_i / σ_{i−1} times it, and
        forgets the latents: noise in them alone would touch one model output and be gone.
        """
        noise, scheduler = noise.to(state.latents), self._fork(state.scheduler)
        if scheduler.last_sample is not None:
            grows = scheduler.sigmas[state.index - 1] / scheduler.sigmas[state.index]
            scheduler.last_sample = scheduler.last_sample + grows * noise
        return replace(state, latents=state.latents + noise, scheduler=scheduler)

    @torch.no_grad()
    def decode(self, state: State) -> NDArray[np.uint8]:
        config = self._vae.config
        mean, std = (
            torch.tensor(v, device=self.device, dtype=torch.float32).view(1, config.z_dim, 1, 1, 1)
            for v in (config.latents_mean, config.latents_std)
        )
        # as the pipeline writes it, division by a reciprocal included: the same bits
        latents = state.latents.float() / (1.0 / std) + mean
        return to_pixels(self._vae.decode(latents, return_dict=False)[0][0])

    # -- states as files

    def _freeze_scheduler(
        self, scheduler: UniPCMultistepScheduler
    ) -> tuple[dict[str, Tensor | None], dict[str, str]]:
        tensors = {f"history.{i}": v for i, v in enumerate(scheduler.model_outputs)}
        meta = {
            "lower_order_nums": str(scheduler.lower_order_nums),
            "this_order": str(getattr(scheduler, "this_order", "")),
            "step_index": "" if scheduler.step_index is None else str(scheduler.step_index),
        }
        return tensors | {"last_sample": scheduler.last_sample}, meta

    def _thaw_scheduler(
        self, scheduler: UniPCMultistepScheduler, tensors: Mapping[str, Tensor], meta: Mapping[str, str]
    ) -> None:
        scheduler.model_outputs = [tensors.get(f"history.{i}") for i in range(len(scheduler.model_outputs))]
        scheduler.last_sample = tensors.get("last_sample")
        scheduler.lower_order_nums = int(meta["lower_order_nums"])
        if meta["this_order"]:
            scheduler.this_order = int(meta["this_order"])
        if meta["step_index"]:
            scheduler._step_index = int(meta["step_index"])
