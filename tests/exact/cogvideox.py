"""The tiny CogVideoX twin in memory, and stock diffusers beside it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
)

from srbench.families._cogvideox import CogVideoXSampler
from srbench.families._weights import Weights
from srbench.families.base import Text
from srbench.families.cogvideox import CogVideoX

PROMPT, NEGATIVE, SEED = "a red circle moving up", "blurry", 7
SCHEDULERS = {"dpm": CogVideoXDPMScheduler, "ddim": CogVideoXDDIMScheduler}


@functools.cache
def _base() -> CogVideoXSampler:
    somewhere = Weights(source="a/hub")
    return CogVideoX(
        name="twin",
        large=somewhere,
        small=somewhere,
        components=somewhere,
        **{"height": 480, "width": 720, "frames": 49, "fps": 8},
        dtype="float32",
        scale="tiny",
        negative_prompt=NEGATIVE,
    ).open()


@functools.cache
def sampler(**settings: Any) -> CogVideoXSampler:
    """A sampler of the twin with other settings; models are loaded once for all."""
    made = dataclasses.replace(_base().family, **settings).open()
    made._models = _base()._models
    return made


@functools.cache
def text(dtype: str = "float32") -> Text:
    encoded = sampler(dtype=dtype).encode([PROMPT, NEGATIVE])
    return Text(encoded[PROMPT].embedding, encoded[NEGATIVE].embedding)


@functools.cache
def _loaded(dtype: torch.dtype) -> CogVideoXPipeline:
    return CogVideoXPipeline.from_pretrained(_base().family.components.path, dtype=dtype)


def stock(on: CogVideoXSampler, role: str = "large", **changed: Any) -> CogVideoXPipeline:
    """Diffusers' own pipeline around a sampler's models, of the large or of the small model."""
    family = on.family
    loaded = _loaded(on.dtype)
    folder = family.components.path if role == "large" else family.small.path
    scheduler = SCHEDULERS[family.sampler].from_pretrained(folder, subfolder="scheduler")
    vae = loaded.vae
    if role == "small":  # the same weights with the small model's scaling factor
        vae = AutoencoderKLCogVideoX.from_config(
            AutoencoderKLCogVideoX.load_config(folder, subfolder="vae")
        ).eval()
        vae.load_state_dict(loaded.vae.state_dict())
        vae = vae.to(on.dtype)
    parts = {"transformer": on.model(role), "scheduler": scheduler, "vae": vae}
    pipeline = CogVideoXPipeline(**loaded.components | parts | changed)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(
    pipeline: CogVideoXPipeline, on: CogVideoXSampler, steps: int, output: str = "latent", **more: Any
) -> Any:
    """What the pipeline makes of the prompt and seed of these tests."""
    family = on.family
    asked = {"guidance_scale": family.guidance_scale, "use_dynamic_cfg": family.dynamic_guidance} | more
    return pipeline(
        PROMPT,
        NEGATIVE,
        height=family.height,
        width=family.width,
        num_frames=family.frames,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(SEED),
        output_type=output,
        **asked,
    ).frames
