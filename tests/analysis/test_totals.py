"""Quality, semantic and total by hand, and when there is none."""

from __future__ import annotations

import pytest

from srbench.analysis.statistics import t_quantile
from srbench.analysis.table import make as make_tables
from srbench.analysis.table import shown
from srbench.report.verdicts import verdicts
from srbench.store.records import Score

METHODS = {"large": 0.8, "small": 0.5, "srd_0.01": 0.79}


def records(make, prompts=10, seeds=2, drop=None, suite="shapes"):
    """Sharpness (quality) everywhere; color and relation (semantic), relation at even prompts only."""
    sharp = make.dimension(f"{suite}/sharpness", "quality", scale=(0.0, 2.0), unit="px")
    color = make.dimension(f"{suite}/color", "semantic", weight=3.0)
    relation = make.dimension(f"{suite}/relation", "semantic")
    cells = []
    for cell in make.cells(prompts, seeds):
        level = METHODS[cell.method] + 0.01 * cell.prompt_index + 0.002 * cell.seed
        wiggle = 0.003 * ((cell.prompt_index * 7 + len(cell.method)) % 5)
        scores = [Score(metric=sharp, value=2 * level), Score(metric=color, value=level + wiggle)]
        scores += [Score(metric=relation, value=level - 0.1)] if cell.prompt_index % 2 == 0 else []
        kept = tuple(s for s in scores if (cell.method, s.metric.name) != drop)
        cells.append(cell.model_copy(update={"scores": (*cell.scores, *kept)}))
    small = [{"denoiser": {"model": "small"}}]
    methods = tuple(
        m.model_copy(update={"path": small}) if m.name == "small" else m
        for m in make.named("large", "small", "srd_0.01")
    )
    run = make.run(methods=methods, prompts=tuple(f"prompt {p}" for p in range(prompts)), seeds=(0, 1))
    return run, cells


def by_method(table):
    return {row.method: row for row in table}


def test_numbers_by_hand(make):
    row = by_method(make_tables(*records(make)).main)["large"]
    quality = 80 + 4.5 + 0.1  # prompts add 0.00 … 0.09, seeds 0 and 0.002
    assert row["shapes/quality"].value == pytest.approx(quality)
    wiggle = 100 * sum(0.003 * ((p * 7 + 5) % 5) for p in range(10)) / 10
    semantic = (3 * (quality + wiggle) + (80 + 4 + 0.1 - 10)) / 4  # relation: prompts 0, 2, 4, 6, 8
    assert row["shapes/semantic"].value == pytest.approx(semantic)
    assert row["shapes/total"].value == pytest.approx((4 * quality + semantic) / 5)
    assert (row["shapes/total"].n, row["shapes/total"].clusters) == (20, 10)
    assert row["shapes/quality"].column.unit == "%"


def test_columns_come_first_and_in_order(make):
    table = make_tables(*records(make))
    headings = [v.column.heading for v in table.main[0].values]
    assert headings[:6] == ["quality", "Δ quality", "semantic", "Δ semantic", "total", "Δ total"]
    assert headings[6:9] == ["LPIPS", "PSNR", "SSIM"]
    assert [v.column.heading for v in table.dimensions[0].values] == ["sharpness", "color", "relation"]


def test_differences_are_paired(make):
    """Prompts vary by points, the difference of two methods hardly: its interval must show that."""
    rows = by_method(make_tables(*records(make)).main)
    own, delta = rows["srd_0.01"]["shapes/total"], rows["srd_0.01"]["shapes/total_difference"]
    assert delta.value == pytest.approx(own.value - rows["large"]["shapes/total"].value)
    assert delta.high - delta.low < 0.2 * (own.high - own.low)
    assert delta.low <= delta.value <= delta.high < 0
    assert rows["large"]["shapes/total_difference"].word == "reference"
    assert shown(delta, 1).startswith("−") and "[" in shown(delta, 1)


def test_best_total_leaves_the_reference_out(make):
    rows = by_method(make_tables(*records(make)).main)
    assert {m for m, r in rows.items() if r["shapes/total"].best} == {"srd_0.01"}


def test_few_prompts_have_numbers_without_errors_and_the_reason(make):
    total = by_method(make_tables(*records(make, prompts=7)).main)["srd_0.01"]["shapes/total"]
    assert total.value is not None
    assert (total.standard_error, total.low, total.best) == (None, None, False)
    assert "fewer than 8 prompts" in total.no_error


def test_a_group_that_lacks_a_dimension_is_a_dash_with_the_reason(make):
    rows = by_method(make_tables(*records(make, drop=("small", "shapes/relation"))).main)
    semantic, total = rows["small"]["shapes/semantic"], rows["small"]["shapes/total"]
    assert (shown(semantic, 1), semantic.outcome) == ("–", "missing")
    assert "semantic lacks shapes/relation" in semantic.reason
    assert total.value is None and total.reason.startswith("no total without semantic; ")
    assert rows["small"]["shapes/quality"].value is not None
    assert rows["srd_0.01"]["shapes/total"].value is not None


def test_a_published_suite_is_whole_or_not_at_all(make):
    row = by_method(make_tables(*records(make, suite="vbench")).main)["large"]
    assert row["vbench/quality"].value is None
    assert "vbench/subject_consistency" in row["vbench/quality"].reason


def test_only_vbench_is_called_vbench(make):
    notes = {v.column.key: v.column.note for v in make_tables(*records(make)).main[0].values}
    assert "no VBench score" in notes["shapes/total"]


def test_a_failed_video_is_told_of(make):
    run, cells = records(make)
    i = next(i for i, c in enumerate(cells) if (c.method, c.prompt_index) == ("small", 3))
    cells[i] = cells[i].model_copy(update={"outcome": "failed", "reason": "out of memory", "scores": ()})
    total = by_method(make_tables(run, cells).main)["small"]["shapes/total"]
    assert (total.outcome, total.n) == ("failed", 19)
    assert "1 of 20 videos failed: out of memory" in total.reason


def hard_half_failed(make):
    """Odd prompts are easy; `small` is worse by 2 points on every prompt, but its hard ones failed."""
    quality, semantic = (make.dimension(f"shapes/{g}", g) for g in ("quality", "semantic"))
    cells = []
    for cell in make.cells(16, seeds=1):
        easy = cell.prompt_index % 2 == 1
        level = (0.9 if easy else 0.3) - {"large": 0.0, "small": 0.02, "srd_0.01": 0.01}[cell.method]
        scores = tuple(Score(metric=facts, value=level) for facts in (quality, semantic))
        scores += make.scores(20 * level)
        failed = {"outcome": "failed", "reason": "out of memory", "scores": ()}
        is_lost = cell.method == "small" and not easy
        cells.append(cell.model_copy(update=failed if is_lost else {"scores": scores}))
    run, _ = records(make)
    return run.model_copy(update={"prompts": tuple(f"prompt {p}" for p in range(16)), "seeds": (0,)}), cells


def test_what_failed_makes_no_method_better(make):
    run, cells = hard_half_failed(make)
    rows = by_method(make_tables(run, cells).main)
    delta = rows["small"]["shapes/total_difference"]
    assert (delta.value, delta.low, delta.high) == pytest.approx((-2.0, -2.0, -2.0))
    assert (delta.n, delta.clusters, delta.outcome) == (8, 8, "failed")
    assert "over the 8 videos that both have" in delta.reason
    assert rows["srd_0.01"]["shapes/total_difference"].value == pytest.approx(-1.0)
    for key in ("shapes/quality", "shapes/total", "psnr"):
        assert rows["small"][key].value > rows["srd_0.01"][key].value, "the easy ones are left"
        assert {m for m, r in rows.items() if r[key].best} == {"srd_0.01"}, key


@pytest.mark.parametrize(("left", "has_error"), [(9, True), (5, False)])
def test_an_error_is_that_of_the_methods_own_prompts(make, left, has_error):
    """Of t with one degree of freedom less than prompts with a score, not than prompts of the run."""
    run, cells = records(make, prompts=20)
    failed = {"outcome": "failed", "reason": "out of memory", "scores": ()}
    cells = [
        c.model_copy(update=failed) if c.method == "small" and c.prompt_index >= left else c for c in cells
    ]
    for key in ("shapes/quality", "shapes/total"):
        value = by_method(make_tables(run, cells).main)["small"][key]
        assert value.clusters == left
        assert (value.standard_error is not None) == has_error
        if has_error:
            assert (value.high - value.low) / 2 >= t_quantile(left) * value.standard_error * (1 - 1e-9)
        else:
            assert "fewer than 8 prompts" in value.no_error


def test_no_difference_where_no_video_is_shared(make):
    run, cells = hard_half_failed(make)
    lost = {"outcome": "failed", "reason": "out of memory", "scores": ()}
    cells = [c.model_copy(update=lost) if c.method == "large" and c.prompt_index % 2 else c for c in cells]
    delta = by_method(make_tables(run, cells).main)["small"]["shapes/total_difference"]
    assert (delta.value, delta.n) == (None, 0)
    assert "over the 0 videos that both have" in delta.reason


def test_a_dimension_applies_where_any_method_has_it(make):
    rows = by_method(make_tables(*records(make)).dimensions)
    relation = rows["small"]["shapes/relation"]
    assert (relation.n, relation.clusters, relation.outcome) == (10, 5, "done")
    assert relation.value == pytest.approx(0.5 + 0.04 + 0.001 - 0.1)


def test_without_dimensions_there_are_no_totals(make):
    tables = make_tables(make.run(), make.cells())
    assert not any(v.column.kind in ("total", "difference") for v in tables.main[0].values)
    assert all(row.values == () for row in tables.dimensions)


def test_verdict_names_who_keeps_the_total(make):
    run, cells = records(make)
    said = " ".join(verdicts(run, cells, make_tables(run, cells).main))
    assert "not worse than large's by 15.0 points (half the large–small gap): srd_0.01" in said
    assert "By 0.3 points: none" in said


def test_without_a_gap_nothing_can_be_told(make, monkeypatch):
    monkeypatch.setitem(METHODS, "small", 0.8)
    run, cells = records(make)
    said = " ".join(verdicts(run, cells, make_tables(run, cells).main))
    assert "large and small can't be told apart" in said
