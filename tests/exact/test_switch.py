"""A fixed switch is stock: WanPipeline's boundary_ratio, Wan 2.2's switch between experts."""

from __future__ import annotations

import pytest
import torch

STEPS = 8
EVERY_K = range(1, STEPS)


@pytest.fixture(scope="module")
def ratios(sampler):
    """For every k, a boundary that lies between the timesteps of the steps k − 1 and k."""
    t = sampler.timesteps(STEPS)
    return {k: (t[k - 1] + t[k]) / 2000 for k in EVERY_K}


@pytest.fixture(scope="module")
def stock_latents(stock, ratios):
    return {k: stock.run(stock.like(boundary_ratio=r), STEPS) for k, r in ratios.items()}


@pytest.fixture(scope="module")
def ours(method, walked, ratios):
    """All switches of both kinds in one walk, the large model's steps shared."""

    def switch(name, until):
        return method(name, {"model": "large", "until": until}, {"model": "small"}, steps=STEPS)

    fixed = [switch(f"fixed {k}", {"kind": "fixed_step", "step": k}) for k in EVERY_K]
    boundary = [switch(f"boundary {k}", {"kind": "boundary", "ratio": ratios[k]}) for k in EVERY_K]
    return walked(*fixed, *boundary)


@pytest.mark.parametrize("k", EVERY_K)
@pytest.mark.parametrize("rule", ["fixed", "boundary"])
def test_switch_equals_the_stock_pipeline_with_a_boundary_ratio(rule, k, ours, stock_latents):
    branch = ours[f"{rule} {k}"]
    assert branch.trace.switches == (k,)
    assert torch.equal(branch.state.latents, stock_latents[k])


def test_every_switch_makes_another_video(stock_latents):
    assert not any(torch.equal(stock_latents[k], stock_latents[k + 1]) for k in range(1, STEPS - 1))
