"""How many prompts and seeds a difference takes: against scipy, and against runs that are drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from srbench.analysis import bootstrap, paired, statistics, table
from srbench.cli import power as command
from srbench.cli.power import Components, components, needed
from srbench.errors import UserError
from srbench.store.records import Score


def drawn(rng, prompts, seeds, between, within, difference=0.0, skewed=False):
    """Differences x_gs = difference + b_g + w_gs with these standard deviations, (prompts, seeds)."""
    normal = (rng.exponential(1, prompts) - 1) if skewed else rng.normal(0, 1, prompts)
    return difference + between * normal[:, None] + rng.normal(0, within, (prompts, seeds))


def clusters(prompts, seeds):
    return np.repeat(np.arange(prompts), seeds).tolist()


@pytest.mark.parametrize("prompts", [2, 4, 8, 72, 944])
@pytest.mark.parametrize("size", [0.0, 0.5, 2.0, 2.8])
def test_power_is_that_of_the_noncentral_t(prompts, size):
    t = stats.t.ppf(0.975, prompts - 1)
    expected = stats.nct.sf(t, prompts - 1, size) + stats.nct.cdf(-t, prompts - 1, size)
    assert statistics.power(2 * size, 2.0, prompts) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("prompts", [3, 8, 72])
def test_a_detectable_difference_is_found_as_often_as_was_wanted(prompts):
    least = statistics.detectable(0.7, prompts, wanted=0.9)
    assert statistics.power(least, 0.7, prompts) == pytest.approx(0.9, abs=1e-9)
    bloom = (stats.t.ppf(0.975, prompts - 1) + stats.t.ppf(0.9, prompts - 1)) * 0.7
    assert least == pytest.approx(bloom, rel={3: 0.15, 8: 0.01, 72: 0.001}[prompts])


@pytest.mark.parametrize(("prompts", "seeds"), [(8, 5), (24, 2), (60, 1)])
@pytest.mark.parametrize("skewed", [False, True])
def test_told_power_is_how_often_the_reports_own_test_finds_the_difference(prompts, seeds, skewed):
    rng, found, runs = np.random.default_rng(prompts), 0, 1500
    truth = Components(between=1.0, within=4.0, prompts=99, videos=999)
    difference = 2.5 * truth.standard_error(prompts, seeds)
    for _ in range(runs):
        data = drawn(rng, prompts, seeds, 1.0, 2.0, difference, skewed)
        own = statistics.paired_difference(data.ravel().tolist(), [0.0] * data.size, clusters(prompts, seeds))
        found += not own.low <= 0 <= own.high
    told = statistics.power(difference, truth.standard_error(prompts, seeds), prompts)
    less = {8: 0.08, 24: 0.03, 60: 0.01}[prompts]  # as power() says of an interval
    assert told - less - 0.03 <= found / runs <= told + 0.03


def test_components_are_right_on_average_also_with_videos_lacking():
    rng, found = np.random.default_rng(0), []
    which = np.array(clusters(20, 3))
    for _ in range(600):
        data = drawn(rng, 20, 3, 1.5, 2.0).ravel()
        kept = rng.random(60) > 0.2
        kept[::3] = True  # no prompt is lost whole
        own = components(data[kept].tolist(), which[kept].tolist())
        found.append((own.between, own.within))
    between, within = np.mean(found, axis=0)
    assert between == pytest.approx(1.5**2, rel=0.06)
    assert within == pytest.approx(2.0**2, rel=0.04)


def test_standard_error_of_the_runs_own_size_is_the_reports():
    data = drawn(np.random.default_rng(1), 12, 4, 2.0, 1.0)
    own = components(data.ravel().tolist(), clusters(12, 4))
    told = statistics.clustered_mean(data.ravel().tolist(), clusters(12, 4))
    assert own.standard_error(12, 4) == pytest.approx(told.standard_error)


def test_seeds_cannot_stand_in_for_prompts():
    only_prompts = Components(between=1.0, within=0.0, prompts=9, videos=18)
    assert needed(only_prompts, 0.5, 1, 0.8) == needed(only_prompts, 0.5, 100, 0.8)
    only_seeds = Components(between=0.0, within=1.0, prompts=9, videos=18)
    assert needed(only_seeds, 0.5, 4, 0.8) < needed(only_seeds, 0.5, 1, 0.8)


def test_needed_prompts_are_the_fewest():
    found = Components(between=1.0, within=2.0, prompts=9, videos=18)
    many = needed(found, 0.7, 2, 0.8)
    assert statistics.power(0.7, found.standard_error(many, 2), many) >= 0.8
    assert statistics.power(0.7, found.standard_error(many - 1, 2), many - 1) < 0.8
    assert needed(found, 1e-9, 2, 0.8) is None


def test_what_varies_between_strata_is_no_error():
    """Each of VBench's dimensions has prompts of its own, and every run has them all."""
    strata = ["a"] * 20 + ["b"] * 20
    values = [0.1 * (i % 5) + 10 * (i >= 20) for i in range(40)]
    plain, inside = (components(2 * values, 2 * list(range(40)), s) for s in ([], 2 * strata))
    assert plain.between > 20 > 0.1 > inside.between > 0


# From a run's records


def scored(make, prompts=24, seeds=3):
    """Color of every prompt, relation of every other; srd a little below large, by prompt."""
    rng = np.random.default_rng(5)
    ease = dict(enumerate(rng.normal(0, 0.06, prompts)))
    sharp, color = make.dimension("shapes/sharp", "quality"), make.dimension("shapes/color", "semantic")
    relation = make.dimension("shapes/relation", "semantic", weight=0.5)
    cells = []
    for cell in make.cells(prompts, seeds):
        near = {"large": 0.8, "srd_0.01": 0.77 + ease[cell.prompt_index], "small": 0.5}[cell.method]
        own = [sharp, color, *([relation] if cell.prompt_index % 2 else [])]
        scores = [Score(metric=d, value=near + 0.05 * rng.normal()) for d in own]
        cells.append(cell.model_copy(update={"scores": (*cell.scores, *scores)}))
    run = make.run(prompts=tuple(f"prompt {p}" for p in range(prompts)), seeds=tuple(range(seeds)))
    return run, cells


@pytest.mark.parametrize("name", ["total", "semantic"])
def test_a_totals_error_is_near_the_bootstraps(make, name):
    run, cells = scored(make)
    of = paired.bench(run, cells)
    large, _, srd = (paired.find_method(m, of.methods) for m in ("large", "small", "srd_0.01"))
    own = paired.paired(of, srd, large, f"shapes/{name}")
    rows = {row.method: row for row in table.rows(run, cells)}
    told = rows["srd_0.01"][f"shapes/{name}_difference"]
    assert own.difference == pytest.approx(told.value)
    mean = statistics.clustered_mean(own.values, own.clusters)
    assert mean.mean == pytest.approx(told.value)
    error = components(own.values, own.clusters, own.strata).standard_error(24, 3)
    assert error == pytest.approx(told.standard_error, rel=0.08)


@pytest.mark.parametrize("column", ["psnr", "latency", "shapes/relation", "speedup"])
def test_other_columns_are_the_tables_means(make, column):
    run, cells = scored(make)
    of, tables = paired.bench(run, cells), table.make(run, cells)
    values = {
        r.method: next(v.value for v in r.values if v.column.key == column)
        for r in (tables.dimensions if column.startswith("shapes/") else tables.main)
    }
    small, srd = (paired.find_method(m, of.methods) for m in ("small", "srd_0.01"))
    own = paired.paired(of, srd, small, column)
    assert own.difference == pytest.approx(values["srd_0.01"] - values["small"])
    assert np.mean(own.values) == pytest.approx(own.difference)  # equally many seeds everywhere


def test_the_command_prints_grids_and_what_it_takes(make, run_folder, capsys):
    folder = run_folder(*scored(make))
    asked = ["--difference", "1", "--prompts", "4", "24", "--seeds", "1", "3"]
    assert command.main([str(folder), "srd_0.01", *asked]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "shapes/total: srd_0.01 − large" in said
    assert "smallest true difference found 80% of the time, points" in said
    assert "how often a true difference of 1 points is found" in said
    assert "1 points takes" in said
    assert "4 – – 24 " in said and bootstrap.TOO_FEW in said
    of = paired.bench(*scored(make))
    own = command.answer(of, of.methods[2], of.methods[0], "shapes/total").found
    assert f"{statistics.detectable(own.standard_error(24, 3), 24):.3g} how often" in said


def test_similarity_is_compared_with_a_method_that_has_it(make, run_folder, capsys):
    folder = run_folder(*scored(make))
    assert command.main([str(folder), "srd_0.01", "--column", "psnr"]) == 2
    said = capsys.readouterr().err
    assert "psnr of large: what the others are compared with" in said and "--against small\n" in said
    assert command.main([str(folder), "srd_0.01", "--column", "psnr", "--against", "small"]) == 0
    assert "PSNR: srd_0.01 − small" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["srd_0.02"], "did you mean srd_0.01"),
        (["srd_0.01", "--column", "totl"], "did you mean total"),
        (["srd_0.01", "--against", "smal"], "did you mean small"),
        (["srd_0.01", "--column", "peak_memory"], "a mean over videos, not a maximum"),
    ],
)
def test_mistakes(make, run_folder, capsys, arguments, told):
    assert command.main([str(run_folder(*scored(make))), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_run_without_a_total_is_told_the_columns_it_has(make, run_folder, capsys):
    folder = run_folder(make.run(), make.cells())
    assert command.main([str(folder), "srd_0.01", "--difference", "1"]) == 2
    said = capsys.readouterr().err
    assert "given:    a run without a total\n" in said and "metric shapes" in said
    assert "name one, as --column " in said and "psnr" in said.rpartition("known: ")[2]


def test_no_run_one_seed_few_prompts(make, run_folder, tmp_path, capsys):
    assert command.main([str(tmp_path / "nothing"), "small"]) == 2
    assert "a file written by a run" in capsys.readouterr().err
    (tmp_path / "report.html").write_text("")
    assert command.main([str(tmp_path / "report.html"), "small"]) == 2
    assert "name a folder results/<experiment>/<run>" in capsys.readouterr().err
    for size, told in (((9, 1), "one seed of every prompt"), ((3, 2), "3 prompts in common")):
        folder = run_folder(*scored(make, *size))
        assert command.main([str(folder), "small"]) == 2
        assert told in capsys.readouterr().err
        for old in (folder / "cells").iterdir():
            old.unlink()


def test_no_spread_at_all_needs_two_prompts():
    found = components([1.0] * 12, clusters(6, 2))
    assert (found.between, found.within) == (0.0, 0.0)
    assert needed(found, 0.1, 1, 0.8) == 2
    assert statistics.detectable(found.standard_error(8, 1), 8) == 0.0
    assert math.isclose(statistics.power(0.0, 1.0, 9), 0.05, abs_tol=1e-5)


def test_too_few_prompts_by_hand():
    with pytest.raises(UserError, match="3 prompts"):
        components([1.0, 2.0] * 3, clusters(3, 2))
