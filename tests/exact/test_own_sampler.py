"""A method's own solver and schedule: the stock pipeline with that scheduler, bit for bit."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from srbench.config import yaml_files
from srbench.config.experiment import Denoiser, Sampling
from srbench.config.registry import build

from . import cogvideox as twin
from . import test_wan_twin

FOUR = (1000.0, 937.0, 833.0, 625.0)


class Listed(UniPCMultistepScheduler):
    """UniPC at timesteps of a list, nothing shifted."""

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None):
        super().set_timesteps(device=device, sigmas=np.array(FOUR) / 1000)
        self.timesteps = torch.tensor(FOUR, dtype=torch.int64)


class ListedEuler(FlowMatchEulerDiscreteScheduler):
    """Euler at timesteps of a list, nothing shifted."""

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, **more):
        super().set_timesteps(device=device, sigmas=[t / 1000 for t in FOUR], timesteps=list(FOUR))


def unipc(stock, cls=UniPCMultistepScheduler, **changed):
    return cls.from_config(stock.pipeline.scheduler.config, **changed)


WAN = {
    "another shift": ({"shift": 8.0}, lambda s: unipc(s, flow_shift=8.0), 8),
    "euler": ({"solver": "euler"}, lambda s: FlowMatchEulerDiscreteScheduler(shift=5.0), 8),
    "euler, shifted": (
        {"solver": "euler", "shift": 3.0},
        lambda s: FlowMatchEulerDiscreteScheduler(shift=3.0),
        8,
    ),
    "euler in four steps": (
        {"solver": "euler", "timesteps": FOUR},
        lambda s: ListedEuler(shift=1.0),
        4,
    ),
    "unipc in four steps": ({"timesteps": FOUR}, lambda s: unipc(s, Listed, flow_shift=1.0), 4),
}


@pytest.mark.parametrize("guidance", [4.0, 1.0])
@pytest.mark.parametrize("name", WAN)
def test_wan_with_its_own_sampler_is_the_stock_pipeline_with_that_scheduler(
    name, guidance, stock, method, walked
):
    sampler, scheduler, steps = WAN[name]
    asked = None if "timesteps" in sampler else steps
    own = method("own", {"model": "small", "guidance_scale": guidance}, steps=asked, sampler=sampler)
    ours = walked(own)["own"].state
    theirs = stock.like(
        transformer=stock.pipeline.transformer_2, transformer_2=None, scheduler=scheduler(stock)
    )
    assert torch.equal(ours.latents, stock.run(theirs, steps, guidance=guidance))
    assert torch.equal(ours.scheduler.timesteps, theirs.scheduler.timesteps)


def test_in_bfloat16_too(method, walked):
    """Euler then gives latents in the model's precision, as the stock pipeline has them."""
    on = test_wan_twin.sampler(dtype="bfloat16")
    own = method("own", {"model": "small"}, steps=6, sampler={"solver": "euler"})
    ours = walked(own, on=on, words=test_wan_twin.text("bfloat16"))["own"].state.latents
    theirs = test_wan_twin.stock(on, "small")
    theirs.scheduler = FlowMatchEulerDiscreteScheduler(shift=on.family.shift)
    made = theirs(
        "a red circle moving up",
        on.family.negative_prompt,
        height=on.family.height,
        width=on.family.width,
        num_frames=on.family.frames,
        num_inference_steps=6,
        guidance_scale=on.family.guidance_scale,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).frames
    assert ours.dtype == made.dtype == torch.bfloat16 and torch.equal(ours, made)


@pytest.mark.parametrize("solver", ["ddim", "dpm"])
@pytest.mark.parametrize("role", ["large", "small"])
def test_cogvideox_with_the_other_solver_is_the_stock_pipeline_with_it(solver, role, method, walked):
    on = twin.sampler(sampler={"ddim": "dpm", "dpm": "ddim"}[solver])
    own = method("own", {"model": role}, steps=8, sampler={"solver": solver})
    ours = walked(own, on=on, words=twin.text())["own"].state.latents
    theirs = twin.run(twin.stock(twin.sampler(sampler=solver), role), on, 8)
    assert torch.equal(ours, theirs)


def test_a_switch_stays_within_its_sampler(method, walked):
    """On CogVideoX the small model has a schedule of its own: of the method's solver."""
    on = twin.sampler(sampler="dpm")
    path = {"model": "large", "until": {"kind": "fixed_step", "step": 3}}, {"model": "small"}
    by_hand = walked(method("switch", *path, steps=8), on=twin.sampler(sampler="ddim"), words=twin.text())
    own = walked(method("switch", *path, steps=8, sampler={"solver": "ddim"}), on=on, words=twin.text())
    assert torch.equal(own["switch"].state.latents, by_hand["switch"].state.latents)


def test_methods_of_two_samplers_begin_apart_and_are_themselves(method, walked):
    """Together or alone: the same bits, and nothing is shared between the samplers."""
    small = {"model": "small"}
    plain = method("plain", small, steps=5)
    euler = method("euler", small, steps=5, sampler={"solver": "euler"})
    shared = method("shared", small | {"until": {"kind": "fixed_step", "step": 2}}, small, steps=5)
    together = walked(plain, euler, shared)
    for m in (plain, euler):
        assert torch.equal(together[m.name].state.latents, walked(m)[m.name].state.latents)
    assert together["euler"].shared == 0
    assert together["plain"].shared == 5


@pytest.mark.parametrize(
    "sampler_", [{"solver": "euler"}, {"shift": 8.0}, {"solver": "euler", "timesteps": FOUR}]
)
def test_a_state_is_taken_up_from_a_file(sampler_, sampler, text):
    own = sampler.family.settled_sampler(Sampling(**sampler_))
    small = Denoiser(model="small")
    state = sampler.start(7, 4, own)
    for _ in range(2):
        state, _ = sampler.step(small, state, text)
    thawed = sampler.thaw(*sampler.freeze(state))
    for _ in range(2):
        state, _ = sampler.step(small, state, text)
        thawed, _ = sampler.step(small, thawed, text)
    assert thawed.sampler == own
    assert torch.equal(state.latents, thawed.latents)


@functools.cache
def wan(**settings):
    plain = yaml_files.read("family", "wan21_480p") | {"scale": "tiny", "device": "cpu"} | settings
    return build("families", plain, "family")


@pytest.mark.parametrize("solver", ["unipc", "euler"])
@pytest.mark.parametrize("grid", ["wan", "diffusers"])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 12.0])
def test_timesteps_are_told_without_a_model(solver, grid, shift):
    """To the last bit what the scheduler has, so that a plan and a walk agree."""
    own = Sampling(solver=solver, shift=shift, sigma_grid=grid)
    on = wan().open()
    for steps in (1, 4, 50):
        assert wan().timesteps(steps, own) == on.timesteps(steps, own)


def test_words_that_are_the_familys_are_no_sampler_of_its_own():
    assert wan().settled_sampler(Sampling(shift=5.0)) is None
    assert wan().settled_sampler(Sampling(shift=3.0)) == Sampling(solver="unipc", shift=3.0, sigma_grid="wan")
