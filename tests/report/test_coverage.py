"""How often the report's 95 % intervals hold the truth, over runs that are drawn.

Prompts are clusters with several seeds inside. They differ normally, or as skewed as
exponential numbers; in the second case no interval that was tried comes to 0.95 at 8 or 16
prompts, and 0.915 is what is asked of ours.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from srbench.report import bootstrap
from srbench.report.statistics import (
    clustered_mean,
    difference_of_ratios,
    paired_difference,
    ratio_of_means,
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
    told = clustered_mean(videos(rng, kind, prompts).tolist(), clusters)
    return abs(told.mean) <= told.half_interval


def paired(rng, kind, prompts, clusters):
    """What both methods share of a prompt goes out; what is left is as skewed as the methods are."""
    shared = 5 * videos(rng, kind, prompts)
    a, b = (shared + videos(rng, kind, prompts) for _ in range(2))
    told = paired_difference((a + 2).tolist(), b.tolist(), clusters)
    return told.low <= 2 <= told.high


def ratio(rng, kind, prompts, clusters):
    """A speedup: the reference takes three times as long, and both longer for some prompts."""
    base, own = (30 + 3 * videos(rng, kind, prompts), 10 + videos(rng, kind, prompts))
    told = ratio_of_means(base.tolist(), own.tolist(), clusters)
    return abs(told.mean - 3) <= told.half_interval


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


def bounds(statistic, kind, prompts, runs):
    """93 to 97 %, less where it can't be had, and three standard errors of the simulation."""
    short = kind == "skewed" and statistic in (mean, total)
    lowest = (0.915 if prompts < 72 else 0.925) if short else 0.93
    noise = 3 * math.sqrt(0.95 * 0.05 / runs)
    return lowest - noise, 0.97 + noise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompts", [8, 16])
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.__name__)
def test_intervals_hold_the_truth(statistic, prompts, kind):
    low, high = bounds(statistic, kind, prompts, FAST)
    assert low <= covered(statistic, kind, prompts, FAST) <= high


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompts", [8, 16, 72])
@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda s: s.__name__)
def test_intervals_hold_the_truth_in_many_runs(statistic, prompts, kind):
    low, high = bounds(statistic, kind, prompts, SLOW)
    assert low <= covered(statistic, kind, prompts, SLOW) <= high


def test_an_interval_that_takes_seeds_for_prompts_would_be_found_out():
    """The same data with every video as a cluster of its own: what the simulation is there to catch."""
    low, _ = bounds(mean, "normal", 8, FAST)
    rng, hits = np.random.default_rng(0), 0
    for _ in range(FAST):
        hits += mean(rng, "normal", 8, list(range(8 * SEEDS)))
    assert hits / FAST < low
