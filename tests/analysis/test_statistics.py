"""Against hand-calculated values and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from srbench.analysis.statistics import clustered_mean, paired_difference, ratio_of_means

numbers = st.floats(-1e6, 1e6)
observed = st.lists(st.tuples(numbers, st.integers(0, 4)), min_size=1, max_size=20)


def test_mean_by_hand() -> None:
    # prompt means 2, 5, 11: mean 6, sd √((16 + 1 + 25)/2) = √21, SE √7
    got = clustered_mean([1, 3, 5, 10, 12], ["a", "a", "b", "c", "c"])
    assert (got.mean, got.n, got.clusters, got.reason) == (6.0, 5, 3, "")
    assert got.standard_error == pytest.approx(math.sqrt(7), abs=1e-12)


def test_mean_against_scipy() -> None:
    values = np.random.default_rng(0).normal(20, 3, 12)
    got = clustered_mean(list(values), range(12))
    assert got.mean == pytest.approx(values.mean())
    assert got.standard_error == pytest.approx(stats.sem(values))


@pytest.mark.parametrize("values", [[3.0], [3.0, 4.0]])
def test_one_prompt_has_no_error_but_a_reason(values: list[float]) -> None:
    for got in (
        clustered_mean(values, [7] * len(values)),
        ratio_of_means(values, values, [7] * len(values)),
        paired_difference(values, values, [7] * len(values)).estimate,
    ):
        assert got.mean is not None
        assert got.standard_error is None
        assert "one prompt" in got.reason


def test_nothing_has_no_mean() -> None:
    assert clustered_mean([], []).mean is None
    assert ratio_of_means([], [], []).mean is None
    assert paired_difference([], [], []).low is None


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values but 1"):
        clustered_mean([1, 2], [0])
    with pytest.raises(ValueError, match="2 values but 1"):
        paired_difference([1], [1, 2], [0])
    with pytest.raises(ValueError, match="finite"):
        clustered_mean([1, math.inf], [0, 1])


def test_paired_difference_is_scipys_paired_t_on_prompt_means() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(20, 3, (6, 4)), rng.normal(19, 3, (6, 4))
    clusters = np.repeat(np.arange(6), 4).tolist()
    got = paired_difference(a.ravel().tolist(), b.ravel().tolist(), clusters)
    expected = stats.ttest_rel(a.mean(1), b.mean(1)).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
    assert got.estimate.mean == pytest.approx((a - b).mean())


def test_ratio_by_hand_and_by_covariances() -> None:
    # n = 8, 12; d = 4, 4: R = 2.5, residuals −2, 2, s² = 8, SE = √(8/2)/4 = 0.5
    got = ratio_of_means([8, 12], [4, 4], [0, 1])
    assert (got.mean, got.standard_error) == (2.5, 0.5)
    rng = np.random.default_rng(2)
    n, d = rng.normal(800, 40, 9), rng.normal(300, 20, 9)
    got = ratio_of_means(list(n), list(d), range(9))
    s, r = np.cov(n, d), n.mean() / d.mean()
    variance = (s[0, 0] + r**2 * s[1, 1] - 2 * r * s[0, 1]) / (9 * d.mean() ** 2)
    assert got.mean == pytest.approx(r)
    assert got.standard_error == pytest.approx(math.sqrt(variance))


def test_ratios_error_is_the_spread_seen_over_many_draws() -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal((800, 300), (40, 20), (2000, 20, 2))
    ratios = draws[..., 0].mean(1) / draws[..., 1].mean(1)
    told = [ratio_of_means(x[:, 0], x[:, 1], range(20)).standard_error for x in draws[:300]]
    assert np.mean(told) == pytest.approx(ratios.std(), rel=0.06)


def test_ratio_over_zero_is_no_number() -> None:
    got = ratio_of_means([1, 2], [0, 0], [0, 1])
    assert got.mean is None
    assert "0" in got.reason


@settings(max_examples=50)
@given(numbers, st.lists(st.integers(0, 4), min_size=2, max_size=20))
def test_equal_values_have_no_spread(value: float, clusters: list[int]) -> None:
    got = clustered_mean([value] * len(clusters), clusters)
    assert got.mean == value
    assert got.standard_error == (0.0 if len(set(clusters)) > 1 else None)


@settings(max_examples=50)
@given(observed, st.randoms())
def test_order_changes_nothing(pairs: list[tuple[float, int]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(pairs, len(pairs))
    before = clustered_mean(*map(list, zip(*pairs, strict=True)))
    assert clustered_mean(*map(list, zip(*shuffled, strict=True))) == before


@settings(max_examples=50)
@given(observed)
def test_swapping_the_pair_mirrors_the_interval(pairs: list[tuple[float, int]]) -> None:
    a, clusters = map(list, zip(*pairs, strict=True))
    b = a[::-1]
    one, other = paired_difference(a, b, clusters), paired_difference(b, a, clusters)
    assert one.estimate.mean == pytest.approx(-other.estimate.mean, abs=1e-6)
    if one.low is not None:
        assert one.low <= one.estimate.mean <= one.high
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0.1, 1e4), st.integers(0, 4)), min_size=2, max_size=20))
def test_ratio_of_a_quantity_to_itself_is_one(pairs: list[tuple[float, int]]) -> None:
    values, clusters = map(list, zip(*pairs, strict=True))
    got = ratio_of_means(values, values, clusters)
    assert got.mean == 1.0
    assert got.standard_error == (0.0 if len(set(clusters)) > 1 else None)
