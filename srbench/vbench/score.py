"""VBench's numbers: each dimension's mean by its own rule, quality, semantic and total.

Facts read in VBench's `scripts/constant.py` and `scripts/cal_final_score.py`, which its package
does not carry (Huang et al., VBench, CVPR 2024); no line of it is here.

    n_d = w_d · (raw_d − lo_d) / (hi_d − lo_d)          w = 0.5 for dynamic_degree, else 1
    quality = Σ₇ n_d / 6.5      semantic = Σ₉ n_d / 9      total = (4 · quality + semantic) / 5
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from srbench.errors import UserError
from srbench.store.records import MetricFacts

VERSION = 1  # of what a stored score means
Group = Literal["quality", "semantic"]


@dataclass(frozen=True)
class Dimension:
    """One dimension's facts.

    low, high: the raw scores that count as 0 and as 1; nothing is clamped between them.
    weight: in its group's mean.  over: what the official mean is taken over, `videos`, the
    `frames` of all videos, or the videos in which something was `detected`.
    """

    group: Group
    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    over: Literal["videos", "frames", "detected"] = "videos"


DIMENSIONS: Mapping[str, Dimension] = {
    "subject_consistency": Dimension("quality", 0.1462, over="frames"),
    "background_consistency": Dimension("quality", 0.2615, over="frames"),
    "temporal_flickering": Dimension("quality", 0.6293),
    "motion_smoothness": Dimension("quality", 0.706, 0.9975),
    "dynamic_degree": Dimension("quality", weight=0.5),
    "aesthetic_quality": Dimension("quality"),
    "imaging_quality": Dimension("quality"),
    "object_class": Dimension("semantic", over="frames"),
    "multiple_objects": Dimension("semantic", over="frames"),
    "human_action": Dimension("semantic"),
    "color": Dimension("semantic", over="detected"),
    "spatial_relationship": Dimension("semantic", over="frames"),
    "scene": Dimension("semantic", high=0.8222, over="frames"),
    "appearance_style": Dimension("semantic", 0.0009, 0.2855, over="frames"),
    "temporal_style": Dimension("semantic", high=0.364),
    "overall_consistency": Dimension("semantic", high=0.364),
}
GROUPS: tuple[Group, ...] = ("quality", "semantic")
TOTAL_WEIGHTS = {"quality": 4.0, "semantic": 1.0}
# MLPerf Inference's text-to-video task: 248 prompts, one video each, six dimensions.
MLPERF = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "appearance_style",
    "scene",
)
MLPERF_REFERENCE, MLPERF_PASS = 70.48, 0.99
PUBLISHED_DIGITS = 4  # TeaCache's script and its descendants round raw scores to these


def facts(dimension: str) -> MetricFacts:
    """What travels with every score `vbench/DIMENSION`, a raw one: scale and weight normalise it."""
    own = DIMENSIONS[dimension]
    return MetricFacts(
        name=f"vbench/{dimension}",
        version=VERSION,
        unit="",
        higher_is_better=True,
        needs_reference=False,
        group=own.group,
        weight=own.weight,
        scale=(own.low, own.high),
    )


def aggregate(values: Sequence[float], counts: Sequence[float]) -> float | None:
    """Σ count · value / Σ count, which is each dimension's own mean with its own counts.

    counts: 1 a video where the mean is over videos; a video's frames where it is over those;
    1 or 0 where it is over the videos with something detected.  None where nothing counts.

    >>> aggregate([0.5, 1.0], [10, 30]), aggregate([0.0], [0])
    (0.875, None)
    """
    whole = math.fsum(counts)
    return math.fsum(v * c for v, c in zip(values, counts, strict=True)) / whole if whole else None


def normalised(dimension: str, raw: float) -> float:
    """n_d, its weight in it: 0 to `weight` for raw scores inside the scale, outside it not clamped."""
    own = DIMENSIONS[dimension]
    return own.weight * (raw - own.low) / (own.high - own.low)


def raw(dimension: str, shown: float) -> float:
    """The raw score of a normalised one, as papers print it: the inverse of `normalised`."""
    own = DIMENSIONS[dimension]
    return own.low + shown / own.weight * (own.high - own.low)


@dataclass(frozen=True)
class Final:
    """The three numbers, in percent."""

    quality: float
    semantic: float
    total: float


def final(raws: Mapping[str, float], as_published: bool = False) -> Final:
    """Quality, semantic and total of 16 raw scores by dimension.

    as_published: raw scores rounded to 4 decimals first, as the scripts do with which cache
    papers made their tables; up to 0.017 points of a single dimension.

    Raises UserError where a dimension is missing, unknown or not finite: the official script
    takes a missing one for a raw 0, which makes totals below 0 out of good scores.
    """
    refuse_incomplete(raws)
    digits = PUBLISHED_DIGITS if as_published else None
    parts = {d: normalised(d, value if digits is None else round(value, digits)) for d, value in raws.items()}
    quality, semantic = (100.0 * _mean(group, parts) for group in GROUPS)
    whole = sum(TOTAL_WEIGHTS.values())
    total = (TOTAL_WEIGHTS["quality"] * quality + TOTAL_WEIGHTS["semantic"] * semantic) / whole
    return Final(quality, semantic, total)


def _mean(group: Group, parts: Mapping[str, float]) -> float:
    own = {d: f for d, f in DIMENSIONS.items() if f.group == group}
    return math.fsum(parts[d] for d in own) / math.fsum(f.weight for f in own.values())


def refuse_incomplete(raws: Mapping[str, float], due: Iterable[str] = tuple(DIMENSIONS)) -> None:
    """Raise UserError unless there is a finite number for each dimension due, and for no other."""
    expected = list(due)
    lacking = [d for d in expected if not math.isfinite(raws.get(d, math.nan))]
    strange = [d for d in raws if d not in expected]
    if lacking or strange:
        told = [f"without {', '.join(lacking)}"] if lacking else []
        told += [f"with {', '.join(strange)}"] if strange else []
        raise UserError(
            f"a VBench total {' and '.join(told)}",
            f"a number for each of the {len(expected)} dimensions",
            "score them: srbench vbench score RUN",
        )


def mlperf(raws: Mapping[str, float]) -> float:
    """MLPerf's accuracy of a text-to-video run, in percent: the plain mean of six raw scores.

    Its reference is 70.48, of Wan2.2-T2V-A14B; 99 % of that passes.  Raises UserError where one
    of the six is missing.
    """
    own = {d: v for d, v in raws.items() if d in MLPERF}
    refuse_incomplete(own, MLPERF)
    return 100.0 * math.fsum(own.values()) / len(MLPERF)
