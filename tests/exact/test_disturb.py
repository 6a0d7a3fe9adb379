"""Noise put in at a step: what came before is shared, what comes after is another video."""

from __future__ import annotations

from collections.abc import Callable

import torch

from srbench.experiment import Method
from srbench.sampling.walk import Branch, take_over


def test_noise_is_added_once_when_the_denoiser_takes_over(
    method: Callable[..., Method], walked: Callable[..., dict[str, Branch]]
) -> None:
    until = {"kind": "fixed_step", "step": 3}
    plain = method("plain", {"model": "large"})
    noisy = method("noisy", {"model": "large", "until": until}, {"model": "large", "disturb": {"scale": 0.3}})
    still = method(
        "still", {"model": "large", "until": until}, {"model": "large", "disturb": {"scale": 0, "bias": 0}}
    )
    ends = walked(plain, noisy, still)
    assert ends["noisy"].trace.until(3) == ends["plain"].trace.until(3)
    assert not torch.equal(ends["noisy"].state.latents, ends["plain"].state.latents)
    assert torch.equal(ends["still"].state.latents, ends["plain"].state.latents)
    assert torch.equal(walked(noisy)["noisy"].state.latents, ends["noisy"].state.latents)


def test_the_noise_has_the_bias_and_scale_that_were_asked_for(sampler, method: Callable[..., Method]) -> None:
    disturb = {"scale": 0.5, "bias": 2.0}
    denoiser = method("noisy", {"model": "large", "disturb": disturb}).segments[0].denoiser
    state = sampler.start(0, 4)
    added = take_over(sampler, state, denoiser).latents - state.latents
    assert abs(float(added.mean()) - 2.0) < 0.05
    assert abs(float(added.std()) - 0.5) < 0.02
