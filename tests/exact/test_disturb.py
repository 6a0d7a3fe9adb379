"""Noise put in at a step: what came before is shared, what comes after is another video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from srbench.config.experiment import Method
from srbench.families.base import State
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


def test_unipc_goes_on_from_the_disturbed_latents(sampler) -> None:
    """Its corrector makes the latents anew from the sample before: the noise must be in that too."""
    state = sampler.start(0, 8)
    scheduler = sampler._fork(state.scheduler)
    generator = torch.Generator().manual_seed(1)
    outputs = [torch.randn(state.latents.shape, generator=generator) for _ in range(5)]
    latents = state.latents
    for i, output in enumerate(outputs[:4]):
        latents = scheduler.step(output, scheduler.timesteps[i], latents, return_dict=False)[0]
    noise = torch.randn(latents.shape, generator=generator)
    before = replace(state, index=4, latents=latents, scheduler=scheduler)
    after = sampler.disturb(before, noise)

    def corrected(of: State, output: torch.Tensor) -> torch.Tensor:
        """What the next step starts from."""
        own = sampler._fork(of.scheduler)
        own.step(output, own.timesteps[4], of.latents, return_dict=False)
        return own.last_sample

    # the same x0 seen from both, as a model would that is sure of its picture
    sigma = scheduler.sigmas[4]
    shifted = outputs[4] + noise / sigma
    moved = corrected(after, shifted) - corrected(before, outputs[4])
    torch.testing.assert_close(moved, noise, atol=1e-4, rtol=1e-4)
