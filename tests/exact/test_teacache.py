"""TeaCache equals a hand-patched forward written from its description."""

from __future__ import annotations

import functools
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from srbench.accelerators._teacache import Decision
from srbench.accelerators.teacache import TeaCache
from srbench.errors import UserError
from srbench.sampling.walk import Failure, walk

STEPS = 14
POLYNOMIAL = (1.0, 0.5, 0.0)  # p(x) = x² + x / 2


def embedding(model, t, mode):
    """e, or the projected e0."""
    embedder = model.condition_embedder
    e = embedder.time_embedder(embedder.timesteps_proj(t))
    return embedder.time_proj(embedder.act_fn(e)) if mode == "ret_steps" else e


@torch.no_grad()
def threshold_that_skips_some(sampler, mode):
    """Half as much again as a typical step adds, among those that no mode forces to compute.

    So at least one of them is skipped and at least one computed, whatever the weights.
    """
    model = sampler.model("small")
    e = [embedding(model, torch.tensor([t]), mode) for t in sampler.timesteps(STEPS)]
    distances = [float((b - a).abs().mean() / a.abs().mean()) for a, b in itertools.pairwise(e)]
    return 1.5 * float(np.median(np.poly1d(POLYNOMIAL)(distances[7:-1])))


def patched_forward(model, x, t, text, cache, mode, threshold, last):
    """WanTransformer3DModel.forward with TeaCache in it, as its authors patch it.

    `cache` belongs to one guidance branch.  Returns the output, and whether it reused.
    """
    batch, _, frames, height, width = x.shape
    rotary = model.rope(x)
    hidden = model.patch_embedding(x).flatten(2).transpose(1, 2).contiguous()
    temb, projected, text, _ = model.condition_embedder(t, text, None)
    e = projected if mode == "ret_steps" else temb
    projected = projected.unflatten(1, (6, -1))

    always_first = 5 if mode == "ret_steps" else 1
    if cache["calls"] < always_first or (mode == "default" and last):
        reuse = False
    else:
        distance = (e - cache["e"]).abs().mean() / cache["e"].abs().mean()
        cache["sum"] += float(np.poly1d(POLYNOMIAL)(float(distance)))
        reuse = cache["sum"] < threshold
    cache["e"] = e
    cache["calls"] += 1

    if reuse:
        hidden = hidden + cache["residual"]
    else:
        cache["sum"] = 0.0
        before = hidden
        for block in model.blocks:
            hidden = block(hidden, text, projected, rotary)
        cache["residual"] = hidden - before

    shift, scale = (model.scale_shift_table + temb.unsqueeze(1)).chunk(2, dim=1)
    hidden = model.proj_out(model.norm_out(hidden) * (1 + scale) + shift)
    hidden = hidden.reshape(batch, frames, height // 2, width // 2, 1, 2, 2, -1).permute(
        0, 7, 1, 4, 2, 5, 3, 6
    )
    return hidden.flatten(6, 7).flatten(4, 5).flatten(2, 3), reuse


@torch.no_grad()
def by_hand(model, state, text, mode, threshold):
    """The rest of the video from `state`; the latents, and calls reused in each step."""
    scheduler, x, reused = state.scheduler, state.latents, []
    caches = [{"calls": 0, "sum": 0.0}, {"calls": 0, "sum": 0.0}]
    for i in range(state.index, STEPS):
        t = scheduler.timesteps[i]
        (c, c_reused), (u, u_reused) = (
            patched_forward(model, x, t.expand(1), words, cache, mode, threshold, last=i == STEPS - 1)
            for words, cache in zip((text.prompt, text.negative), caches, strict=True)
        )
        x = scheduler.step(u + 4.0 * (c - u), t, x, return_dict=False)[0]
        reused.append(c_reused + u_reused)
    return x, reused


def teacache(mode, threshold, coefficients=POLYNOMIAL):
    return {"kind": "teacache", "mode": mode, "threshold": threshold, "coefficients": coefficients}


@pytest.mark.parametrize("mode", ["default", "ret_steps"])
def test_threshold_0_changes_no_bit(mode, method, walked):
    videos = walked(
        method("small", {"model": "small"}, steps=STEPS),
        method("teacache", {"model": "small", "accelerators": [teacache(mode, 0)]}, steps=STEPS),
    )
    assert torch.equal(videos["teacache"].state.latents, videos["small"].state.latents)
    assert all(s.calls_reused == 0 for s in videos["teacache"].trace.steps)


@pytest.mark.parametrize("mode", ["default", "ret_steps"])
def test_a_run_with_skips_equals_the_hand_patched_forward(mode, sampler, text, method, walked):
    threshold = threshold_that_skips_some(sampler, mode)
    segment = {"model": "small", "accelerators": [teacache(mode, threshold)]}
    ours = walked(method("teacache", segment, steps=STEPS))["teacache"]
    latents, reused = by_hand(sampler.model("small"), sampler.start(7, STEPS), text, mode, threshold)
    assert torch.equal(ours.state.latents, latents)
    assert [s.calls_reused for s in ours.trace.steps] == reused
    assert [s.calls_computed for s in ours.trace.steps] == [2 - r for r in reused]
    assert 0 < sum(reused) < 2 * (STEPS - 2)
    assert set(reused) == {0, 2}  # e depends on the timestep alone: both branches decide alike


@pytest.mark.parametrize("mode", ["default", "ret_steps"])
def test_in_a_rendering_segment_first_means_the_segments_first(mode, sampler, text, method, walked):
    threshold = threshold_that_skips_some(sampler, mode)
    to_start = {"model": "large", "until": {"kind": "fixed_step", "step": 3}}
    rendering = {"model": "small", "accelerators": [teacache(mode, threshold)]}
    kept = {}

    def keep(branch):
        kept[branch.denoiser.name, branch.state.index] = branch.state

    ours = walked(method("hybrid", to_start, rendering, steps=STEPS), on_step=keep)["hybrid"]
    handed_over = sampler.thaw(*sampler.freeze(kept["large", 3]))
    latents, reused = by_hand(sampler.model("small"), handed_over, text, mode, threshold)
    assert torch.equal(ours.state.latents, latents)
    assert [s.calls_reused for s in ours.trace.steps] == [0, 0, 0, *reused]
    assert 0 < sum(reused)


def test_an_accelerator_that_reuses_nothing_fails_and_the_others_arrive(sampler, text, method):
    idle = {"model": "small", "accelerators": [teacache("default", 1e-9, (1e6, 1.0))]}
    to_start = {"model": "small", "until": {"kind": "fixed_step", "step": 1}}
    methods = [
        method("small", {"model": "small"}, steps=21),
        method("teacache", idle, steps=21),
        method("teacache from step 1", to_start, idle, steps=21),
        method("unguided", {"model": "small", "guidance_scale": 1.0}, steps=21),
    ]
    ends = list(walk(sampler, lambda _: text, methods, functools.partial(sampler.start, 7)))
    failed = {m.name: e.error for e in ends if isinstance(e, Failure) for m in e.methods}
    arrived = {m.name for e in ends if not isinstance(e, Failure) for m in e.methods}
    assert set(failed) == {"teacache", "teacache from step 1"}
    assert arrived == {"small", "unguided"}
    for error in failed.values():
        assert isinstance(error, UserError)
        assert "small+teacache reused nothing" in str(error)


def test_a_model_without_a_polynomial_is_told_the_command_that_fits_one():
    attachment = SimpleNamespace(polynomials={}, role="small")
    with pytest.raises(UserError, match=r"srbench calibrate teacache --family NAME"):
        Decision(TeaCache(threshold=0.1), attachment, None)
