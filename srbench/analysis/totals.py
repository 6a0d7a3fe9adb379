"""Quality, semantic and total: a suite's dimensions as three numbers, with cluster-bootstrap errors.

    group = Σ_d w_d · (M_d − lo_d) / (hi_d − lo_d) / Σ_d w_d        total = (4 · quality + semantic) / 5

M_d is the mean over the videos that the dimension applies to, each as much as its score counts,
[lo_d, hi_d] its scale: VBench's way (Huang et al., 2024) and its weights. Only of VBench's own
dimensions is the result a VBench score. A group stands there whole or not at all: all its
dimensions or "–"; VBench's own also with every video that is due, since that is what it names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from srbench.analysis import bootstrap
from srbench.analysis.quantities import SCALE_ROW, Contender, Gap, Key, Measured, numbers
from srbench.analysis.values import DASH, Column, Value, best_of
from srbench.store.records import MetricFacts, Outcome, RunRecord

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
    """One method's number of a group in %, and of each draw, or why there is none (value None).

    prompts: those that it has a number of.
    """

    value: float | None
    draws: np.ndarray | None
    reason: str = ""
    prompts: frozenset[int] = frozenset()


def suite_of(run: RunRecord, scored: Collection[str]) -> str:
    """Of the suites whose dimensions a run has, that which it was made for; then VBench's, then the first.

    VBench's scorers take other prompts too, in nine dimensions, of which there is no total.
    """
    return next(s for s in (_kind(run), "vbench", *scored) if s in scored)


def has_totals(run: RunRecord, suite: str) -> bool:
    """Can a suite's dimensions make totals here?  Those of a published suite on its own prompts alone."""
    return suite not in WHOLE or "suite" not in run.resolved or _kind(run) == suite


def _kind(run: RunRecord) -> str:
    """The suite that a run was made for, as the files in conf/suite name it; imported videos' may be none."""
    asked = run.resolved.get("suite")
    return str(asked.get("kind") if isinstance(asked, Mapping) else asked)


def suite(facts: MetricFacts) -> str:
    """Whose dimension a metric is: the word before the slash."""
    return facts.name.partition("/")[0]


def suites(dimensions: Sequence[Dimension]) -> dict[str, list[Dimension]]:
    """The dimensions by their suite."""
    found: dict[str, list[Dimension]] = {}
    for dimension in dimensions:
        found.setdefault(suite(dimension.facts), []).append(dimension)
    return found


def columns(
    methods: Sequence[Contender],
    dimensions: Sequence[Dimension],
    protocol: Callable[[Column, Sequence[Measured]], Sequence[str]],
    gaps: Callable[[Measured], tuple[Outcome, str]],
) -> list[list[Value]]:
    """quality, semantic and total of each suite, each with its difference from the reference.

    dimensions: of suites that can have totals.  methods: in the rows' order, as in each
    dimension's `measured`.  protocol: of a column and
    what was measured for it, each method's.  gaps: the worst outcome and a sentence.  Returns
    columns of values in the methods' order.
    """
    by_suite = suites(dimensions)
    made = []
    for suite, own in by_suite.items():
        prefix = f"{suite} " if len(by_suite) > 1 else ""
        made += list(_columns_of(suite, prefix, methods, own, protocol, gaps))
    return made


@dataclass(frozen=True, eq=False)
class Suite:
    """A suite's dimensions and the draws of its prompts, the same for all methods."""

    name: str
    own: Sequence[Dimension]

    @cached_property
    def prompts(self) -> list[int]:
        return sorted({k[0] for d in self.own for m in d.measured for k in m})

    @cached_property
    def times(self) -> np.ndarray | None:
        return _draws(self.own, self.prompts)

    def scores(self, methods: int) -> dict[str, list[Score]]:
        """By quality, semantic and total each method's score over its own videos."""
        found = {g: [self.score(g, i, self.own) for i in range(methods)] for g in GROUPS}
        found["total"] = [_total(*pair) for pair in zip(*(found[g] for g in GROUPS), strict=True)]
        return found

    def score(self, name: str, method: int, of: Sequence[Dimension]) -> Score:
        """Quality, semantic or total of a method, by the numbers in `of`."""
        if name == "total":
            return _total(*(self.score(g, method, of) for g in GROUPS))
        return _of_method(self.name, name, of, method, self.prompts, self.times)

    def shared(self, name: str, methods: Sequence[int], scores: Sequence[Score]) -> Shared:
        """Methods' scores over the videos that all of them have, dimension by dimension.

        scores: of all methods, each over its own videos; those where nothing lacks.
        """
        members = [d for d in self.own if name in (d.facts.group, "total")]
        of = [_common(d, methods) for d in members]
        measured = {k for d in of for k in numbers(d.measured[methods[0]])}
        prompts = len({k[0] for k in measured})
        if all(a is b for a, b in zip(of, members, strict=True)):
            return Shared({i: scores[i] for i in methods}, len(measured), prompts)
        dropped: set[Key] = set()
        for whole, part in zip(members, of, strict=True):
            for i in methods:
                dropped |= numbers(whole.measured[i]).keys() - numbers(part.measured[i]).keys()
        own = {i: self.score(name, i, of) for i in methods}
        return Shared(own, len(measured), prompts, len(dropped))


@dataclass(frozen=True, eq=False)
class Shared:
    """Scores by method, over so many videos of so many prompts.

    dropped: videos left out, in some dimension at least, since some of the methods lack them.
    """

    scores: Mapping[int, Score]
    videos: int
    prompts: int
    dropped: int = 0

    @property
    def is_part(self) -> bool:
        """Has any of the methods more?"""
        return self.dropped > 0

    def difference(self, a: int, b: int) -> tuple[float | None, bootstrap.Spread | None]:
        """Of a minus b, in points, and how it varies over the draws, which are the same for both."""
        one, other = self.scores[a], self.scores[b]
        if one.value is None or other.value is None:
            return None, None
        if one.draws is None or other.draws is None:
            return one.value - other.value, None
        apart = one.value - other.value
        return apart, bootstrap.spread(one.draws - other.draws, self.prompts, centre=apart)


def _common(dimension: Dimension, methods: Sequence[int]) -> Dimension:
    """A dimension with only those numbers of the methods that all of them have; itself if it is so."""
    first, *rest = (numbers(dimension.measured[i]) for i in methods)
    if all(first.keys() == other.keys() for other in rest):
        return dimension
    keys = [k for k in first if all(k in other for other in rest)]
    measured = list(dimension.measured)
    for i in methods:
        measured[i] = {k: measured[i][k] for k in keys}
    return replace(dimension, measured=tuple(measured))


def _columns_of(
    suite: str,
    prefix: str,
    methods: Sequence[Contender],
    own: Sequence[Dimension],
    protocol: Callable[[Column, Sequence[Measured]], Sequence[str]],
    gaps: Callable[[Measured], tuple[Outcome, str]],
) -> Iterator[list[Value]]:
    of = Suite(suite, own)
    scores = of.scores(len(methods))
    reference = next((i for i, m in enumerate(methods) if m.is_reference), None)
    for name, of_methods in scores.items():
        members = [d for d in own if name in (d.facts.group, "total")]
        measured = [_merged([d.measured[i] for d in members]) for i in range(len(methods))]
        column = _column(suite, name, prefix, members)
        protocols = protocol(column, measured)
        told = [gaps(m) for m in measured]
        places = list(zip(methods, of_methods, measured, protocols, told, strict=True))
        values = [_value(column, *place) for place in places]
        share = functools.partial(of.shared, name, scores=of_methods)
        yield _mark_best(values, of_methods, methods, share)
        delta = _delta(column)
        yield [_difference(delta, v, i, reference, of_methods, share) for i, v in enumerate(values)]


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
    behind = frozenset(p for p, i in place.items() if counts[:, i].any())
    return Score(PERCENT * value, draws, prompts=behind)


def _total(quality: Score, semantic: Score) -> Score:
    parts = dict(zip(GROUPS, (quality, semantic), strict=True))
    if lacking := [g for g, s in parts.items() if s.value is None]:
        return Score(None, None, f"no total without {' and '.join(lacking)}")
    whole = sum(TOTAL_WEIGHTS.values())
    value = sum(TOTAL_WEIGHTS[g] * (s.value or 0.0) for g, s in parts.items()) / whole
    behind = quality.prompts | semantic.prompts
    if quality.draws is None or semantic.draws is None:
        return Score(value, None, prompts=behind)
    draws = (TOTAL_WEIGHTS["quality"] * quality.draws + TOTAL_WEIGHTS["semantic"] * semantic.draws) / whole
    return Score(value, draws, prompts=behind)


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
    heading = f"{prefix}{name}"
    return Column(f"{suite}/{name}", heading, "%", True, False, "total", 1, note, bounds=(0.0, PERCENT))


def _delta(column: Column) -> Column:
    note = "Δ: minus the reference, [95 % interval] of the same draws"
    return Column(
        f"{column.key}_difference",
        f"Δ {column.heading}",
        "points",
        True,
        False,
        "difference",
        1,
        note,
        bounds=(-PERCENT, PERCENT),
    )


def _value(
    column: Column,
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
    # the prompts that this method has tell how well its mean is known, not those that others have
    own = len(score.prompts)
    spread = None if score.draws is None else bootstrap.spread(score.draws, own, centre=score.value)
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


Share = Callable[[Sequence[int]], Shared]  # methods, to their scores over the videos that all have


def _mark_best(
    values: Sequence[Value], scores: Sequence[Score], methods: Sequence[Contender], share: Share
) -> list[Value]:
    """The best, and those after it whose difference from it has an interval that holds 0 (values.best_of).

    The best is so over the videos that all rivals have: where the hard ones of a method failed,
    its own mean says nothing against the others'.
    """
    rivals = [
        i
        for i, m in enumerate(methods)
        if m.role not in ("reference", "scale") and scores[i].draws is not None
    ]
    if not rivals:
        return list(values)
    all_have = share(rivals)
    known = {i: s.value for i, s in all_have.scores.items() if s.value is not None}
    if len(known) < len(rivals) or all_have.prompts < bootstrap.FEWEST:
        return list(values)
    best = max(rivals, key=lambda i: known[i])
    alike = {i for i in rivals if i == best or _holds_zero(share([best, i]).difference(best, i)[1])}
    marked = best_of(known, alike, higher_is_better=True)
    return [replace(v, best=i in marked) for i, v in enumerate(values)]


def _holds_zero(spread: bootstrap.Spread | None) -> bool:
    return spread is not None and spread.low <= 0 <= spread.high


def _difference(
    column: Column, own: Value, method: int, reference: int | None, scores: Sequence[Score], share: Share
) -> Value:
    """The distance from the reference over the videos that both have, by the same draws."""
    blank = replace(own, column=column, value=None, standard_error=None, low=None, high=None, best=False)
    if method == reference:
        return replace(blank, word="reference", reason="what the others are compared with", no_error="")
    if own.word or scores[method].value is None:
        return blank
    if reference is None or scores[reference].value is None:
        lacking = f"the reference's is missing: {scores[reference].reason}" if reference is not None else ""
        lacking = lacking or "no reference in this run"
        return replace(blank, outcome="missing", reason=lacking, no_error="")
    both = share([method, reference])
    difference, spread = both.difference(method, reference)
    if both.is_part:
        said = f"over the {both.videos} videos that both have"
        said = said if difference is not None else f"no difference: {both.scores[method].reason} {said}"
        blank = replace(
            blank,
            reason="; ".join(part for part in (own.reason, said) if part),
            n=both.videos,
            clusters=both.prompts,
            outcome="missing" if own.outcome == "done" else own.outcome,
            no_error="" if spread or difference is None else bootstrap.TOO_FEW,
        )
    number = replace(blank, value=difference)
    if spread is None:
        return number
    return replace(number, standard_error=spread.standard_error, low=spread.low, high=spread.high)
