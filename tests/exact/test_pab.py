"""PAB is stock diffusers, or stock on one copy of the model for each guidance branch."""

from __future__ import annotations

import copy
import dataclasses
import types

import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig

from srbench.accelerators.pab import PAB
from srbench.config.experiment import Denoiser
from srbench.sampling.paths import late_attach

STEPS = 12
PAPER = {"C1": (2, (100, 800)), "C2": (8, (100, 950)), "C3": (8, (100, 970))}


def stock_config(now, hooks="self", skip_range=8, timestep_range=(100, 950)):
    cross = {
        "cross_attention_block_skip_range": skip_range,
        "cross_attention_timestep_skip_range": timestep_range,
    }
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=skip_range,
        spatial_attention_timestep_skip_range=timestep_range,
        current_timestep_callback=now,
        **(cross if hooks == "self+cross" else {}),
    )


def pab(skip_range=8, timestep_range=(100, 950), **settings):
    return {"kind": "pab", "skip_range": skip_range, "timestep_range": timestep_range, **settings}


@pytest.mark.parametrize(("role", "hooks"), [("large", "self"), ("small", "self"), ("small", "self+cross")])
def test_shared_pab_equals_stock_pab_in_the_stock_pipeline(role, hooks, stock, sampler, method, walked):
    segment = {"model": role, "accelerators": [pab(hooks=hooks, state="shared")]}
    ours = walked(method("pab", segment, steps=STEPS))["pab"]

    theirs = stock.like(transformer=copy.deepcopy(sampler.model(role)), transformer_2=None)
    theirs.transformer.enable_cache(stock_config(lambda: theirs.current_timestep, hooks))
    assert torch.equal(ours.state.latents, stock.run(theirs, STEPS))
    assert sum(s.modules_reused for s in ours.trace.steps) > 0


@torch.no_grad()
def with_a_model_for_each_branch(cond, uncond, now, sampler, text, steps):
    """WanPipeline's loop, with stock PAB on two models that share nothing."""
    state = sampler.start(7, steps)
    scheduler, x = state.scheduler, state.latents
    for t in scheduler.timesteps:
        now.timestep = t
        c = cond(x, t.expand(1), text.prompt, return_dict=False)[0]
        u = uncond(x, t.expand(1), text.negative, return_dict=False)[0]
        x = scheduler.step(u + 4.0 * (c - u), t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("skip_range", [2, 8])
@pytest.mark.parametrize("hooks", ["self", "self+cross"])
def test_per_branch_pab_equals_stock_pab_on_two_copies(hooks, skip_range, sampler, text, method, walked):
    accelerator = pab(hooks=hooks, state="per_branch", skip_range=skip_range)
    ours = walked(method("pab", {"model": "small", "accelerators": [accelerator]}, steps=STEPS))["pab"]

    now = types.SimpleNamespace(timestep=None)
    copies = [copy.deepcopy(sampler.model("small")) for _ in range(2)]
    for model in copies:
        model.enable_cache(stock_config(lambda: now.timestep, hooks, skip_range))
    theirs = with_a_model_for_each_branch(*copies, now, sampler, text, STEPS)
    assert torch.equal(ours.state.latents, theirs)
    assert sum(s.modules_reused for s in ours.trace.steps) > 0


def test_with_cross_attention_the_shared_cache_switches_guidance_off(sampler, text, method):
    """What diffusers 0.33 and 0.34 did on Wan: inside the range both calls replay one output."""
    denoiser = (
        method("pab", {"model": "small", "accelerators": [pab(hooks="self+cross", state="shared")]})
        .segments[0]
        .denoiser
    )
    outputs = {}
    watcher = sampler.model("small").register_forward_hook(
        lambda module, args, output: calls.append(output[0])
    )
    state = sampler.start(7, STEPS)
    with sampler.attach(denoiser, STEPS):
        while not state.done:
            calls = []
            t = float(state.scheduler.timesteps[state.index])
            state, _ = sampler.step(denoiser, state, text)
            outputs[t] = torch.equal(*calls)
    watcher.remove()
    assert all(same == (100 < t < 950) for t, same in outputs.items())


def test_the_trace_counts_attention_modules(sampler, method, walked):
    """N = 8, shared: iterations 0, 8, 16 are computed, and every call out of range."""
    blocks = len(sampler.model("small").blocks)
    trace = walked(method("pab", {"model": "small", "accelerators": [pab()]}, steps=STEPS))["pab"].trace
    for i, s in enumerate(trace.steps):
        computed = [not 100 < s.timestep < 950 or call % 8 == 0 for call in (2 * i, 2 * i + 1)]
        assert s.modules_computed == blocks * sum(computed)
        assert s.modules_reused == blocks * (2 - sum(computed))
        assert (s.calls_computed, s.calls_reused) == (2, 0)


# -- late attach: up to which step the paper's settings change no bit


@pytest.mark.parametrize(
    ("name", "state", "steps"),
    [
        ("C1", "shared", 28),
        ("C2", "shared", 8),
        ("C3", "shared", 4),
        ("C1", "per_branch", 28),
        ("C2", "per_branch", 8),
        ("C3", "per_branch", 0),
    ],
)
def test_inert_steps_of_the_papers_settings_at_50_steps(name, state, steps, sampler, method):
    skip_range, timestep_range = PAPER[name]
    accelerator = PAB(skip_range=skip_range, timestep_range=timestep_range, state=state)
    assert accelerator.inert_steps(sampler.timesteps(50), 2, 50) == steps
    whole = method(name, {"model": "small", "accelerators": [pab(skip_range, timestep_range, state=state)]})
    late = late_attach(whole, sampler.timesteps(50), 2)
    assert [s.until.step for s in late.segments[:-1]] == ([steps] if steps else [])


# a denoiser's further settings, each another than its default
FURTHER = {
    "guidance_scale": 2.0,
    "negative_prompt": "grey",
    "dtype": "bfloat16",
    "batch_guidance": True,
    "attention": "_native_math",
    "disturb": {"scale": 0.3, "bias": 0.1},
    "weights": "a checkpoint of its own",
}


@pytest.mark.parametrize("setting", FURTHER)
def test_attached_late_is_exact_whatever_else_the_denoiser_is(setting, method, walked, fresh, checkpoint):
    other = {"source": str(checkpoint)} if setting == "weights" else FURTHER[setting]
    denoiser = {"model": "small", "accelerators": [pab(2, (100, 500))], setting: other}
    own = method("own", denoiser, steps=STEPS)
    late = walked(own, late_attach=True, on=fresh)["own"]
    assert torch.equal(late.state.latents, walked(own, on=fresh)["own"].state.latents)
    if setting != "disturb":  # which is not attached late
        assert late.trace.steps[0].denoiser != late.trace.steps[-1].denoiser


def test_every_setting_of_a_denoiser_is_tried_attached_late():
    others = {"model", "accelerators", "attention_package"}
    assert set(FURTHER) == {f.name for f in dataclasses.fields(Denoiser)} - others


@pytest.mark.parametrize(
    ("name", "state", "exact", "inexact"),
    [
        ("C1", "shared", 28, 29),  # one step later it would have reused already
        ("C2", "shared", 8, 9),  # before its range, but out of phase with its counter
        ("C3", "shared", 4, 5),
        ("C2", "per_branch", 8, 9),
    ],
)
def test_attached_late_equals_attached_from_the_start(name, state, exact, inexact, method, walked):
    skip_range, timestep_range = PAPER[name]
    plain = {"model": "small"}
    accelerated = plain | {"accelerators": [pab(skip_range, timestep_range, state=state)]}

    def late(step):
        return plain | {"until": {"kind": "fixed_step", "step": step}}

    videos = walked(
        method("from the start", accelerated),
        method("late", late(exact), accelerated),
        method("too late", late(inexact), accelerated),
    )
    assert torch.equal(videos["late"].state.latents, videos["from the start"].state.latents)
    assert not torch.equal(videos["too late"].state.latents, videos["from the start"].state.latents)
