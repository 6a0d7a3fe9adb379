"""The trunk is stock: `large` makes, bit for bit, what diffusers' WanPipeline makes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from safetensors.torch import load, save

PROMPT = "a red circle moving up on a white background"


class WanGrid(UniPCMultistepScheduler):
    """UniPC on the sigmas of Wan's own code."""

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):
        super().set_timesteps(device=device, sigmas=wan_sigmas(num_inference_steps))


def wan_sigmas(steps):
    """As Wan's scheduler makes them before the shift: from a float32 table of 1000 levels down to 0."""
    table = torch.from_numpy(1.0 - np.linspace(1, 1 / 1000, 1000)[::-1].copy()).to(torch.float32)
    return np.linspace(table[0].item(), table[-1].item(), steps + 1)[:-1]


def wan_schedule(steps, shift):
    """σ and timesteps as Wan's scheduler has them: shifted in float64, then float32 and whole numbers."""
    sigmas = wan_sigmas(steps)
    sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    return sigmas.astype(np.float32), (sigmas * 1000).astype(np.int64)


SCHEDULES = [(n, s) for n in (1, 2, 3, 6, 9, 33, 50, 99, 100, 333, 999) for s in (1.0, 3.0, 5.0, 7.5, 12.0)]


@pytest.mark.parametrize(("steps", "shift"), SCHEDULES)
def test_the_grid_of_wans_own_code_is_its_own_to_the_last_bit(steps, shift, family):
    wan = dataclasses.replace(family, sigma_grid="wan", shift=shift)
    first = float(np.float32(1) - np.float32(1e-3))
    assert np.array_equal(wan.grid(steps, wan.sampling), np.linspace(first, 0, steps + 1)[:-1])
    sigmas, timesteps = wan_schedule(steps, shift)
    assert wan.timesteps(steps) == tuple(map(float, timesteps))
    scheduler = wan.open()._schedule(steps)
    assert np.array_equal(scheduler.sigmas[:-1].numpy(), sigmas)
    assert np.array_equal(scheduler.timesteps.numpy(), timesteps)


@pytest.mark.parametrize("steps", [8, 50])
def test_large_equals_the_stock_pipeline(steps, stock, method, walked):
    ours = walked(method("large", {"model": "large"}, steps=steps))["large"].state.latents
    assert torch.equal(ours, stock.run(stock.pipeline, steps))


def test_small_equals_the_stock_pipeline_with_transformer_2_as_its_transformer(stock, method, walked):
    ours = walked(method("small", {"model": "small"}, steps=8))["small"].state.latents
    theirs = stock.like(transformer=stock.pipeline.transformer_2, transformer_2=None)
    assert torch.equal(ours, stock.run(theirs, 8))


@pytest.mark.parametrize("steps", [8, 20])
def test_sigma_grid_wan_equals_the_stock_pipeline_on_wans_grid(steps, stock, method, walked, wan_grid):
    ours = walked(method("small", {"model": "small"}, steps=steps), on=wan_grid)["small"].state
    old = WanGrid.from_config(stock.pipeline.scheduler.config)
    theirs = stock.like(transformer=stock.pipeline.transformer_2, transformer_2=None, scheduler=old)
    assert torch.equal(ours.latents, stock.run(theirs, steps))
    assert torch.equal(ours.scheduler.timesteps, old.timesteps)


def test_the_two_sigma_grids_are_not_the_same(sampler, wan_grid):
    assert sampler.timesteps(50) != wan_grid.timesteps(50)


def test_guidance_scale_1_is_one_call_and_stock(stock, method, walked, sampler, monkeypatch):
    calls = []
    watcher = sampler.model("large").register_forward_hook(lambda *_: calls.append(1))
    ours = walked(method("unguided", {"model": "large", "guidance_scale": 1.0}, steps=4))["unguided"]
    watcher.remove()
    assert len(calls) == 4
    assert [(s.calls_computed, s.calls_reused) for s in ours.trace.steps] == [(1, 0)] * 4
    assert torch.equal(ours.state.latents, stock.run(stock.pipeline, 4, guidance=1.0))


def test_another_guidance_scale_of_one_method_is_stock(stock, method, walked):
    ours = walked(method("guided", {"model": "small", "guidance_scale": 6.0}, steps=4))["guided"]
    theirs = stock.like(transformer=stock.pipeline.transformer_2, transformer_2=None)
    assert torch.equal(ours.state.latents, stock.run(theirs, 4, guidance=6.0))


def test_text_embeddings_equal_the_pipelines_also_once_stored(stock, text, family):
    with torch.no_grad():  # as inside the pipeline; with gradients attention takes another path
        prompt, negative = stock.pipeline.encode_prompt(
            PROMPT, None, max_sequence_length=family.max_sequence_length
        )
    assert torch.equal(text.prompt, prompt)
    assert torch.equal(text.negative, negative)
    stored = load(save({"embedding": text.prompt.contiguous()}))
    assert torch.equal(stored["embedding"], prompt)


def test_decoded_video_equals_the_pipelines(stock, method, walked, sampler):
    small = walked(method("small", {"model": "small"}, steps=4))["small"]
    theirs = stock.like(transformer=stock.pipeline.transformer_2, transformer_2=None)
    pixels = stock.run(theirs, 4, output="np")[0]
    ours = sampler.decode(small.state)
    assert ours.dtype == np.uint8 and ours.shape == (17, 64, 64, 3)
    assert np.array_equal(ours, (pixels * 255).round().astype(np.uint8))
