"""The cluster bootstrap against numbers that are known otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.analysis import bootstrap


def test_draws_keep_to_their_strata_and_small_ones_are_pooled():
    strata = ["a"] * 10 + ["b"] * 8 + ["c"] * 3 + ["d"]
    times = bootstrap.draw(strata, draws=200)
    assert (times[:, :10].sum(1) == 10).all()
    assert (times[:, 10:18].sum(1) == 8).all()
    assert (times[:, 18:].sum(1) == 4).all()
    assert times[:, 21].std() > 0, "a prompt alone in its stratum varies too"


def test_same_strata_same_draws():
    assert np.array_equal(bootstrap.draw("a" * 9, 5), bootstrap.draw("a" * 9, 5))


def test_group_means_by_hand():
    # dimension 0: videos 1, 3 of prompt 0 and 5 of prompt 1, mean 3; dimension 1: 4 of prompt 1 alone
    sums, counts = np.array([[4.0, 5.0], [0.0, 4.0]]), np.array([[2.0, 1.0], [0.0, 1.0]])
    weights = np.array([3.0, 1.0])
    assert bootstrap.group_means(sums, counts, weights) == pytest.approx([(3 * 3 + 4) / 4])
    drawn = bootstrap.group_means(sums, counts, weights, np.array([[0.0, 2.0], [2.0, 0.0]]))
    assert drawn[0] == pytest.approx((3 * 5 + 4) / 4)
    assert np.isnan(drawn[1]), "no video of dimension 1 in this draw"


def test_error_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(0.5, 0.1, (1, 40))
    times = bootstrap.draw("a" * 40, draws=20_000)
    means = bootstrap.group_means(values, np.ones((1, 40)), np.ones(1), times)
    spread = bootstrap.spread(means, 40)
    assert spread.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=0.02)
    assert spread.low < values.mean() < spread.high


@pytest.mark.parametrize(("prompts", "at_least"), [(8, 0.92), (12, 0.93), (40, 0.93)])
def test_interval_covers_as_often_as_it_says(prompts, at_least):
    rng = np.random.default_rng(prompts)
    times = bootstrap.draw("a" * prompts, draws=1000)
    covered = 0
    for _ in range(1500):
        values = rng.normal(0, 1, (1, prompts))
        means = bootstrap.group_means(values, np.ones((1, prompts)), np.ones(1), times)
        spread = bootstrap.spread(means, prompts)
        covered += spread.low <= 0 <= spread.high
    assert at_least <= covered / 1500 <= 0.97


def test_few_prompts_and_few_known_draws_have_none():
    assert bootstrap.spread(np.arange(100.0), 7) is None
    assert bootstrap.spread(np.array([1.0, 2.0, np.nan, np.nan, np.nan]), 20) is None


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=8, max_size=20), st.floats(-10, 10))
def test_a_shift_moves_the_interval_and_no_more(values, by):
    data, ones, times = np.array([values]), np.ones((1, len(values))), bootstrap.draw("a" * len(values), 200)
    one = bootstrap.spread(bootstrap.group_means(data, ones, np.ones(1), times), len(values))
    two = bootstrap.spread(bootstrap.group_means(data + by, ones, np.ones(1), times), len(values))
    assert two.low - one.low == pytest.approx(by, abs=1e-9)
    assert two.standard_error == pytest.approx(one.standard_error, abs=1e-9)
