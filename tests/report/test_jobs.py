"""Step times of several jobs: a machine that was slower in one of them changes no speedup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srbench.analysis.latency import Typical, times, work_seconds
from srbench.analysis.table import Row, rows
from srbench.report import figures
from srbench.report.verdicts import verdicts
from srbench.store.records import Stage, TimingPass

STEPS = 10
SECONDS = {"large": 16.0, "small": 4.0}
STAGES = {"encode": 0.5, "decode": 3.0, "hand_over": 0.25}
SWITCHES = {"large": STEPS, "small": 0, "srd_0.01": 4}


def timed(
    make: Any,
    method: str,
    prompt: int,
    job: str,
    slower: float,
    resumed: int = 0,
    stages: Sequence[str] = tuple(STAGES),
    **changes: Any,
) -> Any:
    """A cell that a job computed, on a machine that many times slower; an earlier job did `resumed` steps."""
    trace = make.trace(SWITCHES[method], STEPS)
    seconds = [slower * SECONDS[s.model] if s.index >= resumed else None for s in trace.steps]
    known = [n for n in stages if n != "hand_over" or trace.switches]
    return make.cell(
        method,
        prompt,
        0,
        trace=trace,
        step_seconds=tuple(seconds),
        stages=tuple(Stage(name=n, seconds=slower * STAGES[n]) for n in known),
        job=job,
        **changes,
    )


def latency(method: str, stages: Sequence[str] = tuple(STAGES)) -> float:
    """By hand, of the machine at its usual speed."""
    switch = SWITCHES[method]
    whole = switch * SECONDS["large"] + (STEPS - switch) * SECONDS["small"]
    switched = 0 < switch < STEPS
    return whole + sum(STAGES[n] for n in stages if n != "hand_over" or switched)


def speedup(method: str, stages: Sequence[str] = tuple(STAGES)) -> float:
    return latency("large", stages) / latency(method, stages)


def by_method(make: Any, cells: Sequence[Any], **changes: Any) -> Mapping[str, Row]:
    return {row.method: row for row in rows(make.run(**changes), cells)}


def reused(make: Any) -> list[Any]:
    """Job 1 made all videos of four prompts; job 2, seven times slower, large's of four others."""
    first = [timed(make, m, p, "job-1", 1.0) for m in SWITCHES for p in range(4)]
    return [*first, *(timed(make, "large", p, "job-2", 7.0) for p in range(4, 8))]


def test_a_slower_second_job_leaves_the_speedups_of_the_first(make: Any) -> None:
    found = by_method(make, reused(make))
    for method in ("small", "srd_0.01"):
        assert found[method]["speedup"].value == pytest.approx(speedup(method))
        assert found[method]["latency"].value == pytest.approx(latency(method))
    # in the seconds of the job that timed most of the work, and not of both
    assert found["large"]["latency"].value == pytest.approx(latency("large"))


def test_a_job_without_a_step_of_the_reference_gives_no_speedup(make: Any) -> None:
    cells = [timed(make, "large", p, "job-1", 1.0) for p in range(4)]
    cells += [timed(make, "small", p, "job-2", 7.0) for p in range(4)]
    value = by_method(make, cells)["small"]["speedup"]
    assert (value.value, value.outcome) == (None, "missing")
    assert "timed only in jobs without a step of the reference" in value.reason
    assert "timing=exclusive" in value.reason
    # the same videos of one job have one
    assert by_method(make, [c.model_copy(update={"job": "one"}) for c in cells])["small"]["speedup"].value


def test_nothing_that_rests_on_several_jobs_is_the_best(make: Any) -> None:
    run, cells = make.run(), reused(make)
    scored = [c.model_copy(update={"scores": () if c.is_reference else make.scores(40.0)}) for c in cells]
    table = rows(run, scored)
    assert all(row[key].pooled for row in table for key in ("latency", "speedup"))
    assert not any(row[key].best for row in table for key in ("latency", "speedup"))
    said = " ".join(verdicts(run, scored, table))
    assert "No method is named as the fastest" in said
    assert "Fastest of the" not in said
    assert "speedup" not in said.partition("The small model alone:")[2].partition(".")[0]
    # one job alone has a best method
    one = [c for c in scored if c.job == "job-1"]
    assert {row.method for row in rows(run, one) if row["speedup"].best} == {"small"}
    assert "Fastest of the" in " ".join(verdicts(run, one, rows(run, one)))


def test_no_line_joins_speedups_of_several_jobs(make: Any, tmp_path: Any) -> None:
    run, cells = make.run(), reused(make)
    scored = [c.model_copy(update={"scores": () if c.is_reference else make.scores(40.0)}) for c in cells]
    drawn = {f.name: f for f in figures.draw(tmp_path, run, scored, rows(run, scored))}
    assert (
        "No line joins the best: speedups rest on step times of several jobs."
        in drawn["speedup_psnr"].caption
    )


def test_records_that_name_no_job_are_never_the_best(make: Any) -> None:
    """An older version wrote them: nobody knows whether one job timed all of it."""
    cells = [timed(make, m, p, "", 1.0) for m in SWITCHES for p in range(4)]
    found = by_method(make, cells)
    assert found["small"]["speedup"].value == pytest.approx(speedup("small"))
    assert not any(row["speedup"].best for row in found.values())
    assert "older records do not say which job" in found["small"]["latency"].column.note


def test_a_pass_that_did_not_time_the_reference_converts_nothing(make: Any) -> None:
    """The small model of Friday's pass cannot be compared with Monday's large one."""

    def a_pass(began: str, methods: Sequence[str], slower: float) -> TimingPass:
        walks = tuple(timed(make, m, 0, began, slower) for m in methods for _ in range(2))
        whole: dict[str, Any] = dict(asked=2, rounds=2, busy=0.0, others_bytes=None)
        return TimingPass(protocol="p", device="d", began=began, walks=walks, **whole)

    cells = [timed(make, m, p, "sweep", 3.0) for m in ("large", "small") for p in range(4)]
    friday, monday = a_pass("friday", ["small"], 7.0), a_pass("monday", ["large"], 1.0)
    run = make.run(passes=(friday, monday), timing="exclusive")
    found = {row.method: row for row in rows(run, cells)}
    assert found["small"]["speedup"].value is None
    assert "without a step of the reference" in found["small"]["speedup"].reason
    whole = make.run(passes=(friday, a_pass("monday", ["large", "small"], 1.0)), timing="exclusive")
    assert {r.method: r for r in rows(whole, cells)}["small"]["speedup"].value == pytest.approx(
        speedup("small")
    )


def test_equal_computation_is_one_class_whatever_method_requested_it(make: Any) -> None:
    """TeaCache's computed steps are the large model's, though they were timed at a faster moment."""
    trace = make.trace(STEPS, STEPS)
    cached = type(trace)(
        tuple(
            type(s)(**{**vars(s), "denoiser": "large+teacache", "calls_computed": c, "calls_reused": 2 - c})
            for s, c in zip(trace.steps, [2, 2, 2, 0] * 3, strict=False)
        )
    )
    seconds = tuple(12.0 if s.calls_computed else 1.0 for s in cached.steps)
    tea = make.cell("tea", 0, 0, trace=cached, step_seconds=seconds, computes={"large+teacache": "large"})
    plain = [timed(make, "large", p, "job-1", 1.0) for p in range(3)]
    work = work_seconds([*plain, tea])
    assert work["large 2+0"] == work["large+teacache 2+0"] == Typical(16.0, 3 * 8 + 6)
    assert work["large+teacache 0+2"] == Typical(1.0, 2)
    # without the record's word for it they are two classes
    apart = work_seconds([*plain, tea.model_copy(update={"computes": {}})])
    assert apart["large+teacache 2+0"].seconds == 12.0


FACTORS = st.lists(st.floats(0.05, 20.0), min_size=4, max_size=4)
JOBS = st.integers(0, 3)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), FACTORS)
def test_speedups_are_the_truth_or_missing_whichever_job_did_what(
    make: Any, data: st.DataObject, factors: list[float]
) -> None:
    """Each job has a slowdown of its own; jobs made, resumed or reused videos at random."""
    encodes = data.draw(st.lists(st.booleans(), min_size=4, max_size=4), label="which jobs time encoding")
    cells = []
    for method in SWITCHES:
        for prompt in range(3):
            job = data.draw(JOBS, label=f"job of {method} {prompt}")
            stages = [n for n in STAGES if n != "encode" or encodes[job]]
            resumed = data.draw(st.sampled_from([0, 0, 3, 5, STEPS]), label="steps of an earlier job")
            cells.append(timed(make, method, prompt, f"job-{job}", factors[job], resumed, stages))
    any_encodes = any(s.name == "encode" for c in cells for s in c.stages)
    stages = [n for n in STAGES if n != "encode" or any_encodes]
    run = make.run()
    found = {row.method: row for row in rows(run, cells)}
    for method in ("small", "srd_0.01"):
        value = found[method]["speedup"]
        assert value.value is None or value.value == pytest.approx(speedup(method, stages))
        if value.value is not None and value.best:
            assert len(times(run, cells).jobs(cells)) == 1
