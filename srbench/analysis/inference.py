"""What comparisons of methods can tell: intervals, p values, and words that follow from them.

Every statistic is one of prompts as clusters. Those that are means of one number a prompt have
t intervals on prompt means, longer on the side of a longer tail (statistics.reach), at any number of
prompts above one; totals, variances and rank correlations have those of a cluster bootstrap, and
below bootstrap.FEWEST prompts none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr

from srbench.analysis import bootstrap, statistics
from srbench.analysis.bootstrap import TOO_FEW
from srbench.analysis.statistics import Difference, Estimate

Word = Literal["holds", "does not hold", "cannot be told"]
HOLDS, FAILS, UNTOLD = "holds", "does not hold", "cannot be told"
LEVEL = 0.05  # of a family of comparisons together
CHUNK = 500  # draws at a time, where a draw needs an array as long as the videos
RANK_DRAWS = 1000  # each sorts nothing, but is as long as the videos

Key = tuple[int, int]  # (prompt_index, seed)


@dataclass(frozen=True)
class Told:
    """A statistic with its 95 % interval.

    standard_error, low, high: in the statistic's unit; None where they can't be told, and
    `reason` says why.  clusters: prompts, G; n: videos.  dropped: videos left out, since some of
    what is compared lacks them.
    """

    estimate: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    clusters: int
    n: int
    reason: str = ""
    dropped: int = 0

    def p(self, bound: float = 0.0) -> float | None:
        """Two-sided p of "it is `bound`", in [0, 1], by t with G − 1 degrees of freedom.

        For bootstrapped statistics too, with the draws' standard error: counted draws have
        no p below one in their number, and a family of many comparisons needs smaller ones.
        """
        if self.estimate is None or self.standard_error is None:
            return None
        away = abs(self.estimate - bound)
        if self.standard_error <= 1e-12 * max(abs(self.estimate), abs(bound)):
            return 1.0 if away <= 1e-12 * max(abs(self.estimate), abs(bound)) else 0.0
        return float(2 * stdtr(self.clusters - 1, -away / self.standard_error))

    def side(self, bound: float = 0.0, above: bool = True) -> Word:
        """Is it above (below) `bound`?  Told only where the interval leaves the bound out."""
        if self.low is None or self.high is None:
            return "cannot be told"
        if self.low > bound:
            return "holds" if above else "does not hold"
        if self.high < bound:
            return "does not hold" if above else "holds"
        return "cannot be told"


def untold(reason: str) -> Told:
    """A statistic that there is none of."""
    return Told(None, None, None, None, 0, 0, reason)


def of_estimate(estimate: Estimate) -> Told:
    """With its interval over prompts."""
    ends = estimate.interval()
    if ends is None:
        return Told(estimate.mean, None, None, None, estimate.clusters, estimate.n, estimate.reason)
    return Told(estimate.mean, estimate.standard_error, *ends, estimate.clusters, estimate.n)


def of_difference(difference: Difference) -> Told:
    """A paired difference as it was told."""
    e = difference.estimate
    return Told(e.mean, e.standard_error, difference.low, difference.high, e.clusters, e.n, e.reason)


def of_draws(
    value: float | None,
    draws: np.ndarray | None,
    prompts: int,
    n: int,
    reason: str = "",
    of_means: bool = False,
) -> Told:
    """A statistic with its bootstrap interval.

    value: of the data.  draws: (draws,) of the same statistic, or None where there are too
    few prompts.  prompts: that were drawn from.  of_means: as totals are, which have t's interval
    (see bootstrap.spread); what is not, ratios of variances and ranks, has percentiles'.
    """
    if value is None or not math.isfinite(value):
        return replace(untold(reason or "no value"), clusters=prompts, n=n)
    spread = None if draws is None else bootstrap.spread(draws, prompts, centre=value if of_means else None)
    if spread is None:
        why = TOO_FEW if prompts < bootstrap.FEWEST else "most draws have no value"
        return Told(value, None, None, None, prompts, n, reason or why)
    return Told(value, spread.standard_error, spread.low, spread.high, prompts, n)


def dropped(*of: Mapping[Key, float]) -> int:
    """How many videos some of these have and not all.

    >>> dropped({(0, 0): 1.0, (1, 0): 2.0}, {(1, 0): 3.0})
    1
    """
    keys = [frozenset(own) for own in of]
    return len(frozenset().union(*keys)) - len(keys[0].intersection(*keys))


def difference(a: Mapping[Key, float], b: Mapping[Key, float]) -> Told:
    """Mean of a − b over the videos both have, t on prompt means.

    >>> told = difference({(0, 0): 3.0, (1, 0): 5.0}, {(0, 0): 1.0, (1, 0): 3.0, (2, 0): 9.0})
    >>> told.estimate, told.dropped
    (2.0, 1)
    """
    both = [k for k in a if k in b]
    if not both:
        return untold("no video of both")
    told = statistics.paired_difference([a[k] for k in both], [b[k] for k in both], [k[0] for k in both])
    return replace(of_difference(told), dropped=dropped(a, b))


# Non-inferiority


def insensitive(small: Told, margin: float) -> str:
    """Why a comparison with the large model would prove nothing; empty where it may.

    small: small − large, in the score's unit.  margin: the loss that is still called next to
    nothing, > 0.  A study must be able to see a loss (assay sensitivity; ICH E10, section
    1.5): here that of the small model, which everyone agrees is one.
    """
    if small.low is None or small.high is None or small.estimate is None:
        return f"the large and the small model cannot be compared: {small.reason}"
    if small.high >= 0:
        return "the large model's lead over the small one is not resolved, so no loss could be seen"
    if small.low > -margin:
        return "the small model alone passes too, so passing says nothing"
    return ""


def non_inferior(method: Told, small: Told, margin: float) -> tuple[Word, str]:
    """Is a method's loss less than the margin?  The word, and the reason where it can't be told.

    method, small: method − large and small − large.  Holds if the lower end of the 95 %
    interval is above −margin; does not if its upper end is below.
    """
    reason = insensitive(small, margin)
    if reason or method.low is None:
        return "cannot be told", reason or method.reason
    word = method.side(-margin)
    return word, "" if word != "cannot be told" else "the interval holds the margin"


def retained_gap(
    method: tuple[float, np.ndarray | None],
    large: tuple[float, np.ndarray | None],
    small: tuple[float, np.ndarray | None],
    prompts: int,
    n: int,
) -> Told:
    """(M − S) / (L − S), the share of the large model's lead over the small one that a method keeps.

    Each: the score and its draws (draws,), the same draws for all.  Where all draws have
    L > S, "its interval is above ½" is "M − L is above −(L − S)/2" with the margin's own
    error counted: a margin read off the data is not known exactly.
    """
    (m, m_d), (top, l_d), (s, s_d) = method, large, small
    if top == s:
        return replace(untold("large and small score the same"), clusters=prompts, n=n)
    if m_d is None or l_d is None or s_d is None:
        return of_draws((m - s) / (top - s), None, prompts, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (m_d - s_d) / (l_d - s_d)
    return of_draws((m - s) / (top - s), shares, prompts, n)


# Equal cost


@dataclass(frozen=True)
class Costed:
    """What a method scores and costs, video by video; the same unit of cost for all."""

    score: Mapping[Key, float]
    cost: Mapping[Key, float]


def between(cost: float, below: float, above: float) -> float:
    """The weight w in [0, 1] with cost = (1 − w)·below + w·above; 0 where the two are the same.

    Raises ValueError where the cost is not between them.
    """
    if not below <= cost <= above:
        raise ValueError(f"cost {cost} is not in [{below}, {above}]")
    return 0.0 if above == below else (cost - below) / (above - below)


def at_equal_cost(method: Costed, below: Costed, above: Costed) -> Told:
    """A method against the line between two others at its own mean cost, paired by prompt.

        d = ȳ − (1 − w)·ȳ₀ − w·ȳ₁,   w = (c̄ − c̄₀)/(c̄₁ − c̄₀)

    The costs are means over the same prompts and as uncertain as the scores, so the
    interval is that of d linearised in all six (the delta method): t on prompt means of

        y − (1 − w)·y₀ − w·y₁ − s·(c − (1 − w)·c₀ − w·c₁),   s = (ȳ₁ − ȳ₀)/(c̄₁ − c̄₀)

    whose mean is d.  A method that is dear where it scores high gains nothing by that.
    Raises ValueError where c̄ is not in [c̄₀, c̄₁].
    """
    parts = (method.score, method.cost, below.score, below.cost, above.score, above.cost)
    keys = [k for k in parts[0] if all(k in p for p in parts[1:])]
    if not keys:
        return untold("no video of all three")
    prompts = [k[0] for k in keys]
    y, c, y0, c0, y1, c1 = (np.array([p[k] for k in keys]) for p in parts)
    mean = {
        name: statistics.clustered_mean(v.tolist(), prompts).mean or 0.0
        for name, v in (("c", c), ("c0", c0), ("c1", c1), ("y0", y0), ("y1", y1))
    }
    w = between(mean["c"], mean["c0"], mean["c1"])
    apart = mean["c1"] - mean["c0"]
    slope = (mean["y1"] - mean["y0"]) / apart if apart else 0.0
    line = y - (1 - w) * y0 - w * y1 - slope * (c - (1 - w) * c0 - w * c1)
    return replace(of_estimate(statistics.clustered_mean(line.tolist(), prompts)), dropped=dropped(*parts))


# Spread and order


def log_variance_ratio(
    a: Mapping[Key, float], b: Mapping[Key, float], paired: bool = True, seed: int = bootstrap.SEED
) -> Told:
    """log(var a / var b) over videos, with a cluster bootstrap interval.

    paired: over the videos both have, and with the same draws of prompts; else the two are
    drawn apart, as of two families.  Told of nothing where a variance is 0.
    """
    lost = dropped(a, b) if paired else 0
    if paired:
        both = [k for k in a if k in b]
        a, b = {k: a[k] for k in both}, {k: b[k] for k in both}
    prompts = min(len({k[0] for k in m}) for m in (a, b))
    n = min(len(a), len(b))
    if n < 2:
        return replace(untold("fewer than two videos"), clusters=prompts, n=n)
    own, other = _variances(a, seed), _variances(b, seed if paired else seed + 1)
    if own[0] <= 0 or other[0] <= 0:
        return replace(untold("all values are the same"), clusters=prompts, n=n)
    if own[1] is None or other[1] is None:
        return of_draws(math.log(own[0] / other[0]), None, prompts, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = np.log(own[1] / other[1])
    return replace(of_draws(math.log(own[0] / other[0]), draws, prompts, n), dropped=lost)


def _variances(values: Mapping[Key, float], seed: int) -> tuple[float, np.ndarray | None]:
    """The variance over videos, of the data and of each draw of prompts."""
    _, member = np.unique([k[0] for k in values], return_inverse=True)
    data = np.array(list(values.values()))
    data = data - data.mean()  # sums of squares of large numbers would cancel
    moments = np.stack([np.bincount(member, data**i) for i in range(3)])  # count, sum, sum of squares

    def variance(m: np.ndarray) -> np.ndarray:
        return (m[2] - m[1] ** 2 / m[0]) / (m[0] - 1)

    whole = float(variance(moments.sum(axis=1)))
    if moments.shape[1] < bootstrap.FEWEST:
        return whole, None
    times = bootstrap.draw([0] * moments.shape[1], seed=seed)
    return whole, variance(moments @ times.T)


def rank_correlation(x: Mapping[Key, float], y: Mapping[Key, float]) -> Told:
    """Spearman's ρ of x and y over the videos both have, with a cluster bootstrap interval.

    Ranks are taken anew in every draw (ties share their mean rank), for ranks of the data
    held fixed would leave out part of the spread.
    """
    both = [k for k in x if k in y]
    prompts, member = np.unique([k[0] for k in both], return_inverse=True)
    if len(both) < 3:
        return replace(untold("fewer than three videos"), clusters=len(prompts), n=len(both))
    ranks_x, ranks_y = (_ranker(np.array([v[k] for k in both])) for v in (x, y))
    whole = float(_correlation(ranks_x, ranks_y, np.ones((1, len(both))))[0])
    if not math.isfinite(whole):
        return replace(untold("all values are the same"), clusters=len(prompts), n=len(both))
    if len(prompts) < bootstrap.FEWEST:
        return of_draws(whole, None, len(prompts), len(both))
    times = bootstrap.draw([0] * len(prompts), RANK_DRAWS)
    draws = [
        _correlation(ranks_x, ranks_y, times[i : i + CHUNK][:, member]) for i in range(0, len(times), CHUNK)
    ]
    return replace(of_draws(whole, np.concatenate(draws), len(prompts), len(both)), dropped=dropped(x, y))


def _ranker(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """From how often each value is drawn, (draws, n), to its mean rank among those drawn."""
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    group = np.empty(len(values), int)
    group[order] = np.repeat(np.arange(len(first)), np.diff([*first, len(values)]))

    def ranks(times: np.ndarray) -> np.ndarray:
        sizes = np.add.reduceat(times[:, order], first, axis=1)
        return (np.cumsum(sizes, axis=1) - (sizes - 1) / 2)[:, group]

    return ranks


def _correlation(
    ranks_x: Callable[[np.ndarray], np.ndarray],
    ranks_y: Callable[[np.ndarray], np.ndarray],
    times: np.ndarray,
) -> np.ndarray:
    """Pearson's correlation of the ranks, weighted by how often each video is drawn: (draws,)."""
    total = times.sum(axis=1, keepdims=True)
    x, y = (r - (times * r).sum(axis=1, keepdims=True) / total for r in (ranks_x(times), ranks_y(times)))
    xy, xx, yy = ((times * p).sum(axis=1) for p in (x * y, x * x, y * y))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(xx * yy > 0, xy / np.sqrt(xx * yy), np.nan)


# Many comparisons at once


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values, in the order given (Holm, 1979); None stays None.

    With all below a level α called told, the chance of any false one is at most α, however
    the comparisons depend on one another.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    most = 0.0
    for rank, (p, i) in enumerate(known):
        most = max(most, min(1.0, (len(known) - rank) * p))
        adjusted[i] = most
    return adjusted
