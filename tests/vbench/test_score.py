"""The final score: the paper's own tables come out of it, and it refuses what is not whole."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from srbench.errors import UserError
from srbench.suites import vbench as suite
from srbench.vbench import score
from srbench.vbench.score import DIMENSIONS, final

HERE = Path(__file__).parent


def published() -> dict[str, dict[str, float]]:
    """Columns of the paper's Tables 6 and 7 (SRDiffusion), by family and method."""
    found: dict[str, dict[str, float]] = {}
    for name in ("table6.csv", "table7.csv"):
        for line in csv.DictReader((HERE / name).read_text("utf-8").splitlines()):
            if line["value"]:
                column = found.setdefault(f"{line['family']} {line['method']}", {})
                column[line["quantity"]] = float(line["value"])
    return found


def raws(column: dict[str, float]) -> dict[str, float]:
    """The tables print normalised percentages, dynamic degree times its weight already."""
    return {d: score.raw(d, column[d] / 100) for d in DIMENSIONS}


def test_the_paper_has_23_columns() -> None:
    assert len(published()) == 23


@pytest.mark.parametrize("name", sorted(published()))
def test_the_papers_totals_come_out_of_its_dimensions(name: str) -> None:
    column = published()[name]
    got = final(raws(column))
    for quantity in ("quality", "semantic", "total"):
        assert getattr(got, quantity) == pytest.approx(column[quantity], abs=0.008), quantity


def test_dynamic_degree_counts_half_so_a_perfect_video_has_100() -> None:
    best = {d: facts.high for d, facts in DIMENSIONS.items()}
    assert final(best) == score.Final(100.0, 100.0, 100.0)
    still = final(best | {"dynamic_degree": 0.0})
    assert still.quality == pytest.approx(100 * 6 / 6.5) and still.semantic == 100


def test_nothing_is_clamped() -> None:
    assert score.normalised("motion_smoothness", 0.9999) > 1
    assert score.normalised("subject_consistency", 0.1) < 0


@pytest.mark.parametrize("lacking", ["scene", "temporal_flickering"])
def test_a_total_without_a_dimension_is_refused(lacking: str) -> None:
    whole = {d: 0.5 for d in DIMENSIONS}
    with pytest.raises(UserError, match=lacking):
        final({d: v for d, v in whole.items() if d != lacking})
    with pytest.raises(UserError, match=lacking):
        final(whole | {lacking: math.nan})


def test_as_published_rounds_raw_scores_to_4_decimals() -> None:
    whole = {d: 0.7 for d in DIMENSIONS} | {"motion_smoothness": 0.99004999}
    exact, rounded = final(whole), final(whole, as_published=True)
    # 0.00004999 of motion_smoothness, on its scale, a seventh dimension's share of 6.5
    expected = 100 * 0.00004999 / (0.9975 - 0.706) / 6.5
    assert exact.quality - rounded.quality == pytest.approx(expected)
    assert exact.semantic == rounded.semantic


def test_a_mean_over_frames_is_not_the_mean_over_videos() -> None:
    assert score.aggregate([0.5, 1.0], [10, 30]) == 0.875
    assert score.aggregate([0.5, 1.0], [1, 1]) == 0.75
    assert score.aggregate([0.5, 0.0], [1, 0]) == 0.5  # color: not detected, left out


def test_mlperf_is_the_plain_mean_of_six_raw_scores() -> None:
    six = dict(zip(score.MLPERF, (0.9, 0.95, 0.98, 0.5, 0.2, 0.4), strict=True))
    assert score.mlperf(six | {"color": 1.0}) == pytest.approx(100 * 3.93 / 6)
    with pytest.raises(UserError, match="scene"):
        score.mlperf({d: v for d, v in six.items() if d != "scene"})


def test_the_suite_and_the_score_know_the_same_dimensions() -> None:
    assert tuple(DIMENSIONS) == suite.DIMENSIONS
    assert {facts.weight for d, facts in DIMENSIONS.items() if d != "dynamic_degree"} == {1.0}


def test_the_scales_are_those_of_vbenchs_constant_py() -> None:
    """Read at Vchitect/VBench 7975661; the paper's tables cannot tell, they print normalised values."""
    told = {d: (own.low, own.high) for d, own in DIMENSIONS.items() if (own.low, own.high) != (0, 1)}
    assert told == {
        "subject_consistency": (0.1462, 1.0),
        "background_consistency": (0.2615, 1.0),
        "temporal_flickering": (0.6293, 1.0),
        "motion_smoothness": (0.706, 0.9975),
        "scene": (0.0, 0.8222),
        "appearance_style": (0.0009, 0.2855),
        "temporal_style": (0.0, 0.364),
        "overall_consistency": (0.0, 0.364),
    }
