"""How often the report's 95 % intervals hold the truth, over runs that are drawn: in 93 to 97 %.

Prompts are clusters with several seeds inside. They differ normally, or as skewed as
exponential numbers. What was tried for these: t alone covers 0.89 of means at 8 prompts, 0.91
at 16; Johnson's shift and BCa hardly more; the bootstrap t and Willink's interval come near 0.94
but cover 0.92 of differences at 8 and 16 prompts; t, extended on the side of the longer tail to
Willink's end (statistics.reach), is in 93 to 97 % of all of them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from srbench.analysis import bootstrap
from srbench.analysis.statistics import (
    clustered_mean,
    difference_of_ratios,
    mean_skewness,
    paired_difference,
    ratio_of_means,
    reach,
    t_quantile,
)

SEEDS = 3
FAST, SLOW = 400, 4000  # runs
KINDS = ("normal", "skewed")


def effects(rng, kind, shape):
    """Of mean 0 and variance 1."""
    return rng.normal(0, 1, shape) if kind == "normal" else rng.exponential(1, shape) - 1


def videos(rng, kind, prompts, between=1.0, within=0.6):
    """Numbers of mean 0, (prompts · seeds,): half of a difference is the prompt's, half the seed's."""
    by_prompt = between * effects(rng, kind, (prompts, 1))
    return (by_prompt + within * rng.normal(0, 1, (prompts, SEEDS))).ravel()


def mean(rng, kind, prompts, clusters):
    low, high = clustered_mean(videos(rng, kind, prompts).tolist(), clusters).interval()
    return low <= 0 <= high


def paired(rng, kind, prompts, clusters):
    """What both methods share of a prompt goes out; what is left is as skewed as the methods are."""
    shared = 5 * videos(rng, kind, prompts)
    a, b = (shared + videos(rng, kind, prompts) for _ in range(2))
    told = paired_difference((a + 2).tolist(), b.tolist(), clusters)
    return told.low <= 2 <= told.high


def ratio(rng, kind, prompts, clusters):
    """A speedup: the reference takes three times as long, and both longer for some prompts."""
    base, own = (30 + 3 * videos(rng, kind, prompts), 10 + videos(rng, kind, prompts))
    low, high = ratio_of_means(base.tolist(), own.tolist(), clusters).log_interval
    return low <= 3 <= high


def two_ratios(rng, kind, prompts, clusters):
    """Two speedups over one reference."""
    base = 30 + 3 * videos(rng, kind, prompts)
    a, b = (m * (1 + 0.1 * videos(rng, kind, prompts)) for m in (10, 15))
    told = difference_of_ratios((base.tolist(), a.tolist()), (base.tolist(), b.tolist()), clusters)
    return told.low <= 1 <= told.high


def total(rng, kind, prompts, clusters):
    """Of three dimensions, one of them for every other prompt, 5 % of the videos without a score."""
    due = np.ones((3, prompts, 1))
    due[2, ::2] = 0
    shared = 0.7 * effects(rng, kind, (1, prompts, 1)) + 0.5 * rng.normal(0, 1, (3, prompts, 1))
    values = shared + 0.7 * rng.normal(0, 1, (3, prompts, SEEDS))
    there = (rng.random(values.shape) > 0.05) * due
    sums, counts, weights = (values * there).sum(2), there.sum(2), np.array([4.0, 4.0, 2.0])
    times = bootstrap.draw([tuple(due[:, p, 0]) for p in range(prompts)], draws=500)
    own = float(bootstrap.group_means(sums, counts, weights)[0])
    told = bootstrap.spread(bootstrap.group_means(sums, counts, weights, times), prompts, centre=own)
    return told.low <= 0 <= told.high


STATISTICS = (mean, paired, ratio, two_ratios, total)


def covered(statistic, kind, prompts, runs):
    rng = np.random.default_rng([prompts, KINDS.index(kind), STATISTICS.index(statistic)])
    clusters = np.repeat(np.arange(prompts), SEEDS).tolist()
    return sum(bool(statistic(rng, kind, prompts, clusters)) for _ in range(runs)) / runs


def bounds(runs):
    """93 to 97 %, and three standard errors of the simulation."""
    noise = 3 * math.sqrt(0.95 * 0.05 / runs)
    return 0.93 - noise, 0.97 + noise


DRAWN = 10_000  # runs of plain means, which are quickly drawn
SHAPES = {
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "even": lambda rng, shape: rng.uniform(-1, 1, shape),
    "exponential": lambda rng, shape: rng.exponential(1, shape) - 1,
    "difference of exponentials": lambda rng, shape: rng.exponential(1, shape) - rng.exponential(1, shape),
}


def means(kind, prompts):
    """(values, mean, standard error) of each drawn run."""
    drawn = SHAPES[kind](np.random.default_rng([prompts, 1]), (DRAWN, prompts))
    errors = drawn.std(1, ddof=1) / math.sqrt(prompts)
    return list(zip(drawn.tolist(), drawn.mean(1), errors, strict=True))


@pytest.mark.parametrize("prompts", [8, 16, 72])
@pytest.mark.parametrize("kind", SHAPES)
def test_a_means_interval_holds_the_truth(kind, prompts):
    hits = 0
    for values, mean, error in means(kind, prompts):
        below, above = reach(prompts, mean_skewness(values))
        hits += mean - below * error <= 0 <= mean + above * error
    low, high = bounds(DRAWN)
    assert low <= hits / DRAWN <= high


def test_t_alone_does_not_where_prompts_are_as_uneven_as_exponential_numbers():
    """What the longer side is there for."""
    t = t_quantile(8)
    hits = sum(abs(mean) <= t * error for _, mean, error in means("exponential", 8))
    assert hits / DRAWN < 0.91


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompts", [8, 16])
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.__name__)
def test_intervals_hold_the_truth(statistic, prompts, kind):
    low, high = bounds(FAST)
    assert low <= covered(statistic, kind, prompts, FAST) <= high


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompts", [8, 16, 72])
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.__name__)
def test_intervals_hold_the_truth_in_many_runs(statistic, prompts, kind):
    low, high = bounds(SLOW)
    assert low <= covered(statistic, kind, prompts, SLOW) <= high


def test_an_interval_that_takes_seeds_for_prompts_would_be_found_out():
    """The same data with every video as a cluster of its own: what the simulation is there to catch."""
    low, _ = bounds(FAST)
    rng, hits = np.random.default_rng(0), 0
    for _ in range(FAST):
        hits += mean(rng, "normal", 8, list(range(8 * SEEDS)))
    assert hits / FAST < low
