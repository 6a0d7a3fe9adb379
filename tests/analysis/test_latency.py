"""Typical times by hand, and sums of them."""

from __future__ import annotations

from statistics import stdev
from typing import Any

import pytest

from srbench.analysis.latency import (
    StepTimes,
    Typical,
    cell_latency,
    disagreement,
    stage_seconds,
    times,
    work_seconds,
)
from srbench.errors import UserError
from srbench.store.records import Stage, TimingPass


def timed(make: Any, seconds: list[float], switch: int, prompt: int = 0) -> Any:
    trace = make.trace(switch, len(seconds))
    return make.cell("srd", prompt, 0, trace=trace, step_seconds=tuple(seconds))


def test_warmups_and_first_steps_after_a_switch_are_left_out(make: Any) -> None:
    cell = timed(make, [90, 80, 10, 12, 11, 70, 3, 4, 5, 6], switch=5)
    work = work_seconds([cell])
    assert work == {"large 2+0": Typical(11, 3), "small 2+0": Typical(4.5, 4)}
    assert work_seconds([cell], warmup=0)["large 2+0"] == Typical(12, 5)


def test_each_prompt_has_medians_of_its_own(make: Any) -> None:
    slow = timed(make, [90, 80, 20, 24, 22, 70, 3, 4, 5, 6], switch=5)
    fast = timed(make, [90, 80, 10, 12, 11, None, 1], switch=7, prompt=1)
    by_prompt = StepTimes([slow, fast]).by_prompt
    assert by_prompt == {0: {"large 2+0": 22, "small 2+0": 4.5}, 1: {"large 2+0": 10.5}}
    # where a prompt has none, the run's stands in
    work, cell = work_seconds([slow, fast]), timed(make, [1] * 5, switch=3)
    known = cell_latency(cell, work, own=by_prompt[1])
    assert known == {"denoise": 3 * 10.5 + 2 * 4.5}


def test_only_cold_steps_are_used_and_marked(make: Any) -> None:
    work = work_seconds([timed(make, [9, 8, 7], switch=2)])
    assert work == {"large 2+0": Typical(8.5, 2, False), "small 2+0": Typical(7, 1, False)}


def test_one_warm_step_anywhere_outweighs_the_cold(make: Any) -> None:
    cells = [timed(make, [9, 8, 7], 2), timed(make, [9, 8, 7, 2], 2, prompt=1)]
    assert work_seconds(cells)["small 2+0"] == Typical(2, 1)


def test_cells_without_times_count_for_nothing(make: Any) -> None:
    untimed = make.cell("large", 0, 0, step_seconds=())
    failed = make.cell("large", 0, 1, outcome="failed", step_seconds=(1.0,))
    assert work_seconds([untimed, failed]) == {}


def test_times_that_do_not_fit_the_steps_are_refused(make: Any) -> None:
    with pytest.raises(UserError, match="49 times, 50 steps"):
        work_seconds([make.cell("large", 0, 0, step_seconds=(1.0,) * 49)])


def test_latency_is_counts_times_typical_times(make: Any) -> None:
    cell = make.cell("srd", 0, 0, switch=10)
    work = {"large 2+0": Typical(16, 1), "small 2+0": Typical(4, 1)}
    assert cell_latency(cell, work) == {"denoise": 10 * 16 + 40 * 4}
    stages = stage_seconds([cell, make.cell("large", 0, 0)])
    assert cell_latency(cell, work, stages) == {
        "denoise": 320,
        "encode": 0.5,
        "decode": 3,
        "hand_over": 0.25,
    }
    assert "hand_over" not in cell_latency(make.cell("large", 0, 0), work, stages)


def test_latency_that_cannot_be_told_says_why(make: Any) -> None:
    with pytest.raises(LookupError, match=r"small 2.0"):
        cell_latency(make.cell("srd", 0, 0, switch=10), {"large 2+0": Typical(1, 1)})
    with pytest.raises(LookupError, match="no trace"):
        cell_latency(make.cell("srd", 0, 0, trace=None), {})


def test_a_pass_is_held_against_the_clock(make: Any) -> None:
    def walk(whole: float) -> Any:
        stages = (Stage(name="denoise", seconds=whole), Stage(name="hand_over", seconds=0.0))
        return timed(make, [2.0] * 10, switch=5).model_copy(update={"stages": stages})

    walks = [walk(20.0), walk(25.0), walk(30.0)]
    # ten steps of 2 s, and the median walk took 25 s by the clock
    assert disagreement(walks, work_seconds(walks), stage_seconds(walks)) == pytest.approx(1 - 20 / 25)
    assert disagreement([], {}, {}) is None


def a_pass(make: Any, began: str, seconds: dict[str, list[float]]) -> TimingPass:
    """A pass with a walk a round for each method, whose steps take so many seconds each."""
    walks = [
        make.cell(method, 0, 0, switch=0 if method == "small" else 50, step_seconds=(own[r],) * 50)
        for r in range(len(next(iter(seconds.values()))))
        for method, own in seconds.items()
    ]
    walks = [w.model_copy(update={"method_id": w.method}) for w in walks]
    rounds = len(next(iter(seconds.values())))
    return TimingPass(
        protocol="p",
        device="d",
        began=began,
        asked=rounds,
        rounds=rounds,
        busy=0.0,
        others_bytes=None,
        walks=walks,
    )


def test_what_the_newest_pass_has_not_timed_comes_from_the_one_before(make: Any) -> None:
    first = a_pass(make, "monday", {"large": [4.0, 4.0], "small": [1.0, 1.0]})
    second = a_pass(make, "friday", {"large": [5.0, 5.0]})
    run = make.run(passes=(second, first), timing="exclusive")
    found = times(run, [make.cell("large", p, 0) for p in range(4)])
    large, small = "large 2+0", "small 2+0"
    # small took a quarter of the large model's time in the pass that has both
    assert (found.work[large].seconds, found.work[small].seconds) == (5.0, 1.25)
    assert found.earlier == {small: "monday"}


@pytest.mark.parametrize("prompts", [2, 4, 6, 12])
def test_a_means_error_over_prompts_is_that_of_the_rounds(make: Any, prompts: int) -> None:
    one = a_pass(make, "monday", {"large": [4.0, 5.0]})
    found = times(make.run(passes=(one,)), [make.cell("large", p, 0) for p in range(prompts)])
    own = [found.by_prompt[p]["large 2+0"] for p in range(prompts)]
    assert stdev(own) / prompts**0.5 == pytest.approx(stdev([4.0, 5.0]) / 2**0.5)
    assert times(make.run(passes=(one,)), []).by_prompt == {}
    # of one round no spread is known
    single = a_pass(make, "monday", {"large": [4.0]})
    assert times(make.run(passes=(single,)), [make.cell("large", 0, 0)]).by_prompt == {0: {}}
