"""Wan in bfloat16, as Wan 2.1 runs, is stock: tried on its twin."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline

from srbench.config import yaml_files
from srbench.config.registry import build
from srbench.families.base import Text

PROMPT, STEPS = "a red circle moving up", 8
SMOKE = [("bfloat16", 5.0, 5.0, "large")]
MATRIX = itertools.product(("bfloat16", "float32"), (3.0, 5.0), (1.0, 5.0), ("large", "small"))
REST = [pytest.param(*case, marks=pytest.mark.slow) for case in MATRIX if case not in SMOKE]


@functools.cache
def sampler(**settings):
    """conf/family/wan21_480p.yaml on a twin, on the grid of the installed diffusers."""
    plain = yaml_files.read("family", "wan21_480p") | {"scale": "tiny", "sigma_grid": "diffusers"}
    return build("families", plain | {"device": "cpu"} | settings, "family").open()


@functools.cache
def text(dtype):
    on = sampler(dtype=dtype)
    encoded = on.encode([PROMPT, on.family.negative_prompt])
    return Text(encoded[PROMPT].embedding, encoded[on.family.negative_prompt].embedding)


def stock(on, role):
    """WanPipeline as its model card loads it: all in one dtype but the VAE."""
    folder = on.family.components.path
    pipeline = WanPipeline.from_pretrained(
        folder,
        vae=AutoencoderKLWan.from_pretrained(folder, subfolder="vae", dtype=torch.float32),
        scheduler=UniPCMultistepScheduler.from_pretrained(
            folder, subfolder="scheduler", flow_shift=on.family.shift
        ),
        dtype=on.dtype,
    )
    transformer = pipeline.transformer if role == "large" else pipeline.transformer_2
    alone = WanPipeline(**pipeline.components | {"transformer": transformer, "transformer_2": None})
    alone.set_progress_bar_config(disable=True)
    return alone


@pytest.mark.parametrize(("dtype", "shift", "guidance", "role"), [*SMOKE, *REST])
def test_one_model_alone_equals_the_stock_pipeline(dtype, shift, guidance, role, method, walked):
    on = sampler(dtype=dtype, shift=shift, guidance_scale=guidance)
    ours = walked(method("alone", {"model": role}, steps=STEPS), on=on, words=text(dtype))["alone"].state
    theirs = stock(on, role)(
        PROMPT,
        on.family.negative_prompt,
        height=on.family.height,
        width=on.family.width,
        num_frames=on.family.frames,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).frames
    assert ours.latents.dtype == torch.float32
    assert torch.equal(ours.latents, theirs)


def test_a_segment_in_another_precision_takes_the_state_over(method, walked):
    """Latents and history are float32 whatever the model's precision."""
    on = sampler(dtype="bfloat16")
    to_start = {"model": "large", "until": {"kind": "fixed_step", "step": 3}}
    hybrid = method("hybrid", to_start, {"model": "small", "dtype": "float32"}, steps=STEPS)
    branch = walked(hybrid, on=on, words=text("bfloat16"))["hybrid"]
    assert branch.trace.steps[3].denoiser.startswith("small+float32#")
    assert on.model("small", "float32").dtype == torch.float32
    assert all(s.change is not None for s in branch.trace.steps[1:])
