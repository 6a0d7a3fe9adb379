"""Methods that walk together make what each makes alone, and no step is computed twice."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
import torch

from srbench.sampling import walk as walking
from srbench.trace import SIGNALS

STEPS = 10
LARGE, SMALL = {"model": "large"}, {"model": "small"}
# every step adds 1: reuse two steps, compute the third, whatever the weights
TEACACHE = {"kind": "teacache", "threshold": 2.5, "coefficients": [0.0, 1.0]}


def pab(**settings):
    return {"kind": "pab", "skip_range": 8, "timestep_range": [100, 950], **settings}


def until(step):
    return {"until": {"kind": "fixed_step", "step": step}}


@pytest.fixture(scope="module")
def rules(method, walked):
    """Four settings of srdiffusion: one never fires, the others early, later and late.

    Found on the large model's trace, so that they are so whatever the weights: the signal
    on which δ moves the switch most, and δ just above a change that no earlier step undercut.
    """
    trace = walked(method("large", LARGE, steps=STEPS))["large"].trace

    def records(signal, sign):
        changes = np.diff(trace.change(signal)[1:-1]) * (-1 if sign == "diminishing" else 1)
        found = []
        for c in changes[changes > 0]:
            found += [c] if not found or c < found[-1] else []
        return found[::-1]

    kinds = itertools.product(SIGNALS, ("diminishing", "literal"))
    signal, sign = max(kinds, key=lambda kind: len(records(*kind)))
    smallest, *_, largest = records(signal, sign)
    settings = {"kind": "srdiffusion", "signal": signal, "sign": sign, "min_steps": 2}
    deltas = (smallest / 2, np.nextafter(smallest, 1), np.nextafter(largest, 1), 0.9)
    return [settings | {"delta": float(delta)} for delta in deltas]


@pytest.fixture(scope="module")
def methods(method, rules):
    """Every kind of method."""

    def srdiffusion(name, rule, *then):
        return method(name, LARGE | {"until": rule}, *then, steps=STEPS)

    def large_with(accelerator, name):
        return method(name, LARGE | {"accelerators": [accelerator]}, steps=STEPS)

    def srdiffusion_with(accelerator, name):
        first = LARGE | {"accelerators": [accelerator], "until": rules[0]}
        return method(name, first, SMALL, steps=STEPS)

    small_teacache = SMALL | {"accelerators": [TEACACHE]}
    return [
        method("large", LARGE, steps=STEPS),
        method("small", SMALL, steps=STEPS),
        method("fewer steps", LARGE, steps=6),
        *(method(f"fixed {k}", LARGE | until(k), SMALL, steps=STEPS) for k in (2, 5, 8)),
        *(srdiffusion(f"srdiffusion {i}", r, SMALL) for i, r in enumerate(rules)),
        *(srdiffusion(f"srdiffusion {i} + teacache", rules[i], small_teacache) for i in (1, 2)),
        large_with(pab(), "pab"),
        large_with(pab(state="per_branch", skip_range=4), "pab per branch"),
        large_with(
            pab(state="per_branch", hooks="self+cross", skip_range=2), "pab per branch, self and cross"
        ),
        large_with(TEACACHE, "teacache"),
        method("t-stitch", SMALL | until(6), LARGE, steps=STEPS),
        method("large small large", LARGE | until(3), SMALL | until(7), LARGE, steps=STEPS),
        method(
            "pab, then small", LARGE | {"accelerators": [pab(skip_range=2)]} | until(6), SMALL, steps=STEPS
        ),
        # its rule may fire after 3 steps, which cuts what PAB alone would walk plain (4): not out of phase
        srdiffusion_with(pab(timestep_range=[100, 900]), "pab until a rule that never fires"),
    ]


class Counter:
    """Every step the sampler computed: (denoiser, schedule's length, sha256 of the latents before it, index).

    The length tells a step of `fewer steps` from one of the trunk: both begin with the same
    noise at index 0, and go different ways from there.
    """

    def __init__(self, sampler):
        self.step, self.steps = sampler.step, []

    def __call__(self, denoiser, state, text):
        before = hashlib.sha256(state.latents.numpy().tobytes()).hexdigest()
        self.steps.append((denoiser, len(state.scheduler.timesteps), before, state.index))
        return self.step(denoiser, state, text)

    def take(self):
        taken, self.steps = self.steps, []
        return taken


@pytest.fixture(scope="module")
def runs(methods, walked, sampler):
    """The methods walked together with late attach, and each alone without; with their steps."""
    with pytest.MonkeyPatch.context() as patch:
        counter = Counter(sampler)
        patch.setattr(sampler, "step", counter)
        together, shared_steps = walked(*methods, late_attach=True), counter.take()
        alone, alone_steps = {}, {}
        for m in methods:
            alone |= walked(m)
            alone_steps[m.name] = counter.take()
    return together, shared_steps, alone, alone_steps


def test_each_method_makes_what_it_makes_alone(runs, methods):
    together, _, alone, _ = runs
    assert list(alone) == [m.name for m in methods]
    for name, branch in alone.items():
        assert torch.equal(together[name].state.latents, branch.state.latents), name


def test_each_method_switches_where_it_switches_alone(runs):
    together, _, alone, _ = runs
    for name, branch in alone.items():
        assert together[name].trace.switches == branch.trace.switches, name
        changes = [s.change for s in branch.trace.steps]
        assert [s.change for s in together[name].trace.steps] == changes, name


def test_the_sweep_is_one_worth_testing(runs):
    _, _, alone, _ = runs
    srdiffusion = [alone[f"srdiffusion {i}"].trace.switches for i in range(4)]
    assert srdiffusion[0] == ()  # never fires
    assert len(set(srdiffusion)) >= 3
    for name in ("pab", "pab per branch", "pab per branch, self and cross", "pab, then small"):
        assert any(s.modules_reused for s in alone[name].trace.steps), name
        assert not torch.equal(alone[name].state.latents, alone["large"].state.latents), name
    assert any(s.calls_reused for s in alone["teacache"].trace.steps)


def test_every_distinct_step_is_computed_once(runs, methods, sampler):
    """Steps of the shared walk ÷ distinct steps of all methods alone = 1.00.

    A step is distinct by its denoiser, its schedule, the latents before it and its index.
    While an accelerator changes no bit (`inert_steps`), its denoiser counts as the plain one;
    that the two agree there is what the first test shows.
    """
    _, shared_steps, _, alone_steps = runs
    distinct = set()
    for m in methods:
        first = m.segments[0].denoiser
        timesteps = sampler.timesteps(m.steps)
        most = m.segments[0].until.window(timesteps)[0] - 1
        inert = min((a.inert_steps(timesteps, 2, most) for a in first.accelerators), default=0)
        for denoiser, length, latents, index in alone_steps[m.name]:
            plain = dataclasses.replace(denoiser, accelerators=())
            distinct.add((plain if index < inert else denoiser, length, latents, index))
    assert set(shared_steps) == distinct
    assert len(shared_steps) / len(distinct) == 1.00
    assert sum(map(len, alone_steps.values())) > 1.5 * len(shared_steps)


def test_the_familys_own_number_of_steps_given_by_hand_walks_with_the_rest(method, walked, wan_grid):
    """`steps: 3` in a family of 3 steps is no other root."""
    short = dataclasses.replace(wan_grid.family, steps=3).open()
    short._models = wan_grid._models
    stepped = []
    both = walked(method("own", SMALL), method("by hand", SMALL, steps=3), on=short, on_step=stepped.append)
    assert torch.equal(both["own"].state.latents, both["by hand"].state.latents)
    assert len(stepped) == 3


def test_the_peak_of_memory_is_of_a_methods_own_segments(sampler, method, walked, monkeypatch) -> None:
    """A process walks a small method after a large one: what the large one held is not the small one's."""
    held = {"large": 20, "small": 3}
    meter, step = [0], sampler.step

    def measured(denoiser, state, text):
        meter[0] = max(meter[0], held[denoiser.model])
        return step(denoiser, state, text)

    monkeypatch.setattr(sampler, "step", measured)
    monkeypatch.setattr(walking, "begin_peak", lambda device: meter.__setitem__(0, 0))
    monkeypatch.setattr(walking, "peak_bytes", lambda device: meter[0])
    until = {"kind": "fixed_step", "step": 2}
    paths = [
        method("large", {"model": "large"}, steps=4),
        method("switched", {"model": "large", "until": until}, {"model": "small"}, steps=4),
        method("small", {"model": "small"}, steps=4),
        method("fast", {"model": "small", "dtype": "bfloat16"}, steps=4),
    ]
    peaks = {name: branch.peak for name, branch in walked(*paths).items()}
    assert peaks == {"large": 20, "switched": 20, "small": 3, "fast": 3}
