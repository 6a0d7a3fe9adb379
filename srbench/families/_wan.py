"""Wan's denoising loop, one step at a time, bit for bit as diffusers' `WanPipeline` runs it."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.utils import logging as diffusers_logging
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from srbench.accelerators.base import Attachment
from srbench.clock import timed
from srbench.experiment import Denoiser, Role
from srbench.families.base import Encoded, State, Text
from srbench.families.wan import Wan
from srbench.trace import Step


def fork_scheduler(scheduler: UniPCMultistepScheduler) -> UniPCMultistepScheduler:
    """A copy that can step on without touching the original.

    The lists are copied, the tensors in them are not: `step` never writes into one.
    """
    fork = copy.copy(scheduler)
    fork.model_outputs = list(scheduler.model_outputs)
    fork.timestep_list = list(scheduler.timestep_list)
    return fork


def relative_change(now: Tensor, before: Tensor) -> float:
    """Equation 3: tanh(|s_τ − s_{τ−1}|₁ / |s_{τ−1}|₁), in float32."""
    now, before = now.float(), before.float()
    return float(torch.tanh((now - before).abs().sum() / before.abs().sum()))


# their bars would tear ours, and a worker has no terminal
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()


def signals(sample: Tensor, output: Tensor, sigma: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """What D is taken of: x_σ = (1 − σ) x0 + σ ε and output = ε − x0 give x0 and ε."""
    return {
        "model_output": output,
        "x0": sample - sigma * output,
        "eps": sample + (1 - sigma) * output,
        "latent": latents,
    }


def change(state: State, now: dict[str, Tensor]) -> dict[str, float] | None:
    """D of every signal against the step before; None after the first step."""
    if state.sample is None or state.output is None:
        return None
    sigma = state.scheduler.sigmas[state.index - 1]
    before = signals(state.sample, state.output, sigma, state.latents)
    return {name: relative_change(now[name], before[name]) for name in now}


class WanSampler:
    """A Wan family with its models in memory; see `srbench.families.base.Sampler`."""

    def __init__(self, family: Wan) -> None:
        self.family = family
        self.fps = family.fps
        cuda = torch.cuda.is_available()
        self.device = torch.device(("cuda" if cuda else "cpu") if family.device == "auto" else family.device)
        self.dtype: torch.dtype = getattr(torch, family.dtype)
        self._attachment: Attachment | None = None
        self._models: dict[Role, WanTransformer3DModel] = {}

    # -- components, each loaded when it is first needed

    @functools.cached_property
    def _vae(self) -> AutoencoderKLWan:
        # float32 as Wan's own pipelines load it: in bfloat16 it loses 1 dB and more
        weights = self.family.components
        vae = AutoencoderKLWan.from_pretrained(
            weights.path,
            subfolder="vae",
            revision=weights.revision,
            torch_dtype=torch.float32,
            use_safetensors=True,
        )
        return vae.to(self.device).eval()

    def model(self, role: Role) -> WanTransformer3DModel:
        """The large or the small transformer."""
        if role not in self._models:
            weights = self.family.large if role == "large" else self.family.small
            model = WanTransformer3DModel.from_pretrained(
                weights.path,
                subfolder=weights.subfolder or "transformer",
                revision=weights.revision,
                torch_dtype=self.dtype,
                use_safetensors=True,
            )
            self._models[role] = model.to(self.device).eval()
        return self._models[role]

    # -- text

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> dict[str, Encoded]:
        weights = self.family.components
        tokenizer = AutoTokenizer.from_pretrained(
            weights.path, subfolder="tokenizer", revision=weights.revision
        )
        encoder = UMT5EncoderModel.from_pretrained(
            weights.path,
            subfolder="text_encoder",
            revision=weights.revision,
            dtype=self.dtype,
            use_safetensors=True,
        ).to(self.device)
        pipeline = WanPipeline(tokenizer, encoder, None, self._make_scheduler())
        encoded = {}
        for text in dict.fromkeys(texts):
            with timed(self.device) as seconds:
                embedding = pipeline.encode_prompt(
                    text,
                    do_classifier_free_guidance=False,
                    max_sequence_length=self.family.max_sequence_length,
                    device=self.device,
                )[0]
            encoded[text] = Encoded(embedding, seconds.value)
        return encoded  # the encoder goes out of scope here

    # -- the schedule

    def _make_scheduler(self) -> UniPCMultistepScheduler:
        weights = self.family.components
        return UniPCMultistepScheduler.from_pretrained(
            weights.path, subfolder="scheduler", revision=weights.revision, flow_shift=self.family.shift
        )

    def _schedule(self, steps: int | None) -> UniPCMultistepScheduler:
        scheduler, n = self._make_scheduler(), steps or self.family.steps
        if self.family.sigma_grid == "wan":
            grid = np.flip(1 - np.linspace(1, 1 / 1000, n + 1))[:-1].copy()
            scheduler.set_timesteps(sigmas=grid, device=self.device)
        else:
            scheduler.set_timesteps(n, device=self.device)
        # without it the first step looks its index up, which fails where two timesteps are equal
        scheduler.set_begin_index(0)
        return scheduler

    def timesteps(self, steps: int | None) -> tuple[float, ...]:
        return tuple(float(t) for t in self._schedule(steps).timesteps)

    def start(self, seed: int, steps: int | None) -> State:
        vae = self._vae.config
        shape = (
            1,
            vae.z_dim,
            (self.family.frames - 1) // vae.scale_factor_temporal + 1,
            self.family.height // vae.scale_factor_spatial,
            self.family.width // vae.scale_factor_spatial,
        )
        generator = torch.Generator().manual_seed(seed)
        noise = randn_tensor(shape, generator=generator, device=self.device, dtype=torch.float32)
        return State(0, noise, self._schedule(steps))

    # -- denoising

    def guidance(self, denoiser: Denoiser) -> float:
        own = denoiser.guidance_scale
        return self.family.guidance_scale if own is None else own

    def calls_per_step(self, denoiser: Denoiser) -> int:
        return 2 if self.guidance(denoiser) > 1 else 1

    @contextlib.contextmanager
    def attach(self, denoiser: Denoiser, steps: int) -> Iterator[None]:
        self._attachment = Attachment(
            role=denoiser.model,
            steps=steps,
            calls_per_step=self.calls_per_step(denoiser),
            polynomials=self.family.polynomials(denoiser.model),
        )
        try:
            with contextlib.ExitStack() as stack:
                for accelerator in denoiser.accelerators:
                    # only here: with nothing to attach, a segment that is all known loads no model
                    model = self.model(denoiser.model)
                    stack.enter_context(accelerator.attach(model, self._attachment))
                yield
        finally:
            self._attachment = None

    def _predict(self, denoiser: Denoiser, state: State, text: Text) -> Tensor:
        """The guided model output, (1, 16, frames, height, width), in the model's dtype."""
        model = self.model(denoiser.model)
        x = state.latents.to(model.dtype)
        t = state.scheduler.timesteps[state.index].expand(1)
        where = {
            "step_index": state.index,
            "sigma": float(state.scheduler.sigmas[state.index]),
            "num_inference_steps": len(state.scheduler.timesteps),
        }

        def call(branch: str, embedding: Tensor) -> Tensor:
            with model.cache_context(branch, **where):
                return model(
                    hidden_states=x,
                    timestep=t,
                    encoder_hidden_states=embedding.to(model.dtype),
                    return_dict=False,
                )[0]

        cond = call("cond", text.prompt)
        guidance = self.guidance(denoiser)
        if guidance <= 1:
            return cond
        uncond = call("uncond", text.negative)
        return uncond + guidance * (cond - uncond)

    @torch.no_grad()
    def step(self, denoiser: Denoiser, state: State, text: Text) -> tuple[State, Step]:
        i, scheduler = state.index, fork_scheduler(state.scheduler)
        t, sigma, x = scheduler.timesteps[i], scheduler.sigmas[i], state.latents
        attachment = self._attachment or Attachment(denoiser.model, len(scheduler.timesteps), 1)
        attachment.begin_step(float(t))
        output = self._predict(denoiser, state, text)
        latents = scheduler.step(output, t, x, return_dict=False)[0]
        calls = self.calls_per_step(denoiser)
        record = Step(
            index=i,
            timestep=float(t),
            next_timestep=float(scheduler.timesteps[i + 1]) if i + 1 < len(scheduler.timesteps) else 0.0,
            sigma=float(sigma),
            denoiser=denoiser.id,
            model=denoiser.model,
            change=change(state, signals(x, output, sigma, latents)),
            calls_computed=calls - attachment.calls_reused,
            calls_reused=attachment.calls_reused,
            modules_computed=attachment.modules_computed,
            modules_reused=attachment.modules_reused,
        )
        return State(i + 1, latents, scheduler, None, x, output), record

    def hand_over(self, state: State, old: Denoiser, new: Denoiser) -> State:
        """Wan's models share latent space and schedule: nothing to change."""
        return state

    @torch.no_grad()
    def decode(self, state: State) -> NDArray[np.uint8]:
        config = self._vae.config
        mean, std = (
            torch.tensor(v, device=self.device, dtype=torch.float32).view(1, config.z_dim, 1, 1, 1)
            for v in (config.latents_mean, config.latents_std)
        )
        # as the pipeline writes it, division by a reciprocal included: the same bits
        latents = state.latents.float() / (1.0 / std) + mean
        pixels = self._vae.decode(latents, return_dict=False)[0][0]
        pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).cpu().numpy()
        return np.rint(pixels * 255).astype(np.uint8)

    # -- states as files

    def freeze(self, state: State) -> tuple[dict[str, Tensor], dict[str, str]]:
        s = state.scheduler
        tensors = {"latents": state.latents}
        tensors |= {} if state.sample is None else {"sample": state.sample}
        tensors |= {} if state.output is None else {"output": state.output}
        tensors |= {f"history.{i}": v for i, v in enumerate(s.model_outputs) if v is not None}
        if s.last_sample is not None:
            tensors["last_sample"] = s.last_sample
        meta = {
            "index": str(state.index),
            "steps": str(len(s.timesteps)),
            "lower_order_nums": str(s.lower_order_nums),
            "this_order": str(getattr(s, "this_order", "")),
            "step_index": "" if s.step_index is None else str(s.step_index),
        }
        # a safetensors file takes no memory twice, and the scheduler may hold our own tensors
        return {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, meta

    def thaw(self, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> State:
        scheduler = self._schedule(int(meta["steps"]))
        scheduler.model_outputs = [tensors.get(f"history.{i}") for i in range(len(scheduler.model_outputs))]
        scheduler.last_sample = tensors.get("last_sample")
        scheduler.lower_order_nums = int(meta["lower_order_nums"])
        if meta["this_order"]:
            scheduler.this_order = int(meta["this_order"])
        if meta["step_index"]:
            scheduler._step_index = int(meta["step_index"])
        return State(
            int(meta["index"]),
            tensors["latents"],
            scheduler,
            None,
            tensors.get("sample"),
            tensors.get("output"),
        )
