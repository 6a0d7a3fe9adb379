"""Accelerators are gone when their `with` is left, and so is all that they remembered."""

from __future__ import annotations

import pytest
import torch

STEPS = 8
# every step adds 1: reuse two steps, compute the third, whatever the weights
TEACACHE = {"kind": "teacache", "threshold": 2.5, "coefficients": [0.0, 1.0]}
ACCELERATORS = {
    "pab": [{"kind": "pab", "skip_range": 8, "timestep_range": [100, 990]}],
    "pab per branch": [{"kind": "pab", "timestep_range": [100, 990], "state": "per_branch"}],
    "pab self and cross": [{"kind": "pab", "timestep_range": [100, 990], "hooks": "self+cross"}],
    "teacache": [TEACACHE],
}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


@pytest.fixture(params=ACCELERATORS)
def accelerated(request, method):
    return method(request.param, {"model": "small", "accelerators": ACCELERATORS[request.param]}, steps=STEPS)


@pytest.fixture(scope="module")
def untouched(family):
    """A sampler that never ran: not even an empty hook registry is on its models."""
    return family.open()


def anatomy(model):
    """Every module's attributes, and how many hooks it has."""
    return {
        name: (sorted(vars(module)), [len(getattr(module, h)) for h in HOOKS])
        for name, module in model.named_modules()
    }


def test_the_model_is_as_before(accelerated, untouched):
    model = untouched.model("small")
    before = anatomy(model)
    with untouched.attach(accelerated.segments[0].denoiser, STEPS):
        assert anatomy(model) != before
    assert anatomy(model) == before


def test_after_a_video_no_hook_is_left_below_the_root(accelerated, sampler, walked):
    walked(accelerated)
    for module in sampler.model("small").modules():
        assert "_diffusers_hook" not in vars(module)
        assert "forward" not in vars(module)
        assert not any(getattr(module, h) for h in HOOKS)


def test_the_model_is_as_before_also_when_a_step_raises(accelerated, untouched):
    before = anatomy(untouched.model("small"))
    with pytest.raises(KeyboardInterrupt), untouched.attach(accelerated.segments[0].denoiser, STEPS):
        raise KeyboardInterrupt
    assert anatomy(untouched.model("small")) == before


def test_a_second_video_equals_the_first(accelerated, method, walked):
    plain = method("plain", {"model": "small"}, steps=STEPS)
    videos = [walked(m)[m.name].state.latents for m in (plain, accelerated, accelerated, plain)]
    assert torch.equal(videos[1], videos[2])
    assert torch.equal(videos[0], videos[3])
    assert not torch.equal(videos[0], videos[1])


def test_a_video_that_was_broken_off_leaves_nothing_in_the_next(accelerated, sampler, text, walked):
    whole = walked(accelerated)[accelerated.name].state.latents
    denoiser, state = accelerated.segments[0].denoiser, sampler.start(1, STEPS)
    with sampler.attach(denoiser, STEPS):
        for _ in range(3):
            state, _ = sampler.step(denoiser, state, text)
    assert torch.equal(walked(accelerated)[accelerated.name].state.latents, whole)
