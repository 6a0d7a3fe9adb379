"""CogVideoX is stock: bit for bit what diffusers' CogVideoXPipeline makes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler
from safetensors import safe_open
from safetensors.torch import save_file

from srbench.config.experiment import Denoiser
from srbench.families._sampler import relative_change

from . import cogvideox as twin

STEPS = 8
SMOKE = [
    ("dpm", True, "float32", "large"),
    ("dpm", False, "bfloat16", "small"),
    ("ddim", True, "bfloat16", "large"),
    ("ddim", False, "float32", "small"),
]
MATRIX = itertools.product(("dpm", "ddim"), (True, False), ("float32", "bfloat16"), ("large", "small"))
REST = [pytest.param(*case, marks=pytest.mark.slow) for case in MATRIX if case not in SMOKE]


@pytest.mark.parametrize(("solver", "dynamic", "dtype", "role"), [*SMOKE, *REST])
def test_one_model_alone_equals_the_stock_pipeline(solver, dynamic, dtype, role, method, walked):
    """Large is rotary, small sin-cos."""
    on = twin.sampler(sampler=solver, dynamic_guidance=dynamic, dtype=dtype)
    ours = walked(method("alone", {"model": role}, steps=STEPS), on=on, words=twin.text(dtype))["alone"]
    assert ours.state.latents.dtype == getattr(torch, dtype)
    assert torch.equal(ours.state.latents, twin.run(twin.stock(on, role), on, STEPS))


@pytest.mark.parametrize("solver", ["dpm", pytest.param("ddim", marks=pytest.mark.slow)])
def test_without_guidance_it_is_one_call_of_a_batch_of_one(solver, method, walked):
    on, sizes = twin.sampler(sampler=solver), []
    watcher = on.model("large").register_forward_hook(lambda m, a, output: sizes.append(len(output[0])))
    unguided = method("unguided", {"model": "large", "guidance_scale": 1.0}, steps=STEPS)
    ours = walked(unguided, on=on, words=twin.text())["unguided"]
    watcher.remove()
    assert sizes == [1] * STEPS
    assert torch.equal(ours.state.latents, twin.run(twin.stock(on), on, STEPS, guidance_scale=1.0))


def test_a_guided_step_is_one_call_of_a_batch_of_two(method, walked):
    on, sizes = twin.sampler(), []
    watcher = on.model("large").register_forward_hook(lambda m, a, output: sizes.append(len(output[0])))
    ours = walked(method("large", {"model": "large"}, steps=STEPS), on=on, words=twin.text())["large"]
    watcher.remove()
    assert sizes == [2] * STEPS
    assert [(s.calls_computed, s.calls_reused) for s in ours.trace.steps] == [(1, 0)] * STEPS


def test_timesteps_and_noise_levels_are_the_schedulers(method, walked):
    on = twin.sampler()
    trace = walked(method("large", {"model": "large"}, steps=STEPS), on=on, words=twin.text())["large"].trace
    assert [s.timestep for s in trace.steps] == list(on.family.timesteps(STEPS)) == list(on.timesteps(STEPS))
    assert trace.steps[0].sigma == 1.0  # zero terminal SNR: pure noise
    sigmas = [s.sigma for s in trace.steps]
    assert sigmas == sorted(sigmas, reverse=True)


def test_signals_are_those_of_v_prediction(method, walked):
    """x0 as the scheduler itself predicts it, ε what is left of the sample."""
    on, states = twin.sampler(), []
    walked(
        method("large", {"model": "large"}, steps=STEPS),
        on=on,
        words=twin.text(),
        on_step=lambda branch: states.append(branch),
    )
    before, after = states[2].state, states[3].state
    alpha = after.scheduler.alphas_cumprod[int(after.scheduler.timesteps[3])]
    signals = on._signals(after.scheduler, 3, after.sample, after.output, after.latents)
    assert torch.allclose(signals["x0"], after.previous_x0, atol=1e-6)
    whole = alpha**0.5 * signals["x0"] + (1 - alpha) ** 0.5 * signals["eps"]
    assert torch.allclose(whole, after.sample, atol=1e-5)
    change = states[3].trace.steps[3].change
    assert change["latent"] == relative_change(after.latents, before.latents)
    assert change["x0"] == pytest.approx(relative_change(after.previous_x0, before.previous_x0), rel=1e-4)
    assert states[0].trace.steps[0].change is None


# -- forks, states as files


@pytest.mark.parametrize(
    ("solver", "dtype"),
    [
        ("dpm", "bfloat16"),
        pytest.param("dpm", "float32", marks=pytest.mark.slow),
        pytest.param("ddim", "float32", marks=pytest.mark.slow),
    ],
)
def test_a_state_from_a_file_goes_on_in_the_same_bits_at_every_step(solver, dtype, method, walked, tmp_path):
    """The generator and the predicted x0 are in it, and which model's space it is in."""
    on, words = twin.sampler(sampler=solver, dtype=dtype), twin.text(dtype)
    to_start = {"model": "large", "until": {"kind": "fixed_step", "step": 4}}
    hybrid = method("hybrid", to_start, {"model": "small"}, steps=STEPS)
    states, large, small = {}, Denoiser(model="large"), Denoiser(model="small")

    def keep(branch):
        states[branch.state.index] = branch.state

    end = walked(hybrid, on=on, words=words, on_step=keep)["hybrid"].state
    for k in range(1, STEPS):
        tensors, meta = on.freeze(states[k])
        save_file(tensors, tmp_path / f"{k}.safetensors", metadata=meta)
        with safe_open(tmp_path / f"{k}.safetensors", "pt") as file:
            state = on.thaw({n: file.get_tensor(n) for n in file.keys()}, file.metadata())
        assert (state.index, state.space) == (k, "large" if k <= 4 else "small")
        while not state.done:
            denoiser = large if state.index < 4 else small
            state, _ = on.step(denoiser, on.hand_over(state, denoiser), words)
        assert torch.equal(state.latents, end.latents), k


def test_a_fork_leaves_the_state_alone():
    """Two steps from one state draw the same noise: the generator is a value."""
    on, large = twin.sampler(), Denoiser(model="large")
    state = on.start(1, STEPS)
    kept = state.generator.clone()
    first, _ = on.step(large, state, twin.text())
    second, _ = on.step(large, state, twin.text())
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(state.generator, kept) and not torch.equal(first.generator, kept)


# -- a switch from large to small


class Rescaling(CogVideoXDPMScheduler):
    """The small model's scheduler, whose first look back is at an x0 of the other scale."""

    ratio = 1.15258426 / 0.7

    def step(self, output, old_x0, *args, **kwargs):
        old_x0, self.ratio = old_x0 * self.ratio, 1
        return super().step(output, old_x0, *args, **kwargs)


class WithoutRotary(torch.nn.Module):
    """A sin-cos model for a pipeline that made rotary tables for another one."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def cache_context(self, *args, **kwargs):
        return self.model.cache_context(*args, **kwargs)

    def forward(self, image_rotary_emb=None, **inputs):
        return self.model(image_rotary_emb=None, **inputs)


def stock_switch(on, k):
    """The stock pipeline, its model and scheduler swapped after step k."""
    pipeline, other = twin.stock(on), twin.stock(on, "small").scheduler
    if on.family.sampler == "dpm":
        other = Rescaling.from_config(other.config)
    other.set_timesteps(STEPS)

    def swap(pipe, i, t, kwargs):
        if i == k - 1:
            pipe.transformer, pipe.scheduler = WithoutRotary(on.model("small")), other
        return kwargs

    return twin.run(pipeline, on, STEPS, callback_on_step_end=swap)


@pytest.mark.parametrize(
    ("solver", "switches"),
    [
        ("dpm", [4]),
        pytest.param("dpm", range(1, STEPS), marks=pytest.mark.slow),
        pytest.param("ddim", range(1, STEPS), marks=pytest.mark.slow),
    ],
)
def test_a_fixed_switch_equals_a_callback_that_swaps_the_models(solver, switches, method, walked):
    on = twin.sampler(sampler=solver)
    paths = [
        method(
            f"{k}",
            {"model": "large", "until": {"kind": "fixed_step", "step": k}},
            {"model": "small"},
            steps=STEPS,
        )
        for k in switches
    ]
    ours = walked(*paths, on=on, words=twin.text())
    for k in switches:
        assert ours[f"{k}"].trace.switches == (k,)
        assert torch.equal(ours[f"{k}"].state.latents, stock_switch(on, k)), k


def test_d_is_not_taken_across_the_hand_over(method, walked):
    to_start = {"model": "large", "until": {"kind": "fixed_step", "step": 3}}
    hybrid = method("hybrid", to_start, {"model": "small"}, steps=STEPS)
    trace = walked(hybrid, on=twin.sampler(), words=twin.text())["hybrid"].trace
    assert [s.change is None for s in trace.steps] == [True, False, False, True, *[False] * 4]
    assert np.isnan(trace.change("x0")[3])


def test_how_far_off_the_latents_as_they_are_come_out():
    """What the docstring of `hand_over` says, from the two schedules and scales."""
    on = twin.sampler()
    large, small = on._schedule(50, "large"), on._schedule(50, "small")
    assert torch.equal(large.timesteps, small.timesteps)
    t = large.timesteps[6:21]
    a, b = large.alphas_cumprod[t], small.alphas_cumprod[t]
    signal = (a / b) ** 0.5 * on._vae_scale["large"] / on._vae_scale["small"]
    noise = ((1 - a) / (1 - b)) ** 0.5
    assert 1.01 < float(signal.min()) and float(signal.max()) < 1.075
    assert 0.955 < float(noise.min()) and float(noise.max()) < 1


def test_between_two_precisions_of_one_model_only_the_dtype_changes():
    on = twin.sampler()
    state, _ = on.step(Denoiser(model="large"), on.start(1, STEPS), twin.text())
    other = on.hand_over(state, Denoiser(model="large", dtype="bfloat16"))
    assert other.latents.dtype == torch.bfloat16
    assert other.scheduler is state.scheduler and other.output is state.output
    stepped, _ = on.step(Denoiser(model="large", dtype="bfloat16"), other, twin.text())
    assert stepped.latents.dtype == torch.bfloat16


# -- text and pixels


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_text_embeddings_equal_the_pipelines(dtype):
    on = twin.sampler(dtype=dtype)
    with torch.no_grad():
        prompt, negative = twin.stock(on).encode_prompt(twin.PROMPT, twin.NEGATIVE)
    assert torch.equal(twin.text(dtype).prompt, prompt)
    assert torch.equal(twin.text(dtype).negative, negative)
    assert prompt.shape == (1, 226, 32)


@pytest.mark.parametrize("role", ["large", "small"])
def test_decoded_video_equals_the_pipelines(role, method, walked):
    """The small model's latents are divided by its own scaling factor."""
    on = twin.sampler()
    ours = walked(method("alone", {"model": role}, steps=STEPS), on=on, words=twin.text())["alone"]
    pixels = twin.run(twin.stock(on, role), on, STEPS, output="np")[0]
    video = on.decode(ours.state)
    assert video.dtype == np.uint8 and video.shape == (9, 64, 64, 3)
    assert np.array_equal(video, (pixels * 255).round().astype(np.uint8))
