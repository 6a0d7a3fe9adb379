"""Quality, semantic and total: a suite's dimensions as three numbers, with cluster-bootstrap errors.

    group = Σ_d w_d · (M_d − lo_d) / (hi_d − lo_d) / Σ_d w_d        total = (4 · quality + semantic) / 5

M_d is the mean over the videos that the dimension applies to, each as much as its score counts,
[lo_d, hi_d] its scale: VBench's way (Huang et al., 2024) and its weights. Only of VBench's own
dimensions is the result a VBench score. A group stands there whole or not at all: all its
dimensions or "–"; VBench's own also with every video that is due, since that is what it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from srbench.report import bootstrap
from srbench.report.quantities import SCALE_ROW, Contender, Gap, Key, Measured, numbers
from srbench.report.values import DASH, Column, Value
from srbench.store.records import MetricFacts, Outcome

GROUPS = ("quality", "semantic")
TOTAL_WEIGHTS = {"quality": 4.0, "semantic": 1.0}
PERCENT = 100.0
# A suite with a published list of dimensions is whole only with all of them (VBench, table 1).
WHOLE = {
    "vbench": {
        "quality": (
            "subject_consistency background_consistency temporal_flickering motion_smoothness "
            "dynamic_degree aesthetic_quality imaging_quality"
        ).split(),
        "semantic": (
            "object_class multiple_objects human_action color spatial_relationship scene "
            "appearance_style temporal_style overall_consistency"
        ).split(),
    }
}


@dataclass(frozen=True, eq=False)
class Dimension:
    """One dimension's facts and what was measured of each method, in the methods' order.

    counts: how much each number counts in the dimension's mean, of each method; 1 without them.
    """

    facts: MetricFacts
    measured: tuple[Measured, ...]
    counts: tuple[Mapping[Key, float], ...] = ()

    def count(self, method: int, key: Key) -> float:
        """How much a number of a method counts: 0 where its metric leaves the video out."""
        return self.counts[method].get(key, 1.0) if self.counts else 1.0


@dataclass(frozen=True, eq=False)
class Score:
    """One method's number of a group in %, and of each draw, or why there is none (value None)."""

    value: float | None
    draws: np.ndarray | None
    reason: str = ""


def suites(dimensions: Sequence[Dimension]) -> dict[str, list[Dimension]]:
    """The dimensions by their suite, the word before the slash."""
    found: dict[str, list[Dimension]] = {}
    for dimension in dimensions:
        found.setdefault(dimension.facts.name.partition("/")[0], []).append(dimension)
    return found


def columns(
    methods: Sequence[Contender],
    dimensions: Sequence[Dimension],
    protocol: Callable[[Column, Sequence[Measured]], Sequence[str]],
    gaps: Callable[[Measured], tuple[Outcome, str]],
) -> list[list[Value]]:
    """quality, semantic and total of each suite, each with its difference from the reference.

    methods: in the rows' order, as in each dimension's `measured`.  protocol: of a column and
    what was measured for it, each method's.  gaps: the worst outcome and a sentence.  Returns
    columns of values in the methods' order.
    """
    by_suite = suites(dimensions)
    made = []
    for suite, own in by_suite.items():
        prefix = f"{suite} " if len(by_suite) > 1 else ""
        made += list(_suite(suite, prefix, methods, own, protocol, gaps))
    return made


def of_suite(suite: str, own: Sequence[Dimension], methods: int) -> tuple[list[int], dict[str, list[Score]]]:
    """Prompts, and by quality, semantic and total each method's score; the same draws for all."""
    prompts = sorted({k[0] for d in own for m in d.measured for k in m})
    times = _draws(own, prompts)
    scores = {g: [_of_method(suite, g, own, i, prompts, times) for i in range(methods)] for g in GROUPS}
    scores["total"] = [_total(*pair) for pair in zip(*(scores[g] for g in GROUPS), strict=True)]
    return prompts, scores


def _suite(
    suite: str,
    prefix: str,
    methods: Sequence[Contender],
    own: Sequence[Dimension],
    protocol: Callable[[Column, Sequence[Measured]], Sequence[str]],
    gaps: Callable[[Measured], tuple[Outcome, str]],
) -> Iterator[list[Value]]:
    prompts, scores = of_suite(suite, own, len(methods))
    for name, of_methods in scores.items():
        members = [d for d in own if name in (d.facts.group, "total")]
        measured = [_merged([d.measured[i] for d in members]) for i in range(len(methods))]
        column = _column(suite, name, prefix, members)
        protocols = protocol(column, measured)
        told = [gaps(m) for m in measured]
        places = list(zip(methods, of_methods, measured, protocols, told, strict=True))
        values = [_value(column, len(prompts), *place) for place in places]
        yield _mark_best(values, of_methods, methods, len(prompts))
        base = next((s for m, s in zip(methods, of_methods, strict=True) if m.is_reference), None)
        delta = _delta(column)
        yield [
            _difference(delta, v, s, m, base, len(prompts))
            for v, s, m in zip(values, of_methods, methods, strict=True)
        ]


def _draws(own: Sequence[Dimension], prompts: Sequence[int]) -> np.ndarray | None:
    """How often each prompt is drawn, within those with the same dimensions; None for too few."""
    if len(prompts) < bootstrap.FEWEST:
        return None
    due = [{k[0] for m in d.measured for k in m} for d in own]
    return bootstrap.draw([tuple(p in d for d in due) for p in prompts])


def _absent(suite: str, group: str, members: Sequence[Dimension]) -> list[str]:
    """The dimensions that a published suite has and this run has not."""
    have = {re.sub(r"\W", "_", d.facts.name.partition("/")[2]) for d in members}
    return [f"{suite}/{name}" for name in WHOLE.get(suite, {}).get(group, ()) if name not in have]


def _of_method(
    suite: str,
    group: str,
    own: Sequence[Dimension],
    method: int,
    prompts: Sequence[int],
    times: np.ndarray | None,
) -> Score:
    members = [d for d in own if d.facts.group == group]
    if not members:
        return Score(None, None, f"the run has no dimension of the group {group}")
    known = [numbers(d.measured[method]) for d in members]
    empty = [
        d.facts.name
        for d, ns in zip(members, known, strict=True)
        if not any(d.count(method, key) for key in ns)
    ]
    partial = [
        f"{d.facts.name} of every video"
        for d, ns in zip(members, known, strict=True)
        if suite in WHOLE and d.facts.name not in empty and len(ns) < len(d.measured[method])
    ]
    lacking = ", ".join([*_absent(suite, group, members), *empty, *partial])
    if lacking:
        return Score(None, None, f"{group} lacks {lacking}")
    place = {p: i for i, p in enumerate(prompts)}
    sums, counts = np.zeros((2, len(members), len(prompts)))
    for i, (dimension, values) in enumerate(zip(members, known, strict=True)):
        low, high = dimension.facts.scale
        for key, value in values.items():
            count = dimension.count(method, key)
            sums[i, place[key[0]]] += count * (value - low) / (high - low)
            counts[i, place[key[0]]] += count
    weights = np.array([d.facts.weight for d in members])
    value = float(bootstrap.group_means(sums, counts, weights)[0])
    draws = None if times is None else PERCENT * bootstrap.group_means(sums, counts, weights, times)
    return Score(PERCENT * value, draws)


def _total(quality: Score, semantic: Score) -> Score:
    parts = dict(zip(GROUPS, (quality, semantic), strict=True))
    if quality.value is None or semantic.value is None:
        return Score(None, None, "; ".join(s.reason for s in parts.values() if s.reason))
    whole = sum(TOTAL_WEIGHTS.values())
    value = sum(TOTAL_WEIGHTS[g] * (s.value or 0.0) for g, s in parts.items()) / whole
    if quality.draws is None or semantic.draws is None:
        return Score(value, None)
    return Score(
        value,
        (TOTAL_WEIGHTS["quality"] * quality.draws + TOTAL_WEIGHTS["semantic"] * semantic.draws) / whole,
    )


def _merged(parts: Sequence[Measured]) -> Measured:
    """Of each video a gap where any dimension has one, else 0: it has its numbers."""
    merged: dict[Key, float | Gap] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, Gap) or key not in merged:
                merged[key] = value if isinstance(value, Gap) else 0.0
    return merged


def _column(suite: str, name: str, prefix: str, members: Sequence[Dimension]) -> Column:
    if name == "total":
        note = "total: (4 · quality + semantic) / 5"
        note += (
            "" if suite == "vbench" else f", VBench's weights on the suite {suite}, which is no VBench score"
        )
    else:
        names = ", ".join(d.facts.name.partition("/")[2] for d in members)
        note = f"{name}: weighted mean of the suite's dimensions, each put on a scale of 0 to 100 % ({names})"
    return Column(f"{suite}/{name}", f"{prefix}{name}", "%", True, False, "total", 1, note)


def _delta(column: Column) -> Column:
    note = "Δ: minus the reference, [95 % interval] of the same draws"
    return Column(
        f"{column.key}_difference", f"Δ {column.heading}", "points", True, False, "difference", 1, note
    )


def _value(
    column: Column,
    prompts: int,
    method: Contender,
    score: Score,
    measured: Measured,
    protocol: str,
    told: tuple[Outcome, str],
) -> Value:
    if method.role == "scale":
        return Value(column, None, None, 0, 0, protocol, word=DASH, reason=SCALE_ROW)
    known = numbers(measured)
    outcome, reason = told
    reason = "; ".join(part for part in (score.reason, reason) if part)
    if score.value is None:
        return Value(
            column, None, None, len(known), 0, protocol, "missing" if outcome == "done" else outcome, reason
        )
    spread = None if score.draws is None else bootstrap.spread(score.draws, prompts, centre=score.value)
    clusters = len({k[0] for k in known})
    return Value(
        column,
        score.value,
        spread.standard_error if spread else None,
        len(known),
        clusters,
        protocol,
        outcome,
        reason,
        low=spread.low if spread else None,
        high=spread.high if spread else None,
        no_error="" if spread else bootstrap.TOO_FEW,
    )


def _mark_best(
    values: Sequence[Value], scores: Sequence[Score], methods: Sequence[Contender], prompts: int
) -> list[Value]:
    """The best, and all whose difference from it has an interval that holds 0; none if none can be told."""
    rivals = [
        i
        for i, m in enumerate(methods)
        if m.role not in ("reference", "scale") and scores[i].draws is not None
    ]
    if not rivals:
        return list(values)
    best = max(rivals, key=lambda i: scores[i].value or 0.0)
    marked = {i for i in rivals if i == best or _holds_zero(scores[best], scores[i], prompts)}
    return [replace(v, best=i in marked) for i, v in enumerate(values)]


def _holds_zero(a: Score, b: Score, prompts: int) -> bool:
    if a.draws is None or b.draws is None or a.value is None or b.value is None:
        return False
    spread = bootstrap.spread(a.draws - b.draws, prompts, centre=a.value - b.value)
    return spread is not None and spread.low <= 0 <= spread.high


def _difference(
    column: Column, own: Value, score: Score, method: Contender, base: Score | None, prompts: int
) -> Value:
    """The value's distance from the reference's, by the same draws."""
    blank = replace(own, column=column, value=None, standard_error=None, low=None, high=None, best=False)
    if method.is_reference:
        return replace(blank, word="reference", reason="what the others are compared with", no_error="")
    if own.word or score.value is None:
        return blank
    if base is None or base.value is None:
        lacking = "no reference in this run" if base is None else f"the reference's is missing: {base.reason}"
        return replace(blank, outcome="missing", reason=lacking, no_error="")
    drawn = None if score.draws is None or base.draws is None else score.draws - base.draws
    centre = score.value - base.value
    spread = None if drawn is None else bootstrap.spread(drawn, prompts, centre=centre)
    number = replace(blank, value=centre)
    if spread is None:
        return number
    return replace(number, standard_error=spread.standard_error, low=spread.low, high=spread.high)
