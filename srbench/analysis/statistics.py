"""Means, differences and ratios over prompts, with the error that they deserve.

Prompts are the clusters, seeds repeat inside them: two seeds of one prompt are no two
independent looks at a method. So every statistic is one over G prompt means, and its
standard error has G − 1 degrees of freedom. With one prompt there is none: None with the
reason, never 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv, ndtr, stdtrit  # scipy.stats has t as well, 1 s slower to import

NO_VALUE = "no value"
ONE_PROMPT = "one prompt only, so no standard error"
ZERO_DENOMINATOR = "the denominator's mean is 0"
NONE_COUNTS = "none of the videos counts in it, as where nothing was found in any"
POWER = 0.8  # that is usually planned for


@dataclass(frozen=True)
class Estimate:
    """A statistic of n values in `clusters` prompts.

    mean: in the values' unit; None where n = 0.  standard_error: same unit, ≥ 0; None
    where it can't be told.  reason: why something is None, else empty.  skewness: of the
    mean, as mean_skewness has it.
    """

    mean: float | None
    standard_error: float | None
    n: int
    clusters: int
    reason: str = ""
    skewness: float = field(default=0.0, repr=False)

    def with_error_of(self, varied: Estimate, reason: str = "") -> Estimate:
        """This number with another's standard error, in proportion to the two numbers.

        Where the other has no values there is no error, for this reason.

        >>> Estimate(4.0, 0.0, 6, 3).with_error_of(Estimate(2.0, 0.1, 6, 3)).standard_error
        0.2
        """
        if self.mean is not None and varied.n == 0:
            return replace(self, standard_error=None, skewness=0.0, reason=reason or self.reason)
        if self.mean is None or not varied.mean or varied.standard_error is None:
            return self
        error = abs(self.mean / varied.mean) * varied.standard_error
        return replace(self, standard_error=error, skewness=varied.skewness)

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """[mean − below·SE, mean + above·SE], see reach(); None where there is no error."""
        if self.mean is None or self.standard_error is None:
            return None
        below, above = reach(self.clusters, self.skewness, confidence)
        return self.mean - below * self.standard_error, self.mean + above * self.standard_error

    @property
    def log_interval(self) -> tuple[float, float] | None:
        """That of the logarithm, as a number again; None where the mean isn't above 0.

        [R·exp(−below·SE/R), R·exp(above·SE/R)], so that no end of it is below 0.
        """
        if self.mean is None or self.standard_error is None or self.mean <= 0:
            return None
        below, above = reach(self.clusters, self.skewness)
        error = self.standard_error / self.mean
        return self.mean * math.exp(-below * error), self.mean * math.exp(above * error)


@dataclass(frozen=True)
class Difference:
    """Mean of a − b with its 95 % interval [low, high]; both None where G < 2."""

    estimate: Estimate
    low: float | None
    high: float | None


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean of prompt means, with SE = sd(prompt means) / √G, sd over G − 1.

    values: finite numbers, (n,).  clusters: the prompt of each, (n,).  Prompts weigh the
    same however many seeds they have.  Raises ValueError where the lengths differ or a
    value is not finite.

    >>> clustered_mean([1.0, 3.0, 4.0, 6.0], ["a", "a", "b", "b"])
    Estimate(mean=3.5, standard_error=1.5, n=4, clusters=2, reason='')
    >>> clustered_mean([1.0, 3.0], ["a", "a"]).standard_error is None
    True
    """
    means = list(_cluster_means(values, clusters).values())
    if not means:
        return Estimate(None, None, 0, 0, NO_VALUE)
    error = _standard_error(means)
    reason = ONE_PROMPT if error is None else ""
    return Estimate(_mean(means), error, len(values), len(means), reason, mean_skewness(means))


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> Difference:
    """Mean of a − b over the same prompts and seeds, with its interval over prompt means.

    That of d̄, with SE = sd(d_g) / √G, where d_g is prompt g's mean difference.  a, b,
    clusters: (n,), in the same order.  Raises ValueError as clustered_mean does.
    """
    _check(a, clusters)
    _check(b, clusters)
    estimate = clustered_mean([x - y for x, y in zip(a, b, strict=True)], clusters)
    return Difference(estimate, *(estimate.interval(confidence) or (None, None)))


def ratio_of_means(
    numerator: Sequence[float], denominator: Sequence[float], clusters: Sequence[Hashable]
) -> Estimate:
    """R = n̄ / d̄ over prompt means n_g and d_g of the same prompts and seeds: a speedup.

    Its error is the delta method's, R linearised around (n̄, d̄) with G − 1 degrees of
    freedom (Cochran, Sampling Techniques, 3rd ed., eq. 6.13, without the finite
    population's correction):

        SE(R)² = 1 / (G · d̄²) · Σ_g (n_g − R·d_g)² / (G − 1)
               = (s_n² + R²·s_d² − 2·R·s_nd) / (G · d̄²)

    Good where d̄ is many of its own standard errors from 0, as times are.  numerator,
    denominator, clusters: (n,), in the same order.  The mean is None, with the reason,
    where d̄ = 0.  Raises ValueError as clustered_mean does.
    """
    n_g = _cluster_means(numerator, clusters)
    d_g = _cluster_means(denominator, clusters)
    if not n_g:
        return Estimate(None, None, 0, 0, NO_VALUE)
    below = _mean(d_g.values())
    if below == 0:
        return Estimate(None, None, len(numerator), len(n_g), ZERO_DENOMINATOR)
    ratio = _mean(n_g.values()) / below
    parts = [(n_g[g] - ratio * d_g[g]) / below for g in n_g]
    error = _standard_error(parts)
    reason = ONE_PROMPT if error is None else ""
    return Estimate(ratio, error, len(numerator), len(n_g), reason, mean_skewness(parts))


def difference_of_ratios(
    a: tuple[Sequence[float], Sequence[float]],
    b: tuple[Sequence[float], Sequence[float]],
    clusters: Sequence[Hashable],
) -> Difference:
    """R_a − R_b with R = n̄ / d̄, of the same prompts and seeds: two speedups, or two means over videos.

    The error is ratio_of_means' for a difference: each ratio linearised around its means,
    paired by prompt,

        SE² = Σ_g (e_g − f_g)² / (G·(G − 1)),  e_g = (n_g − R_a·d_g) / d̄ of a, f_g the same of b

    a, b: (numerators, denominators), each (n,), in the clusters' order.  The mean is None,
    with the reason, where a denominator's is 0.  Raises ValueError as clustered_mean does.
    """
    (one, of_a), (other, of_b) = (
        (ratio_of_means(n, d, clusters), _linearised(n, d, clusters)) for n, d in (a, b)
    )
    if one.mean is None or other.mean is None:
        return Difference(one if one.mean is None else other, None, None)
    parts = [of_a[g] - of_b[g] for g in of_a]
    error = _standard_error(parts)
    reason = ONE_PROMPT if error is None else ""
    skewness = mean_skewness(parts)
    estimate = Estimate(one.mean - other.mean, error, one.n, one.clusters, reason, skewness)
    return Difference(estimate, *(estimate.interval() or (None, None)))


def _linearised(
    numerator: Sequence[float], denominator: Sequence[float], clusters: Sequence[Hashable]
) -> dict[Hashable, float]:
    """By prompt (n_g − R·d_g) / d̄; empty where d̄ = 0."""
    n_g, d_g = _cluster_means(numerator, clusters), _cluster_means(denominator, clusters)
    below = _mean(d_g.values()) if d_g else 0.0
    if below == 0:
        return {}
    ratio = _mean(n_g.values()) / below
    return {g: (n_g[g] - ratio * d_g[g]) / below for g in n_g}


def mean_of_videos(
    values: Sequence[float], clusters: Sequence[Hashable], counts: Sequence[float] | None = None
) -> Estimate:
    """M = Σ_g s_g / Σ_g n_g, where every video weighs the same, as a suite's dimension is meant.

    s_g, n_g: prompt g's sum and count; the error is that of ratio_of_means(s, n).  With
    equally many videos a prompt it is clustered_mean.  counts: (n,), ≥ 0, where a video counts
    as more than one, as of a mean over the frames of all.  The mean is None, with the reason, where
    all counts are 0.  Raises ValueError as that does.

    >>> mean_of_videos([1.0, 3.0, 8.0], ["a", "a", "b"]).mean
    4.0
    >>> mean_of_videos([1.0, 3.0], ["a", "b"], [10.0, 30.0]).mean
    2.5
    >>> mean_of_videos([0.0, 0.0], ["a", "b"], [0.0, 0.0]).mean is None
    True
    """
    _check(values, clusters)
    if counts is None:
        counts = [1.0] * len(values)
    sums: dict[Hashable, list[float]] = defaultdict(list)
    sizes: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster, count in zip(values, clusters, counts, strict=True):
        sums[cluster].append(value * count)
        sizes[cluster].append(count)
    totals, whole = ([math.fsum(vs) for vs in of.values()] for of in (sums, sizes))
    found = replace(ratio_of_means(totals, whole, list(sums)), n=len(values))
    return replace(found, reason=NONE_COUNTS) if found.reason == ZERO_DENOMINATOR else found


def mean_skewness(values: Sequence[float]) -> float:
    """Skewness of the mean of G values: G₁/√G, G₁ the adjusted Fisher–Pearson coefficient.

    0 where it cannot be told, of fewer than three values or of equal ones.

    >>> mean_skewness([0.0] * 9 + [1.0]), mean_skewness([1.0, 2.0, 3.0])
    (1.0, 0.0)
    """
    count, data = len(values), np.asarray(values, np.float64)
    if count < 3:
        return 0.0
    data = data - data.mean()
    spread = math.sqrt(float(data @ data) / (count - 1))
    if spread == 0:
        return 0.0
    third = count / ((count - 1) * (count - 2)) * float(np.sum((data / spread) ** 3))
    return round(third / math.sqrt(count), 12)


SKEWED_FROM = 8  # prompts; fewer say next to nothing of their skewness
MOST_SKEWED = 0.3  # of a mean; beyond it the expansion below breaks down, and intervals blow up


def reach(clusters: int, skewness: float, confidence: float = 0.95) -> tuple[float, float]:
    """How many standard errors a mean's interval reaches below and above the mean; both ≥ t.

    t(1 − α/2; G − 1), and more on the side of the longer tail, where t alone covers too little:
    as far as Hall's transformation (J. R. Statist. Soc. B 54, 1992) with t quantiles (Willink,
    Commun. Statist. Theory Methods 34, 2005) has it, with a a sixth of the mean's skewness,

        g(r) = (∛(1 + 6a(r − a)) − 1) / 2a        below = max(t, g(t))        above = max(t, −g(−t))

    The other side stays at t: skewness read off a few prompts is not known well. Simulated
    (tests/analysis/test_coverage.py) it covers 0.93 to 0.97 at 8, 16 and 72 prompts that differ
    normally, evenly, or as unevenly as exponential numbers, of which t covers 0.89 at 8; at 8
    normal ones it is a tenth longer than t, at 72 a hundredth.

    >>> [[round(r, 2) for r in reach(8, skewness)] for skewness in (0.0, 0.2, 0.3)]
    [[2.36, 2.36], [2.36, 2.93], [2.36, 3.49]]
    """
    t = t_quantile(clusters, confidence)
    a = max(-MOST_SKEWED, min(MOST_SKEWED, skewness)) / 6
    if clusters < SKEWED_FROM or abs(a) < 1e-9:
        return t, t

    def g(r: float) -> float:
        return (math.cbrt(1 + 6 * a * (r - a)) - 1) / (2 * a)

    return max(t, g(t)), max(t, -g(-t))


def t_quantile(clusters: int, confidence: float = 0.95) -> float:
    """t(1 − α/2; G − 1) for G clusters, G ≥ 2."""
    return float(stdtrit(clusters - 1, 0.5 + confidence / 2))


def power(difference: float, standard_error: float, clusters: int, confidence: float = 0.95) -> float:
    """How often a two-sided t test on G prompts' means finds a true difference, in [0, 1].

    Noncentral t with ν = G − 1 degrees of freedom and λ = difference / SE, written over the
    χ² of the estimated error (Johnson, Kotz & Balakrishnan, Continuous Univariate
    Distributions 2, 2nd ed., ch. 31):

        E_w[ Φ(λ − t·√(w/ν)) + Φ(−λ − t·√(w/ν)) ],  w ~ χ²(ν), t = t(1 − α/2; ν)

    An interval, which is longer on the side of a longer tail (reach), leaves 0 out somewhat less
    often: at 8 prompts by up to 0.08, at 24 by 0.03, at 60 by 0.01.
    standard_error: of the mean difference, the true one, ≥ 0, in the difference's unit.
    clusters: G ≥ 2.

    >>> round(power(1.0, 0.0, 5), 3), round(power(0.0, 1.0, 5), 3)
    (1.0, 0.05)
    """
    if standard_error == 0:
        return 1.0 if difference else 1 - confidence
    width, weights = _widths(clusters)
    centre, far = difference / standard_error, t_quantile(clusters, confidence) * width
    return float(weights @ (ndtr(centre - far) + ndtr(-centre - far)))


@lru_cache(maxsize=4096)
def _widths(clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """√(w/ν) at Gauss's points of w's distribution, and how much each weighs."""
    levels, weights = _gauss()
    half = (clusters - 1) / 2
    return np.sqrt(gammaincinv(half, (levels + 1) / 2) / half), weights / 2


@lru_cache(maxsize=1)
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(200)


def detectable(
    standard_error: float, clusters: int, wanted: float = POWER, confidence: float = 0.95
) -> float:
    """The smallest true difference that `power` finds this often, in the standard error's unit.

    (For most G near Bloom's (t(1 − α/2) + t(wanted)) · SE, Evaluation Review 19(5), 1995, which
    takes the test's t to be the plain one and asks too little at few prompts.)
    """
    low, high = 0.0, 4.0
    while power(high, 1.0, clusters, confidence) < wanted:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, 1.0, clusters, confidence) < wanted else (low, middle)
    return high * standard_error


def _check(values: Sequence[float], clusters: Sequence[Hashable]) -> None:
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    if not np.isfinite(np.asarray(values, np.float64)).all():
        raise ValueError("a value is not finite")


def _cluster_means(values: Sequence[float], clusters: Sequence[Hashable]) -> dict[Hashable, float]:
    _check(values, clusters)
    members: dict[Hashable, list[float]] = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        members[cluster].append(value)
    return {cluster: _mean(inside) for cluster, inside in members.items()}


def _mean(values: Iterable[float]) -> float:
    # From the least value up, summed exactly: equal values give that value to the bit (an
    # error of 1e-17 in place of 0 would be read as noise), and order changes nothing.
    inside = list(values)
    least = min(inside)
    return least + math.fsum(v - least for v in inside) / len(inside)


def _standard_error(means: Sequence[float]) -> float | None:
    count = len(means)
    if count < 2:
        return None
    centre = _mean(means)
    return math.sqrt(math.fsum((m - centre) ** 2 for m in means) / (count - 1) / count)
