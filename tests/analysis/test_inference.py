"""What comparisons can tell, against scipy, by hand, and by simulation where that is cheap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from srbench.analysis import bootstrap, inference
from srbench.analysis.inference import Costed, Told

Values = dict[tuple[int, int], float]


def videos(table: np.ndarray) -> Values:
    """(prompts, seeds) → by prompt and seed."""
    return {(g, s): float(table[g, s]) for g in range(table.shape[0]) for s in range(table.shape[1])}


def told(low: float, high: float) -> Told:
    middle = (low + high) / 2
    return Told(middle, (high - low) / 4, low, high, 12, 24)


# words


def test_a_side_is_told_only_where_the_interval_leaves_the_bound_out() -> None:
    assert told(3.1, 3.5).side(3.0) == "holds"
    assert told(2.1, 2.9).side(3.0) == "does not hold"
    assert told(2.9, 3.1).side(3.0) == "cannot be told"
    assert told(2.1, 2.9).side(3.0, above=False) == "holds"
    assert inference.untold("no reason").side() == "cannot be told"


def test_p_is_scipys_and_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(20, 3, (9, 2)), rng.normal(18, 3, (9, 2))
    got = inference.difference(videos(a), videos(b))
    test = stats.ttest_rel(a.mean(1), b.mean(1))
    assert got.p() == pytest.approx(test.pvalue)
    assert got.p(got.low or 0.0) == pytest.approx(0.05)
    assert (got.clusters, got.n) == (9, 18)


def test_without_any_spread_a_difference_is_certain() -> None:
    sure = Told(3.2, 0.0, 3.2, 3.2, 9, 9)
    assert (sure.p(3.0), sure.p(3.2)) == (0.0, 1.0)


def test_no_common_video_is_a_reason() -> None:
    assert "no video" in inference.difference({(0, 0): 1.0}, {(1, 0): 1.0}).reason


# non-inferiority


SMALL = told(-9.0, -7.0)  # the small model's loss, well resolved


@pytest.mark.parametrize(
    ("method", "word"),
    [(told(-2, 1), "holds"), (told(-7, -5), "does not hold"), (told(-5, -2), "cannot be told")],
)
def test_a_loss_below_the_margin_is_next_to_none(method: Told, word: str) -> None:
    assert inference.non_inferior(method, SMALL, margin=4.0)[0] == word


def test_nothing_is_proved_where_the_small_model_passes_too() -> None:
    small = told(-0.2, -0.1)
    word, reason = inference.non_inferior(told(-0.1, 0.1), small, margin=0.3)
    assert word == "cannot be told" and "passes too" in reason


def test_nothing_is_proved_where_no_loss_could_be_seen() -> None:
    word, reason = inference.non_inferior(told(-0.1, 0.1), told(-3, 0.5), margin=5.0)
    assert word == "cannot be told" and "not resolved" in reason
    assert "one prompt" in inference.insensitive(inference.untold("one prompt only"), 1.0)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 2))
def test_half_the_lead_kept_is_a_loss_below_half_the_lead(seed: int, share: float) -> None:
    """The two ways of saying it give one word, since large scores above small in every draw."""
    rng = np.random.default_rng(seed)
    large, small = 90 + rng.normal(size=500), 75 + rng.normal(size=500)
    method = small + share * (large - small) + rng.normal(size=500)
    kept = inference.retained_gap((75 + 15 * share, method), (90.0, large), (75.0, small), prompts=12, n=24)
    loss = inference.of_draws(15 * (share - 0.5), method - (large + small) / 2, 12, 24)
    assert kept.estimate == pytest.approx(share)
    assert kept.side(0.5) == loss.side(0.0)


def test_no_lead_no_share() -> None:
    same = (80.0, np.full(100, 80.0))
    assert "the same" in inference.retained_gap(same, same, same, 12, 24).reason
    few = inference.retained_gap((85.0, None), (90.0, None), (80.0, None), 5, 10)
    assert few.estimate == 0.5 and few.low is None and "fewer than 8" in few.reason


# equal cost


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_a_method_on_the_line_gains_nothing(seed: int, slope: float) -> None:
    """Score = prompt's own + slope · cost for all three: paying more where it pays is no gain."""
    rng = np.random.default_rng(seed)
    own = rng.normal(25, 3, (10, 1))
    cost = rng.uniform(7.5, 13, (10, 3))
    low, high = np.full((10, 3), 7.0), np.full((10, 3), 14.0)
    made = [Costed(videos(own + slope * c), videos(c)) for c in (cost, low, high)]
    got = inference.at_equal_cost(*made)
    assert got.estimate == pytest.approx(0, abs=1e-9)
    assert got.standard_error == pytest.approx(0, abs=1e-9)


def test_equal_cost_by_hand() -> None:
    # costs 8 and 10, mean 9: two thirds of the way from 7 to 10. Lines 20, 26 → 24 at 9; scores 25, 27
    method = Costed({(0, 0): 25.0, (1, 0): 27.0}, {(0, 0): 8.0, (1, 0): 10.0})
    below = Costed({(0, 0): 20.0, (1, 0): 20.0}, {(0, 0): 7.0, (1, 0): 7.0})
    above = Costed({(0, 0): 26.0, (1, 0): 26.0}, {(0, 0): 10.0, (1, 0): 10.0})
    got = inference.at_equal_cost(method, below, above)
    assert got.estimate == pytest.approx(2.0)
    # with the slope of 2 put in, prompt by prompt: 25 − 22, 27 − 26 → 3, 1: sd √2, SE 1
    assert got.standard_error == pytest.approx(1.0)


def test_a_cost_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="not in"):
        inference.between(15, 7, 14)
    assert inference.between(7, 7, 7) == 0.0


def test_its_interval_covers_though_the_costs_are_random_too() -> None:
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(300):
        hard = rng.normal(size=(9, 1))
        cost = 10 + 1.5 * hard + rng.normal(size=(9, 2))
        score = 25.5 + 0.4 * (cost - 10) + hard + 0.3 * rng.normal(size=(9, 2))
        low, high = (25 + 0.4 * (k - 10) + hard + 0.3 * rng.normal(size=(9, 2)) for k in (7, 14))
        ends = [np.full((9, 2), float(k)) for k in (7, 14)]
        made = (Costed(videos(s), videos(c)) for s, c in ((score, cost), (low, ends[0]), (high, ends[1])))
        got = inference.at_equal_cost(*made)
        inside += got.low <= 0.5 <= got.high  # type: ignore[operator]
    assert 0.92 <= inside / 300 <= 0.98


# spread and order


def test_variances_are_numpys_and_scale() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(20, 2, (12, 3)), rng.normal(22, 3, (12, 3))
    got = inference.log_variance_ratio(videos(a), videos(b))
    assert got.estimate == pytest.approx(math.log(a.var(ddof=1) / b.var(ddof=1)))
    twice = inference.log_variance_ratio(videos(2 * a), videos(a))
    assert (twice.low, twice.high) == (pytest.approx(math.log(4)), pytest.approx(math.log(4)))


def test_variances_of_two_families_are_drawn_apart() -> None:
    a = np.random.default_rng(6).normal(size=(10, 2))
    alone = inference.log_variance_ratio(videos(a), videos(a), paired=False)
    assert alone.estimate == 0 and alone.low is not None and alone.low < 0


def test_variance_says_why_not() -> None:
    flat = videos(np.ones((9, 2)))
    assert "the same" in inference.log_variance_ratio(flat, flat).reason
    few = np.random.default_rng(7).normal(size=(7, 2))
    assert inference.log_variance_ratio(videos(few), videos(2 * few)).reason == bootstrap.TOO_FEW
    assert "two videos" in inference.log_variance_ratio({}, {}).reason


@pytest.mark.parametrize("digits", [0, 6])
def test_rank_correlation_is_scipys_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(10, 2, (9, 3)).round(digits)
    y = (-x + rng.normal(0, 2, (9, 3))).round(digits)
    got = inference.rank_correlation(videos(x), videos(y))
    assert got.estimate == pytest.approx(stats.spearmanr(x.ravel(), y.ravel()).statistic)
    assert got.low is not None and got.low < (got.estimate or 0) < (got.high or 0)


def test_a_draw_has_the_rank_correlation_of_its_own_videos() -> None:
    """Against scipy on videos that are really there as often as they were drawn."""
    rng = np.random.default_rng(9)
    x, y = rng.integers(0, 6, 20).astype(float), rng.integers(0, 6, 20).astype(float)
    times = rng.integers(0, 3, (4, 20)).astype(float)
    got = inference._correlation(inference._ranker(x), inference._ranker(y), times)
    for value, t in zip(got, times.astype(int), strict=True):
        assert value == pytest.approx(stats.spearmanr(np.repeat(x, t), np.repeat(y, t)).statistic)


def test_rank_correlation_says_why_not() -> None:
    x = videos(np.arange(18.0).reshape(9, 2))
    assert "the same" in inference.rank_correlation(x, dict.fromkeys(x, 1.0)).reason
    assert "three" in inference.rank_correlation({(0, 0): 1.0}, {(0, 0): 1.0}).reason
    few = {k: v for k, v in x.items() if k[0] < 5}
    assert inference.rank_correlation(few, few).reason == bootstrap.TOO_FEW


def test_intervals_of_variances_and_ranks_cover() -> None:
    rng = np.random.default_rng(10)
    inside = np.zeros(2)
    true = -6 / math.pi * math.asin(0.35)  # Spearman's of normals with correlation −0.7
    for _ in range(80):
        own = rng.normal(size=(12, 1))
        a, b = 0.8 * (own + rng.normal(size=(12, 2))), own + rng.normal(size=(12, 2))
        x = (own + rng.normal(size=(12, 2))) / math.sqrt(2)
        y = -0.7 * x + math.sqrt(0.51) * rng.normal(size=(12, 2))
        of = (
            inference.log_variance_ratio(videos(a), videos(b)),
            inference.rank_correlation(videos(x), videos(y)),
        )
        inside += [t.low <= v <= t.high for t, v in zip(of, (2 * math.log(0.8), true), strict=True)]  # type: ignore[operator]
    assert (inside / 80 >= 0.88).all()


# many at once

PS = st.lists(st.none() | st.floats(0, 1), max_size=30)


@given(PS)
def test_holm_only_takes_away_and_keeps_the_order(ps: list[float | None]) -> None:
    got = inference.holm(ps)
    pairs = [(p, q) for p, q in zip(ps, got, strict=True) if p is not None and q is not None]
    assert [q is None for q in got] == [p is None for p in ps]
    assert all(p <= q <= 1 for p, q in pairs)
    assert all(q <= r for (p, q) in pairs for (o, r) in pairs if p < o)


def test_holm_by_hand() -> None:
    assert inference.holm([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.5])


def test_holm_keeps_false_verdicts_below_five_percent() -> None:
    rng = np.random.default_rng(11)
    ps = rng.uniform(size=(2000, 20))
    wrong = sum(min(q for q in inference.holm(row.tolist()) if q is not None) < 0.05 for row in ps)
    assert wrong / 2000 < 0.065
