"""Errors of totals over a suite's dimensions: prompts are drawn again, whole, for all methods at once.

A total is no mean of one number a prompt: each dimension is a mean over the videos that it
applies to, and the total is a weighted mean of those.  So the prompts themselves are drawn
again, with all their seeds, methods and dimensions, and everything is computed from each
draw as it was from the data.  The draws are the same for all methods, which makes the
differences between methods paired.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from srbench.analysis.statistics import reach, t_quantile

DRAWS = 4000
SEED = 20250519  # of the draws; the same records give the same errors
FEWEST = 8  # prompts; below it a bootstrap interval covers far less than it says
TOO_FEW = f"fewer than {FEWEST} prompts, so no bootstrap error"


@dataclass(frozen=True, eq=False)
class Spread:
    """How a statistic varies over draws: in its own unit; its 95 % interval is [low, high]."""

    standard_error: float
    low: float
    high: float


def draw(strata: Sequence[Hashable], draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """How often each prompt is drawn: float64 (draws, prompts), rows sum to the number of prompts.

    strata: (prompts,), each prompt's own; prompts are drawn inside their stratum, as a suite
    has a prompt list for each dimension.  Strata of fewer than FEWEST prompts are drawn as
    one, for a prompt that is alone in its stratum would never vary.

    >>> draw(["a"] * 9, draws=3).sum(axis=1).tolist()
    [9.0, 9.0, 9.0]
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for prompt, stratum in enumerate(strata):
        members[stratum].append(prompt)
    groups = [m for m in members.values() if len(m) >= FEWEST]
    rest = sorted(p for m in members.values() if len(m) < FEWEST for p in m)
    rng = np.random.default_rng(seed)
    times = np.zeros((draws, len(strata)))
    for group in [*groups, rest] if rest else groups:
        times[:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=draws)
    return times


def group_means(
    sums: np.ndarray, counts: np.ndarray, weights: np.ndarray, times: np.ndarray | None = None
) -> np.ndarray:
    """Weighted mean of dimension means, of the data or of each draw.

        M_d = Σ_g t_g · sums[d, g] / Σ_g t_g · counts[d, g]        group = Σ_d w_d M_d / Σ_d w_d

    sums, counts: (dimensions, prompts), a prompt's sum of normalised values and how many
    videos that is, 0 where the dimension does not apply.  weights: (dimensions,), > 0.
    times: (draws, prompts) of draw(); without it t = 1.  Returns (draws,), or (1,); NaN
    where a draw has no video of some dimension.
    """
    drawn = np.ones((1, sums.shape[1])) if times is None else times
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (drawn @ sums.T) / (drawn @ counts.T)
    return means @ (weights / weights.sum())


def spread(
    values: np.ndarray, prompts: int, confidence: float = 0.95, centre: float | None = None
) -> Spread | None:
    """Standard error and interval of a statistic from its draws.

    values: (draws,); draws that are NaN are left out.  prompts: how many were drawn from, G.
    √(G/(G − 1)) makes good what drawing from G prompts loses of their variance:

        SE = sd over draws · √(G/(G − 1))

    centre: the statistic itself where that is made of means, as a total is; its interval is

        [centre − below · SE, centre + above · SE]

    with statistics.reach(), of the draws' own skewness times √(G·(G − 1))/(G − 2), which makes
    good what drawing loses of it: so a total has the interval that a plain mean would have.

    Without a centre, for what is no mean and may have bounds, as ranks' correlation: the
    percentile interval. Plain it is too short at few clusters (it covers 0.90 at 12), so its
    levels are those at which it has the length of a t interval (Hesterberg, What Teachers
    Should Know About the Bootstrap, 2015, section 5.3):

        α'/2 = Φ(−√(G/(G − 1)) · t(1 − α/2; G − 1))

    None where prompts < FEWEST, or fewer than half of the draws have a value.
    """
    known = values[np.isfinite(values)]
    if prompts < FEWEST or 2 * known.size < values.size or known.size < 2:
        return None
    wider = math.sqrt(prompts / (prompts - 1))
    error = float(known.std(ddof=1)) * wider
    if centre is not None:
        skewness = _skewness(known) * math.sqrt(prompts * (prompts - 1)) / (prompts - 2)
        below, above = reach(prompts, skewness, confidence)
        return Spread(error, centre - below * error, centre + above * error)
    tail = float(ndtr(-wider * t_quantile(prompts, confidence)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Spread(error, float(low), float(high))


def _skewness(values: np.ndarray) -> float:
    """m₃ / m₂^(3/2); 0 where all values are the same."""
    data = values - values.mean()
    second = float(np.mean(data**2))
    return float(np.mean(data**3)) / second**1.5 if second > 0 else 0.0
