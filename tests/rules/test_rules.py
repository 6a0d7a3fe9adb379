"""Switch rules on traces written by hand, and what must hold for any trace."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.config.registry import build
from srbench.errors import UserError
from srbench.rules.always import Always
from srbench.rules.base import replay
from srbench.rules.boundary import Boundary
from srbench.rules.fixed_step import FixedStep
from srbench.rules.srdiffusion import SRDiffusion
from srbench.trace import SIGNALS, Step, Trace


def trace(*changes: float | None, signal: str = "model_output", steps: int | None = None) -> Trace:
    """A trace whose D_τ are given from τ = 1 on; the other signals never settle.

    steps: length, continued with a D that no longer changes (d = 0, which never fires).
    """
    filled = [*changes, *[changes[-1]] * ((steps or len(changes)) - len(changes))]
    n = len(filled)
    return Trace(
        tuple(
            Step(
                index=i,
                timestep=1000 * (1 - i / n),
                next_timestep=1000 * (1 - (i + 1) / n),
                sigma=1 - i / n,
                denoiser="large",
                model="large",
                change=None if d is None else dict.fromkeys(SIGNALS, float(i % 2)) | {signal: d},
                calls_computed=2,
                calls_reused=0,
            )
            for i, d in enumerate(filled)
        )
    )


# Nine steps, written as a reader would: τ = 1 … 9.
#                 τ:  1     2    3    4    5    6     7      8     9
SETTLING = trace(None, 0.9, 0.6, 0.4, 0.3, 0.25, 0.225, 0.215, 0.21)


def test_srdiffusion_fires_when_d_falls_below_delta() -> None:
    # d_6 = 0.05, d_7 = 0.025, d_8 = 0.01
    assert replay(SRDiffusion(delta=0.06), SETTLING) == 6
    assert replay(SRDiffusion(delta=0.03), SETTLING) == 7
    assert replay(SRDiffusion(delta=0.011), SETTLING) == 8
    assert replay(SRDiffusion(delta=0.002), SETTLING) is None


def test_srdiffusion_earliest_switch_is_after_min_steps_and_one() -> None:
    """FIX_STEP = 5: τ > 5, so six steps are done even where every d is small."""
    at_once = trace(None, *[0.5 - 0.001 * i for i in range(20)])
    assert replay(SRDiffusion(delta=0.01), at_once) == 6
    assert replay(SRDiffusion(delta=0.01, min_steps=9), at_once) == 10
    # d needs two D, and the first step has none
    assert replay(SRDiffusion(delta=0.01, min_steps=0), at_once) == 3


@pytest.mark.parametrize(
    ("d", "fires"),
    [(-0.01, False), (0.0, False), (0.001, True), (0.25, False), (0.2499, True), (0.3, False)],
)
def test_srdiffusion_bounds_are_strict(d: float, fires: bool) -> None:
    """0 < d < δ, with δ = 0.25: neither 0 nor δ itself (0.5 − 0.25 is exact)."""
    at_six = trace(None, 0.5, 0.5, 0.5, 0.5, 0.5 - d, steps=12)
    assert replay(SRDiffusion(delta=0.25), at_six) == (6 if fires else None)


def test_srdiffusion_literal_sign_is_the_other_way_round() -> None:
    """As printed, d = D_τ − D_{τ−1}: it never fires while D diminishes, and does when it grows."""
    literal = SRDiffusion(delta=0.5, sign="literal")
    assert replay(literal, SETTLING) is None
    growing = trace(None, 0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 0.3)
    assert replay(literal, growing) == 7
    assert replay(SRDiffusion(delta=0.5), growing) is None


def test_srdiffusion_reads_the_signal_it_was_told_to() -> None:
    latent = trace(None, 0.5, 0.5, 0.5, 0.5, 0.5, 0.499, steps=9, signal="latent")
    assert replay(SRDiffusion(delta=0.01, signal="latent"), latent) == 7
    assert replay(SRDiffusion(delta=0.01, signal="x0"), latent) is None


def test_srdiffusion_waits_where_a_change_is_unknown() -> None:
    """The first step has no D, and a D that is not a number is no reason to switch."""
    unknown = trace(None, 0.5, math.nan, 0.499, 0.49, math.nan, 0.4, 0.399)
    assert replay(SRDiffusion(delta=0.01, min_steps=0), unknown) == 5
    assert replay(SRDiffusion(delta=0.01), trace(None, *[math.nan] * 9)) is None
    assert replay(SRDiffusion(delta=0.01, min_steps=0), trace(None, 0.5, 0.499)) is None


def test_srdiffusion_max_steps_switches_at_the_latest() -> None:
    assert replay(SRDiffusion(delta=0.002, max_steps=8), SETTLING) == 8
    assert replay(SRDiffusion(delta=0.03, max_steps=8), SETTLING) == 7
    assert replay(SRDiffusion(delta=0.002, max_steps=9), SETTLING) is None  # after the last step


@pytest.mark.parametrize(
    "settings_",
    [{"delta": 0}, {"delta": -1}, {"delta": 1}, {"delta": math.nan}, {"min_steps": -1}, {"max_steps": 0}],
)
def test_srdiffusion_refuses_what_has_no_meaning(settings_: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"until.{next(iter(settings_))} = "):
        build("rules", {"kind": "srdiffusion"} | settings_, "until")


def test_fixed_step_counts_steps_of_the_schedule_whoever_did_them() -> None:
    ten = trace(None, steps=10)
    assert replay(FixedStep(step=4), ten) == 4
    assert replay(FixedStep(step=4), ten, entered=2) == 4
    assert replay(FixedStep(step=4), ten, entered=6) == 7  # late already: one step, then on
    assert replay(FixedStep(step=9), ten) == 9
    assert replay(FixedStep(step=10), ten) is None
    assert replay(FixedStep(step=99), ten) is None


def test_boundary_looks_at_the_step_to_come() -> None:
    """Timesteps 1000, 900, … 100: below 0.7 × 1000 first at the fifth, so four steps are done."""
    ten = trace(None, steps=10)
    assert replay(Boundary(ratio=0.7 + 1e-9), ten) == 3
    assert replay(Boundary(ratio=0.65), ten) == 4
    assert replay(Boundary(ratio=0.65), ten, entered=7) == 8
    assert replay(Boundary(ratio=0.05), ten) is None
    for ratio in (0, 1):
        with pytest.raises(UserError, match=r"ratio"):
            build("rules", {"kind": "boundary", "ratio": ratio}, "until")


def test_always_never_fires() -> None:
    assert replay(Always(), trace(None, *[0.1] * 49)) is None
    assert not Always().fires(Trace(), 0)


CHANGES = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(lambda d: trace(None, *d))
DELTAS = st.floats(0.001, 0.999)
RULES = st.one_of(
    st.just(Always()),
    st.builds(FixedStep, step=st.integers(1, 50)),
    st.builds(Boundary, ratio=DELTAS),
    st.builds(
        SRDiffusion,
        delta=DELTAS,
        min_steps=st.integers(0, 8),
        max_steps=st.none() | st.integers(1, 50),
        sign=st.sampled_from(["diminishing", "literal"]),
    ),
)
examples = settings(max_examples=150)


@examples
@given(CHANGES, st.tuples(DELTAS, DELTAS).map(sorted))
def test_a_larger_delta_never_switches_later(walked: Trace, deltas: list[float]) -> None:
    small, large = (replay(SRDiffusion(delta=d), walked) for d in deltas)
    if small is not None:
        assert large is not None and large <= small


@examples
@given(CHANGES, RULES, st.integers(0, 5), st.data())
def test_a_switch_depends_on_the_steps_before_it_alone(
    walked: Trace, rule: Any, entered: int, data: st.DataObject
) -> None:
    """What comes later, other D and another length, moves no switch that was made already."""
    fired = replay(rule, walked, entered)
    executed = fired if fired is not None else len(walked)
    later = data.draw(st.lists(st.floats(0, 1), max_size=5), label="other D later")
    template = walked.steps[0]
    tail = [
        Step(**(vars(template) | {"index": executed + i, "change": dict.fromkeys(SIGNALS, d)}))
        for i, d in enumerate(later)
    ]
    other = Trace((*walked.steps[:executed], *tail))
    for k in range(entered + 1, min(executed + 1, len(walked))):
        assert rule.fires(other.until(k), entered) == (k == fired)


@examples
@given(CHANGES, RULES, st.integers(0, 45))
def test_no_rule_fires_after_the_last_step_or_before_a_step_was_done(
    walked: Trace, rule: Any, entered: int
) -> None:
    fired = replay(rule, walked, entered)
    assert fired is None or entered < fired < len(walked)


@examples
@given(CHANGES, RULES)
def test_a_rule_fires_inside_the_window_that_it_tells_the_plan(walked: Trace, rule: Any) -> None:
    first, last = rule.window([s.timestep for s in walked.steps])
    assert 1 <= first <= last <= len(walked)
    fired = replay(rule, walked)
    assert first <= (len(walked) if fired is None else fired) <= last
