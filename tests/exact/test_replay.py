"""δ offline: a rule replayed on the large model's trace says where the run really switched."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from pydantic import TypeAdapter

from srbench.rules.base import replay
from srbench.rules.boundary import Boundary
from srbench.rules.fixed_step import FixedStep
from srbench.rules.srdiffusion import SRDiffusion
from srbench.trace import SIGNALS, Trace

STEPS = 12
DELTAS = (1e-6, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.9)
RULES = [
    SRDiffusion(delta=delta, signal=signal, sign=sign, min_steps=min_steps)
    for delta, signal, (sign, min_steps) in itertools.product(
        DELTAS, SIGNALS, [("diminishing", 2), ("literal", 5)]
    )
]
RULES += [SRDiffusion(delta=1e-6, max_steps=7), FixedStep(step=4), Boundary(ratio=0.9)]


def settings(rule):
    from srbench.config.registry import identity

    return identity(rule)


@pytest.fixture(scope="module")
def latents():
    """The large model's latents: pure noise, then after every step."""
    return []


@pytest.fixture(scope="module")
def walk(method, walked, sampler, latents):
    """`large` and one method for every rule, walked together."""
    latents.append(sampler.start(7, STEPS).latents)

    def keep(branch):
        if branch.denoiser.model == "large":
            latents.append(branch.state.latents)

    large = method("large", {"model": "large"}, steps=STEPS)
    return walked(
        large,
        *(
            method(f"{i}", {"model": "large", "until": settings(rule)}, {"model": "small"}, steps=STEPS)
            for i, rule in enumerate(RULES)
        ),
        on_step=keep,
    )


@pytest.fixture(scope="module")
def stored(walk):
    """The large model's trace, written to JSON and read back, as a record holds it."""
    adapter = TypeAdapter(Trace)
    trace = adapter.validate_json(adapter.dump_json(walk["large"].trace))
    assert trace == walk["large"].trace
    return trace


def test_every_rule_replays_to_the_actual_switch(walk, stored):
    for i, rule in enumerate(RULES):
        step = replay(rule, stored)
        assert walk[f"{i}"].trace.switches == (() if step is None else (step,)), rule


def test_the_rules_are_worth_replaying(stored):
    steps = [replay(rule, stored) for rule in RULES]
    assert None in steps
    assert len(set(steps)) >= 5


def test_a_rule_that_fires_shares_the_large_models_trace_until_then(walk, stored):
    for i, rule in enumerate(RULES):
        step = replay(rule, stored)
        assert walk[f"{i}"].trace.until(step or STEPS) == stored.until(step or STEPS)


def change_of(now, before):
    """Equation 3, from two tensors."""
    return math.tanh(float((now - before).abs().sum()) / float(before.abs().sum()))


def test_the_arithmetic_of_the_rule_from_the_latents_themselves(walk, stored, latents):
    """D_τ and d_τ of signal `latent`, worked out from the latents of the run."""
    after = latents[1:]  # after[0] is s_1
    assert len(after) == STEPS and torch.equal(after[-1], walk["large"].state.latents)
    change = {tau: change_of(after[tau - 1], after[tau - 2]) for tau in range(2, STEPS + 1)}
    assert stored.change("latent")[1:] == pytest.approx(list(change.values()), rel=1e-5)
    for rule in (r for r in RULES if isinstance(r, SRDiffusion) and r.signal == "latent"):
        way = 1 if rule.sign == "diminishing" else -1
        fired = [
            tau
            for tau in range(max(3, rule.min_steps + 1), STEPS)
            if 0 < way * (change[tau - 1] - change[tau]) < rule.delta
        ]
        assert replay(rule, stored) == (fired[0] if fired else None), rule
