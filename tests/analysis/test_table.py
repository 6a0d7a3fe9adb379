"""Rows by hand: order, means, what is missing and why, what is refused."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.analysis.table import decimals, rows, shown
from srbench.analysis.table import make as make_tables
from srbench.analysis.values import best_of
from srbench.errors import UserError
from srbench.report.printed import columns
from srbench.store.records import TimingPass


def by_method(table: Any) -> dict[str, Any]:
    return {row.method: row for row in table}


def replaced(cells: list[Any], method: str, prompt: int, seed: int, **changes: Any) -> list[Any]:
    here = (method, prompt, seed)
    return [c.model_copy(update=changes) if (c.method, c.prompt_index, c.seed) == here else c for c in cells]


def test_reference_small_then_the_rest(make: Any) -> None:
    for run in (make.run(), make.run(methods=()), make.run(methods=make.named("srd_0.01", "small", "large"))):
        assert [r.method for r in rows(run, make.cells())] == ["large", "small", "srd_0.01"]


def test_numbers_by_hand(make: Any) -> None:
    row = by_method(rows(make.run(), make.cells()))["srd_0.01"]
    psnr = row["psnr"]  # prompt means 24.05, 25.05, 26.05
    assert psnr.value == pytest.approx(25.05)
    assert psnr.standard_error == pytest.approx(1 / math.sqrt(3))
    assert (psnr.n, psnr.clusters, psnr.outcome, psnr.reason) == (6, 3, "done", "")
    assert psnr.column.title == "PSNR ↑ dB"
    assert row["switch_step"].value == pytest.approx(11.5)  # 10 + p + s
    latency = 11.5 * 16 + 38.5 * 4 + 3.75
    assert row["latency"].value == pytest.approx(latency)
    assert row["speedup"].value == pytest.approx((50 * 16 + 3.5) / latency)
    assert row["evaluations_large"].value == pytest.approx(23)
    assert row["evaluations_small"].value == pytest.approx(77)
    assert row["evaluations_reused"].value == 0


def test_frames_at_psnrs_cap_are_counted_below_the_table_with_the_mean_without_them(make: Any) -> None:
    psnr = make.psnr.model_copy(update={"upper_bound": 100.0})

    def of(prompt: int, *frames: float) -> tuple[Any, ...]:
        mean = sum(frames) / len(frames)
        return (make.scored(psnr, mean, frames, reference="r"),)

    cells = [make.cell("large", p, 0) for p in range(3)]
    for p, frames in enumerate([(100.0, 30.0), (100.0, 100.0), (20.0, 24.0)]):
        cells += [
            make.cell("small", p, 0, scores=of(p, *frames)),
            make.cell("far", p, 0, scores=of(p, 20, 24)),
        ]
    row = by_method(rows(make.run(methods=()), cells))["small"]
    assert row["psnr"].value == pytest.approx((65 + 100 + 22) / 3)
    # the second prompt has no other frame; (30 + 22) / 2
    assert row["psnr"].column.whole_note.endswith("small: 3 of 6 frames at 100 dB, mean 26.00 without")


def test_reference_is_named_not_scored(make: Any) -> None:
    cells = [
        c.model_copy(update={"scores": make.scores(100.0, 1.0)}) if c.is_reference else c
        for c in make.cells()
    ]
    reference = rows(make.run(), cells)[0]
    assert (reference["psnr"].word, reference["psnr"].value) == ("reference", None)
    assert reference["speedup"].value == 1.0
    assert shown(reference["switch_step"], 1) == "–"
    assert reference["switch_step"].footnote == ""


def test_failed_cell_is_told_of(make: Any) -> None:
    cells = replaced(
        make.cells(),
        "small",
        1,
        0,
        outcome="failed",
        reason="CUDA out of memory. Tried to allocate 3 GiB.\nmore",
    )
    row = by_method(rows(make.run(), cells))["small"]
    for key in ("psnr", "latency", "speedup", "evaluations_small"):
        assert (row[key].outcome, row[key].n) == ("failed", 5)
        assert row[key].footnote == "1 of 6 videos failed: CUDA out of memory"


def test_missing_cells_methods_and_scores(make: Any) -> None:
    cells = [c for c in make.cells() if (c.method, c.prompt_index) != ("small", 2)]
    run = make.run(methods=make.named("small", "pab", pab="PAB"))
    table = by_method(rows(run, replaced(cells, "srd_0.01", 0, 0, scores=())))
    assert table["small"]["psnr"].reason == "2 of 6 videos lack it: the run has no record of it"
    assert (table["pab"].label, table["pab"]["psnr"].value) == ("PAB", None)
    assert table["pab"]["speedup"].outcome == "missing"
    assert table["srd_0.01"]["psnr"].reason == "1 of 6 videos lack it: no score recorded"
    assert table["srd_0.01"]["latency"].outcome == "done"


def test_failed_reference_leaves_fewer_pairs(make: Any) -> None:
    cells = replaced(make.cells(), "large", 0, 0, outcome="failed", reason="x")
    speedup = by_method(rows(make.run(), cells))["small"]["speedup"]
    assert (speedup.n, speedup.outcome) == (5, "missing")
    assert "1 of 6 lack the reference's latency" in speedup.reason


def test_without_reference_there_is_no_speedup(make: Any) -> None:
    cells = [c for c in make.cells() if not c.is_reference]
    row = by_method(rows(make.run(methods=()), cells))["small"]
    assert (row["speedup"].value, row["speedup"].reason) == (None, "no reference in this run")
    assert row["latency"].value is not None


def test_one_prompt_has_a_number_and_one_reason(make: Any) -> None:
    psnr = by_method(rows(make.run(), make.cells(prompts=1)))["srd_0.01"]["psnr"]
    assert shown(psnr, 2) == "24.05"
    assert (psnr.low, psnr.footnote, psnr.best) == (None, "", False)
    assert "one prompt" in psnr.no_error


def test_intervals_are_t(make: Any) -> None:
    psnr = by_method(rows(make.run(), make.cells()))["srd_0.01"]["psnr"]
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975; 2) by any table
    assert (psnr.low, psnr.high) == pytest.approx((25.05 - half, 25.05 + half))


@pytest.mark.parametrize("facts", [dict(lower_bound=0.0, upper_bound=1.0), dict(upper_bound=1.0), dict()])
def test_no_interval_leaves_what_there_can_be(make: Any, facts: dict[str, float]) -> None:
    """A dimension near its end, at most prompts at it: t reaches past 1, and the group's past 100 %."""
    metric = make.dimension("shapes/color", "semantic", **facts)
    cells = []
    for cell in make.cells(12, 1):
        value = {"large": 1.0, "small": 0.0}.get(cell.method, 0.5)
        value = abs(value - 0.2) if cell.prompt_index == 5 else value
        cells.append(cell.model_copy(update={"scores": (make.scored(metric, value, ()),)}))
    made = make_tables(make.run(prompts=tuple("abcdefghijkl"), seeds=(0,)), cells)
    high, low = (next(r for r in made.main if r.method == m)["shapes/semantic"] for m in ("large", "small"))
    assert high.value is not None and high.high == 100.0 and high.low < high.value
    assert low.value is not None and low.low == 0.0 and low.high > low.value
    own = by_method(made.dimensions)["large"]["shapes/color"]
    assert (own.high == 1.0) == ("upper_bound" in facts)
    delta = by_method(made.main)["small"]["shapes/semantic_difference"]
    assert delta.low >= -100.0


def test_best_is_the_best_and_all_that_cannot_be_told_from_it(make: Any) -> None:
    noise = [0.3, -0.4, 0.2, -0.3]
    cells = make.cells(4)
    for p in range(4):
        for s in range(2):
            scores = make.scores(24.0 + p + 0.1 * s + noise[p])
            cells.append(make.cell("srd_0.02", p, s, switch=12, scores=scores))
    table = by_method(rows(make.run(), cells))
    assert {m for m, r in table.items() if r["psnr"].best} == {"srd_0.01", "srd_0.02"}
    assert {m for m, r in table.items() if r["lpips/alex-spatial"].best} == {"srd_0.01"}  # lower is better
    assert {m for m, r in table.items() if r["speedup"].best} == {"small"}
    assert not any(v.best for v in table["large"].values), "the reference takes no part"


def test_a_timing_pass_marks_no_best_of_its_times(make: Any) -> None:
    """Times that differ by chance alone: ± is that of three rounds, too few to tell a best by."""
    run, cells, rng = make.run(), make.cells(prompts=12), random.Random(0)
    first = {c.method_id: c for c in reversed(cells)}.values()
    walks = tuple(
        c.model_copy(update={"step_seconds": tuple(rng.gauss(1, 0.05) for _ in c.trace.steps), "stages": ()})
        for c in [*first] * 3
    )
    about: dict[str, Any] = dict(protocol=run.protocol, device="d", began="now", asked=3, rounds=3)
    alone = TimingPass(**about, busy=None, others_bytes=None, walks=walks)
    table = by_method(rows(run.model_copy(update={"passes": (alone,), "timing": "exclusive"}), cells))
    assert table["small"]["speedup"].value == pytest.approx(1, abs=0.02)
    assert 0 < table["small"]["speedup"].standard_error < 0.02
    assert not any(r[column].best for r in table.values() for column in ("latency", "speedup"))
    assert "no best is marked" in table["small"]["latency"].column.note
    assert any(r["psnr"].best for r in table.values())


def test_nobody_is_marked_who_is_worse_than_somebody_who_is_not(make: Any) -> None:
    """One varies so much that its 95 % interval reaches the best; srd_0.01 is a sure 1 dB behind it."""
    cells = make.cells(4)
    levels = {"small": [5.0, 40.0, 22.0, 20.0], "srd_0.01": [29.0, 29.1, 28.9, 29.0], "srd_0.02": [30.0] * 4}
    cells += [make.cell("srd_0.02", p, s, switch=12) for p in range(4) for s in range(2)]
    scored = [
        c.model_copy(update={"scores": make.scores(levels[c.method][c.prompt_index])})
        if c.method in levels
        else c
        for c in cells
    ]
    table = by_method(rows(make.run(), scored))
    assert table["small"]["psnr"].value < table["srd_0.01"]["psnr"].value
    assert {m for m, r in table.items() if r["psnr"].best} == {"srd_0.02"}


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.booleans()), min_size=1, max_size=12),
    st.booleans(),
)
def test_marks_are_the_best_and_go_down_without_a_gap(rivals: list[tuple[float, bool]], higher: bool) -> None:
    merits = {i: merit for i, (merit, _) in enumerate(rivals)}
    best = (max if higher else min)(merits, key=merits.__getitem__)
    alike = {best, *(i for i, (_, is_alike) in enumerate(rivals) if is_alike)}
    marked = best_of(merits, alike, higher)
    assert best in marked <= alike
    for i in marked:
        others = [merits[j] for j in merits if j not in marked]
        assert all(merits[i] >= o if higher else merits[i] <= o for o in others)
    gap = [i for i in alike - marked if all(j in alike for j in merits if (merits[j] > merits[i]) == higher)]
    assert all(any(merits[j] == merits[i] for j in merits.keys() - alike) for i in gap)


def test_nothing_is_best_of_three_prompts(make: Any) -> None:
    table = rows(make.run(), make.cells(3))
    assert not any(v.best for row in table for v in row.values)


def test_scale_rows_come_last_and_compete_for_nothing(make: Any) -> None:
    cells = [
        make.cell("bf16", p, s, scores=make.scores(60.0 + p), protocol="another", path=[{}])
        for p in range(3)
        for s in range(2)
    ]
    named = make.named("large", "small", "srd_0.01", "bf16")
    named = (*named[:3], named[3].model_copy(update={"role": "scale"}))
    table = rows(make.run(methods=named), [*make.cells(), *cells])
    last = table[-1]
    assert (last.method, last.role) == ("bf16", "scale")
    assert last["psnr"].value == pytest.approx(61)
    assert (last["psnr"].protocol, table[1]["psnr"].protocol) == ("another", "p" * 64)
    assert not any(v.best for v in last.values)
    assert shown(last["latency"], 1) == "–" and last["latency"].footnote == ""


def test_digits_are_those_of_the_rows_that_compete(make: Any) -> None:
    cells = [make.cell("exact", p, 0, scores=make.scores(60 + p * 1e-5), path=[{}]) for p in range(3)]
    named = make.named("large", "small", "srd_0.01", "exact")
    named = (*named[:3], named[3].model_copy(update={"role": "scale"}))
    psnr = next(
        c
        for c in columns(rows(make.run(methods=named), [*make.cells(seeds=1), *cells]))
        if c.keys == ("psnr",)
    )
    assert psnr.texts[2:] == ("25.00 ±0.58", "60.00 ±<0.01")


def test_peak_memory_is_the_most_of_any_video(make: Any) -> None:
    cells = [c.model_copy(update={"peak_memory_bytes": (10 + c.prompt_index) * 2**30}) for c in make.cells()]
    memory = rows(make.run(), cells)[1]["peak_memory"]
    assert (memory.value, memory.column.marked_unit) == (12.0, "GiB")
    missing = rows(make.run(), make.cells())[1]["peak_memory"]
    assert (missing.value, missing.outcome) == (None, "missing")


def test_cells_that_never_switch_are_counted(make: Any) -> None:
    cells = replaced(make.cells(), "srd_0.01", 0, 0, trace=make.trace(50))
    switch = by_method(rows(make.run(), cells))["srd_0.01"]["switch_step"]
    assert (switch.n, switch.footnote, switch.outcome) == (5, "1 of 6 videos never switched", "done")


def test_equal_paths_are_one_row(make: Any) -> None:
    cells = make.cells()
    cells += [
        c.model_copy(update={"method": "again", "label": "again"}) for c in cells if c.method == "small"
    ]
    table = rows(make.run(), cells)
    assert [r.label for r in table] == ["large", "small = again", "srd_0.01"]
    assert table[1]["psnr"].n == 6


def test_two_protocols_in_one_column_are_refused(make: Any) -> None:
    cells = replaced(make.cells(), "small", 1, 0, protocol="q" * 64)
    with pytest.raises(UserError, match="2 protocols") as error:
        rows(make.run(), cells)
    assert "pppppppppppp (small, srd_0.01)" in error.value.got  # the reference has no score
    assert "qqqqqqqqqqqq (small)" in error.value.got


def test_two_definitions_of_a_metric_are_refused(make: Any) -> None:
    newer = make.scores(20.0)[0].model_copy(update={"metric": make.psnr.model_copy(update={"version": 2})})
    with pytest.raises(UserError, match="versions 1 and 2"):
        rows(make.run(), replaced(make.cells(), "small", 1, 0, scores=(newer,)))


def test_two_references_and_no_cells_are_refused(make: Any) -> None:
    with pytest.raises(UserError, match="one reference"):
        rows(make.run(), replaced(make.cells(), "small", 1, 0, is_reference=True))
    with pytest.raises(UserError, match="no cells"):
        rows(make.run(), [])


def test_other_models_have_their_own_count(make: Any) -> None:
    cells = make.cells()
    trace = make.trace(50)
    steps = tuple(
        type(s)(s.index, s.timestep, s.next_timestep, s.sigma, "low", "low", None, 1, 1) for s in trace.steps
    )
    cells = replaced(cells, "small", 0, 0, trace=type(trace)(steps))
    row = by_method(rows(make.run(), cells))["small"]
    assert row["evaluations_low"].value == pytest.approx(50 / 2 / 3)
    assert row["evaluations_reused"].value == pytest.approx(50 / 2 / 3)


def test_what_pab_reuses_inside_an_evaluation_is_a_share_of_all_its_modules(make: Any) -> None:
    """30 attention modules, two calls a step: attached after 10 of 50 steps, every other step reused."""

    def trace(begin: int) -> Any:
        steps = make.trace(50).steps
        reused = [30 * 2 * (i % 2) if i >= 10 else 0 for i in range(50)]
        counts = [(60 - r, r) if i >= begin else (0, 0) for i, r in enumerate(reused)]
        return type(make.trace())(
            tuple(
                replace(s, modules_computed=c, modules_reused=r)
                for s, (c, r) in zip(steps, counts, strict=True)
            )
        )

    cells = make.cells()
    for p in range(3):
        cells = replaced(cells, "srd_0.01", p, 0, trace=trace(begin=0))
        cells = replaced(cells, "srd_0.01", p, 1, trace=trace(begin=10))  # shared the first ten steps
    table = by_method(rows(make.run(), cells))
    assert table["srd_0.01"]["modules_reused"].value == pytest.approx(100 * 20 / 50)
    assert table["srd_0.01"]["modules_reused"].standard_error == 0
    assert table["srd_0.01"]["evaluations_reused"].value == 0, "every evaluation was begun"
    assert table["small"]["modules_reused"].word == "–"
    assert "no accelerator that acts inside" in table["small"]["modules_reused"].reason


def test_a_speedups_error_knows_that_the_machine_was_not_always_as_fast(make: Any) -> None:
    """All videos of a method have as many steps; on odd prompts a large step took twice as long."""
    steady, cells = make.cells(prompts=6), make.cells(prompts=6)
    for p in range(1, 6, 2):
        for s in range(2):
            cells = replaced(cells, "large", p, s, step_seconds=(32.0,) * 50)
    before, after = (by_method(rows(make.run(), of))["small"]["speedup"] for of in (steady, cells))
    assert before.standard_error == pytest.approx(0, abs=1e-12)
    assert after.standard_error > 0.1 * after.value
    assert math.log(after.high / after.value) == pytest.approx(math.log(after.value / after.low))
    assert by_method(rows(make.run(), cells))["large"]["speedup"].standard_error == pytest.approx(
        0, abs=1e-12
    )


def test_same_stem_twice_gets_full_names(make: Any) -> None:
    other = make.ssim.model_copy(update={"name": "ssim/uniform7"})
    scores = make.scores(20.0)
    two = (*scores, scores[1].model_copy(update={"metric": other}))
    table = rows(make.run(), replaced(make.cells(), "small", 0, 0, scores=two))
    titles = {v.column.title for v in table[0].values}
    assert {"ssim/gauss11-valid ↑", "ssim/uniform7 ↑"} <= titles


def test_exclusive_timing_is_not_an_estimate(make: Any) -> None:
    exclusive = make.run(timing="exclusive")
    assert rows(exclusive, make.cells())[0]["latency"].column.title == "latency ↓ s"
    assert rows(make.run(), make.cells())[0]["latency"].column.title == "latency ↓ s est."


def test_no_error_above_zero_prints_as_zero(make: Any) -> None:
    cells = make.cells()
    for p in range(3):
        for s in range(2):
            scores = make.scores(20 + p * 1e-4)
            cells = replaced(cells, "small", p, s, scores=scores)
    values = [r["psnr"] for r in rows(make.run(), cells)]
    assert shown(values[1], decimals(values)).endswith("±0.00006")
