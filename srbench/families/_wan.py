"""Wan's denoising loop, one step at a time, bit for bit as diffusers' `WanPipeline` runs it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from numpy.typing import NDArray
from torch import Tensor
from transformers import UMT5EncoderModel

from srbench.config.experiment import Role, Sampling
from srbench.families._sampler import DiffusersSampler, to_pixels
from srbench.families.base import State
from srbench.families.wan import Wan


class WanSampler(DiffusersSampler[Wan]):
    """A Wan family with its models in memory."""

    transformer_class = WanTransformer3DModel
    pipeline_class = WanPipeline
    vae_class = AutoencoderKLWan
    # as Wan's own pipelines load it: in bfloat16 it loses 1 dB and more
    vae_dtype = torch.float32
    encoder_class = UMT5EncoderModel

    def _text_pipeline(self, tokenizer: Any, encoder: Any) -> WanPipeline:
        return WanPipeline(tokenizer, encoder, None, self._make_scheduler())

    # -- the schedule

    def _make_scheduler(self, sampler: Sampling | None = None) -> Any:
        how = sampler or self.family.sampling
        # a list of timesteps is not shifted
        shift = 1.0 if how.timesteps is not None else how.shift
        if how.solver == "euler":
            return FlowMatchEulerDiscreteScheduler(shift=shift)
        return UniPCMultistepScheduler.from_pretrained(
            self.family.components.path, subfolder="scheduler", flow_shift=shift
        )

    def _schedule(self, steps: int | None, space: Role = "large", sampler: Sampling | None = None) -> Any:
        """One schedule for both models."""
        scheduler, n = self._make_scheduler(sampler), steps or self.family.steps
        grid = self.family.grid(n, sampler or self.family.sampling)
        if grid is None:
            scheduler.set_timesteps(n, device=self.device)
        else:
            scheduler.set_timesteps(sigmas=grid, device=self.device)
        if sampler is not None and sampler.timesteps is not None:
            # as listed: UniPC would tell 999 for 1000, and a product need not be whole again
            told = torch.tensor(sampler.timesteps, device=self.device)
            scheduler.timesteps = told.to(scheduler.timesteps.dtype)
        # without it the first step looks its index up, which fails where two timesteps are equal
        scheduler.set_begin_index(0)
        return scheduler

    def _begin(self, seed: int, sampler: Sampling | None) -> tuple[Tensor, None]:
        """(1, channels, frames, height, width), float32 whatever the models' dtype."""
        shape = (1, self._facts.channels, *self._latent_size())
        return self._noise(shape, torch.Generator().manual_seed(seed), torch.float32), None

    def _fork(self, scheduler: Any) -> Any:
        """UniPC's lists are copied, the tensors in them are not: `step` never writes into one."""
        fork = copy.copy(scheduler)
        if isinstance(scheduler, UniPCMultistepScheduler):
            fork.model_outputs = list(scheduler.model_outputs)
            fork.timestep_list = list(scheduler.timestep_list)
        return fork

    # -- denoising

    def _forward(self, model: Any, x: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """The output stays in the model's dtype, as guidance does."""
        return model(hidden_states=x, timestep=t, encoder_hidden_states=embedding, return_dict=False)[0]

    def _noise_level(self, scheduler: Any, index: int) -> float:
        return float(scheduler.sigmas[index])

    def _signals(
        self, scheduler: Any, index: int, sample: Tensor, output: Tensor, latents: Tensor
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
        if getattr(scheduler, "last_sample", None) is not None:
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

    def _freeze_scheduler(self, scheduler: Any) -> tuple[dict[str, Tensor | None], dict[str, str]]:
        meta = {"step_index": "" if scheduler.step_index is None else str(scheduler.step_index)}
        if not isinstance(scheduler, UniPCMultistepScheduler):
            return {}, meta
        tensors = {f"history.{i}": v for i, v in enumerate(scheduler.model_outputs)}
        meta["lower_order_nums"] = str(scheduler.lower_order_nums)
        meta["this_order"] = str(getattr(scheduler, "this_order", ""))
        return tensors | {"last_sample": scheduler.last_sample}, meta

    def _thaw_scheduler(self, scheduler: Any, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
        if meta["step_index"]:
            scheduler._step_index = int(meta["step_index"])
        if not isinstance(scheduler, UniPCMultistepScheduler):
            return
        scheduler.model_outputs = [tensors.get(f"history.{i}") for i in range(len(scheduler.model_outputs))]
        scheduler.last_sample = tensors.get("last_sample")
        scheduler.lower_order_nums = int(meta["lower_order_nums"])
        if meta["this_order"]:
            scheduler.this_order = int(meta["this_order"])
