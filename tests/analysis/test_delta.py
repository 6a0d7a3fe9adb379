"""δ chosen offline: exact at the run's own switch steps, interpolated between them, unknown outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from srbench.analysis import delta
from srbench.errors import UserError
from srbench.rules.base import replay
from srbench.rules.srdiffusion import SRDiffusion
from srbench.trace import Trace

LARGE, SMALL = {"model": "large", "accelerators": []}, {"model": "small", "accelerators": []}
DELTAS = (0.0005, 0.002, 0.005, 0.01, 0.03)
STEPS = 50


def psnr(prompt: int, step: int) -> float:
    return 10.0 + 3 * prompt + 0.5 * step


def segments(rule: str, large=LARGE, **settings):
    return [
        {"denoiser": large, "until": {"kind": rule, **settings}},
        {"denoiser": SMALL, "until": {"kind": "always"}},
    ]


def reference(make, prompt: int):
    """D falls as (1 + prompt/10)/τ, so each prompt has switch steps of its own."""
    trace = make.trace()
    steps = [
        replace(s, change={"model_output": (1 + prompt / 10) / i} if i else None)
        for i, s in enumerate(trace.steps)
    ]
    path = [{"denoiser": LARGE, "until": {"kind": "always"}}]
    return make.cell("large", prompt, 0, path=path, trace=Trace(tuple(steps)))


def switched(make, name: str, prompt: int, step: int, path, **changes):
    return make.cell(
        name, prompt, 0, switch=step, path=path, scores=make.scores(psnr(prompt, step)), **changes
    )


def step_of(make, d: float, prompt: int) -> int:
    return replay(SRDiffusion(delta=d), reference(make, prompt).trace) or STEPS


def records(make, fixed=(), own=(), small=False, prompts=3):
    """A run with these fixed switches and δ rows."""
    cells = [reference(make, p) for p in range(prompts)]
    for p in range(prompts):
        cells += [switched(make, f"fixed_{k}", p, k, segments("fixed_step", step=k)) for k in fixed]
        cells += [
            switched(make, f"srd_{d}", p, step_of(make, d, p), segments("srdiffusion", delta=d)) for d in own
        ]
        if small:
            path = [{"denoiser": SMALL, "until": {"kind": "always"}}]
            cells.append(switched(make, "small", p, 0, path))
    return make.run(methods=()), cells


@pytest.mark.parametrize(
    "points", [{"fixed": (6, 30)}, {"fixed": (30,), "small": True}, {"fixed": (10,), "own": (0.03, 0.0015)}]
)
def test_between_the_runs_switches_a_delta_is_known(make, points):
    """Similarity and cost are straight in the switch step here, so interpolation gives them exactly."""
    found = delta.replayed(*records(make, **points), DELTAS)
    inside = [i for i, reason in enumerate(found.reasons) if not reason]
    assert inside[:1] == [1] and len(inside) >= 3
    for i in inside:
        steps = [step_of(make, DELTAS[i], p) for p in range(3)]
        assert found.steps[:, i].tolist() == steps
        assert found.similarity[:, i] == pytest.approx([psnr(p, k) for p, k in enumerate(steps)])
        if not points.get("small"):  # which has no hand-over
            cost = np.mean([16.0 * k + 4.0 * (STEPS - k) + 3.75 for k in steps])
            assert found.speedup[i] == pytest.approx((16.0 * STEPS + 3.5) / cost)


def test_outside_the_runs_switches_nothing_is_made_up(make):
    found = delta.replayed(*records(make, fixed=(10, 14)), DELTAS)
    early, late = (step_of(make, DELTAS[i], 0) for i in (-1, 1))
    assert early < 10 and late > 14
    for i in (1, -1):
        assert np.isnan(found.speedup[i]) and np.isnan(found.similarity[:, i]).all()
    assert found.reasons[1].endswith("and the run has switches after 10 to 14 steps")
    with pytest.raises(UserError, match="no δ whose videos can be known"):
        delta.replayed(*records(make, fixed=(10, 14)), (DELTAS[1],)).best(1.0)


@pytest.mark.parametrize("fixed", [(), (10,)])
def test_a_run_with_one_switch_step_is_refused(make, fixed):
    with pytest.raises(UserError, match="at least 2 switch steps"):
        delta.replayed(*records(make, fixed=fixed), DELTAS)


def test_the_runs_own_deltas_are_exact(make):
    found = delta.replayed(*records(make, fixed=(30,), own=(0.03, 0.005)), (0.03, 0.01, 0.005))
    assert found.computed[[0, 2]].tolist() == [1.0, 1.0] and found.computed[1] < 1.0


def test_the_best_is_the_most_similar_that_is_fast_enough(make):
    found = delta.replayed(*records(make, fixed=(30,), small=True), DELTAS)
    assert DELTAS[found.best(1.0)] == 0.002, "the smallest δ whose similarity is known"
    assert found.speedup[found.best(2.5)] >= 2.5
    with pytest.raises(UserError, match=r"at most \d\.\d\d×"):
        found.best(100.0)


def test_other_methods_are_no_points(make):
    """Accelerated models, another sampler and other noise make other videos at the same switch step."""
    run, cells = records(make, fixed=(6, 30))
    cached = {"model": "large", "accelerators": [{"kind": "teacache"}]}
    wrong = [
        switched(make, "cached", 0, 12, segments("fixed_step", large=cached, step=12)),
        switched(make, "partner", 0, 12, segments("fixed_step", step=12), noise_seed=1),
        switched(make, "euler", 0, 12, segments("fixed_step", step=12)),
    ]
    wrong = [c.model_copy(update={"scores": make.scores(99.0)}) for c in wrong]
    (euler,) = make.named("euler")
    run = run.model_copy(update={"methods": (euler.model_copy(update={"sampler": {"solver": "euler"}}),)})
    plain, other = (delta.replayed(run, c, DELTAS) for c in (cells, [*cells, *wrong]))
    assert np.array_equal(plain.similarity, other.similarity, equal_nan=True)


def test_the_rule_is_that_of_the_runs_own_rows(make):
    """As CogVideoX's, which goes by the latents, or one that must not switch before step 20."""
    run, cells = records(make, fixed=(6, 40))
    path = segments("srdiffusion", delta=0.03, min_steps=20)
    found = delta.replayed(run, [*cells, switched(make, "srd_late", 0, 21, path)], (0.03,))
    assert found.steps.tolist() == [[21]] * 3


def test_a_run_without_traces_is_refused(make):
    run, cells = records(make, fixed=(6, 30))
    with pytest.raises(UserError, match="without a trace"):
        delta.replayed(run, [c.model_copy(update={"trace": None}) for c in cells], DELTAS)
