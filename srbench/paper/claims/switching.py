"""Tests of claims about when to switch: adaptive against fixed, and paths that switch back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from srbench.analysis import inference
from srbench.analysis.inference import Told
from srbench.analysis.quantities import Contender, Key
from srbench.paper.claims import quoted
from srbench.paper.claims.base import Finding, Untold, measured
from srbench.paper.claims.closeness import similarities
from srbench.paper.claims.evidence import Evidence
from srbench.trace import Trace

APART = 6  # steps; two fixed switches further apart than that have a curve between them, not a line
NEAR = 1.0  # steps; a fixed switch that near the adaptive one's mean costs about the same
SAME_COST = 0.01
AGAIN = re.compile(r"large until fixed_step\((\d+)\) > small until fixed_step\((\d+)\) > large")
ONLY_DRAWN = "the paper shows it in a figure, without numbers"


def fixed_switches(run: Evidence) -> list[tuple[int, Contender]]:
    """Plain large-then-small at a fixed step, by that step.  Raises Untold where there is none."""
    found = sorted(((int(m[1]), c) for c, m in run.matching(quoted.FIXED)), key=lambda pair: pair[0])
    if not found:
        raise Untold("the run has no fixed switch")
    return found


@dataclass(frozen=True)
class Beside:
    """The fixed switches on either side of a method's mean cost, and where between them it is."""

    below: tuple[int, Contender]
    above: tuple[int, Contender]
    weight: float

    @property
    def name(self) -> str:
        (k0, _), (k1, _) = self.below, self.above
        return f"a fixed switch between {k0} and {k1}" if k0 != k1 else f"a fixed switch at {k0}"


def beside(run: Evidence, method: Contender) -> Beside:
    """Raises Untold where the run has no fixed switches near enough on both sides."""
    fixed = fixed_switches(run)
    costs = [run.values(m, "latency") for _, m in fixed]
    own = run.values(method, "latency")
    keys = [k for k in own if all(k in c for c in costs)]
    if not keys:
        raise Untold("no video of the method and of all fixed switches")
    at = _mean(own, keys)
    known = [(_mean(c, keys), pair) for c, pair in zip(costs, fixed, strict=True)]
    below = max(((c, p) for c, p in known if c <= at), default=None, key=lambda cp: cp[0])
    above = min(((c, p) for c, p in known if c >= at), default=None, key=lambda cp: cp[0])
    if below and above and above[1][0] - below[1][0] <= APART:
        return Beside(below[1], above[1], inference.between(at, below[0], above[0]))
    nearest = min(known, key=lambda cp: abs(cp[0] - at))
    if abs(nearest[0] - at) <= SAME_COST * at:
        return Beside(nearest[1], nearest[1], 0.0)
    steps = ", ".join(str(k) for k, _ in fixed)
    raise Untold(
        f"{method.label} costs {at:.3g} s a video, and the run's fixed switches (at {steps}) are not on both "
        f"sides of that, at most {APART} steps apart: add method fixed_step at more steps"
    )


def _mean(values: Mapping[Key, float], keys: Sequence[Key]) -> float:
    return fmean(values[k] for k in keys)


def at_equal_cost(run: Evidence, method: Contender, fixed: Beside, column: str) -> Told:
    """The method's advantage in a column over the fixed switch of its own cost."""
    if fixed.below[0] == fixed.above[0]:
        return inference.difference(run.values(method, column), run.values(fixed.below[1], column))
    own, below, above = (run.costed(m, column) for m in (method, fixed.below[1], fixed.above[1]))
    try:
        return inference.at_equal_cost(own, below, above)
    except ValueError:  # some videos have a latency and no score
        return inference.untold(f"too few videos have both a latency and {quoted.ABOUT[column]}")


def _similar(run: Evidence, method: Contender, fixed: Beside, **more: Any) -> list[Finding]:
    found = []
    for column in similarities(run):
        facts = run.quantity(column).column
        found.append(
            measured(
                f"{quoted.ABOUT[column]} of {method.label} minus that of {fixed.name}, at equal cost",
                facts.unit,
                at_equal_cost(run, method, fixed, column),
                above=facts.higher_is_better is True,
                methods=_ids(method, fixed),
                columns=(facts.key, "latency"),
                run=run.run.run,
                **more,
            )
        )
    return found


def _total(run: Evidence, method: Contender, fixed: Beside, **more: Any) -> Finding:
    parts = [
        (1.0, method, "total"),
        (fixed.weight - 1, fixed.below[1], "total"),
        (-fixed.weight, fixed.above[1], "total"),
    ]
    return measured(
        f"total of {method.label} minus that of {fixed.name}, at equal cost",
        "points",
        run.combined(parts),
        methods=_ids(method, fixed),
        columns=(f"{run.suite}/total", "latency"),
        run=run.run.run,
        **more,
    )


def _ids(method: Contender, fixed: Beside) -> tuple[str, ...]:
    return tuple(dict.fromkeys((method.method_id, fixed.below[1].method_id, fixed.above[1].method_id)))


@dataclass(frozen=True)
class BetterThanFixed:
    """The adaptive switch is closer to the large model than a fixed one of the same mean cost.

    In the paper the two cost nearly the same: what it prints is put right by the slope
    between two δ.  other: the second δ's method.
    """

    method: str
    setting: str
    other: str = "srd_c3"

    def published(self, setting: str) -> list[Finding]:
        fixed = quoted.method(setting, "fixed_switch")
        match = quoted.FIXED.fullmatch(fixed.path)
        if match is None:
            raise Untold(f"{fixed.path} is no fixed switch")
        share = int(match[1]) / quoted.STEPS
        seconds = [quoted.need(setting, m, "latency") for m in (self.method, self.other, "large", "small")]
        names = [quoted.label(setting, m) for m in (self.method, self.other)]
        implied = quoted.rounded(
            lambda a, top, s: quoted.STEPS * (a - s) / (top - s), seconds[0], *seconds[2:]
        )
        note = (
            f"its latency implies a mean switch step of {implied[0]:.1f}, the fixed one's is "
            f"{int(match[1])}: put right by the slope between it and {names[1]}"
        )

        def advantage(
            y: float, y_fixed: float, y_other: float, own: float, other: float, top: float, s: float
        ) -> float:
            slope = (y - y_other) / (own - other)
            return y - y_fixed - slope * (own - (s + share * (top - s)))

        found = []
        for column in quoted.SIMILARITY:
            y, y_fixed = (quoted.need(setting, m, column, ("4",)) for m in (self.method, fixed.method))
            y_other = quoted.need(setting, self.other, column)
            found.append(
                quoted.finding(
                    f"{quoted.ABOUT[column]} of {names[0]} minus that of a fixed switch of equal cost",
                    quoted.UNITS.get(column, ""),
                    advantage,
                    (y, y_fixed, y_other, *seconds),
                    above=y.higher_is_better,
                    note=note,
                )
            )
        return found

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        method = run.like(quoted.method(self.setting, self.method))
        fixed = beside(run, method)
        found = _similar(run, method, fixed, estimated=run.estimated)
        try:
            return [*found, _total(run, method, fixed, estimated=run.estimated, counts=False)]
        except Untold:
            return found


@dataclass(frozen=True)
class AgainLargeIsBetter:
    """Large, small, large again scores above large, small of the same cost.

    Judged by the suite's total; similarity is told beside it, and decides only where the run
    has no total.
    """

    def published(self, setting: str) -> list[Finding]:
        raise Untold("it is no claim of the paper, whose tables say nothing of it")

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        found = run.matching(AGAIN)
        if not found:
            raise Untold("the run has no large–small–large")
        method = found[0][0]
        fixed = beside(run, method)
        try:
            total = [_total(run, method, fixed, estimated=run.estimated)]
        except Untold:
            total = []
        return [*total, *_similar(run, method, fixed, estimated=run.estimated, counts=not total)]


@dataclass(frozen=True)
class Pair:
    """An adaptive switch and the fixed one nearest to its mean switch step."""

    adaptive: Contender
    step: int
    fixed: Contender
    switches: Mapping[Key, float]
    never: Mapping[Key, float]

    @property
    def mean(self) -> float:
        return fmean([*self.switches.values(), *self.never.values()])


def nearest(run: Evidence, method: Contender, within: float | None = None) -> Pair:
    """Raises Untold where the run has no fixed switch within so many steps of the mean."""
    switches, _ = run.switches(method)
    never = {
        k: float(len(c.trace or Trace()))
        for k, c in method.cells.items()
        if c.outcome == "done" and c.trace and k not in switches
    }
    if not switches:
        raise Untold(f"{method.label} never switched")
    mean = fmean([*switches.values(), *never.values()])
    step, fixed = min(fixed_switches(run), key=lambda pair: abs(pair[0] - mean))
    if within is not None and abs(step - mean) > within:
        raise Untold(
            f"{method.label} switches after {mean:.1f} steps in the mean, and no fixed switch of the run is "
            f"within {within:g} of that: add method fixed_step at {mean:.0f}"
        )
    return Pair(method, step, fixed, switches, never)


def _without(values: Mapping[Key, float], left_out: Mapping[Key, float]) -> dict[Key, float]:
    return {k: v for k, v in values.items() if k not in left_out}


@dataclass(frozen=True)
class Steadier:
    """The PSNR of the adaptive switch varies less over videos than that of a fixed one.

    A video that never switched is the large model's own, at the cap of PSNR: such are counted,
    and the comparison is made with and without them.
    """

    method: str
    setting: str

    def published(self, setting: str) -> list[Finding]:
        raise Untold(ONLY_DRAWN)

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        pair = nearest(run, run.like(quoted.method(self.setting, self.method)), NEAR)
        own, other = run.values(pair.adaptive, "psnr"), run.values(pair.fixed, "psnr")
        found = [self._one(run, pair, own, other, "")]
        if pair.never:
            said = f", without {len(pair.never)} of {len(own)} videos that never switched"
            own, other = (_without(v, pair.never) for v in (own, other))
            found.append(self._one(run, pair, own, other, said))
        return found

    def _one(
        self, run: Evidence, pair: Pair, own: Mapping[Key, float], other: Mapping[Key, float], said: str
    ) -> Finding:
        return measured(
            f"variance of PSNR of {pair.adaptive.label} over that of {pair.fixed.label}{said}",
            "×",
            inference.log_variance_ratio(own, other),
            math.exp,
            bound=1.0,
            at=0.0,
            above=False,
            note=f"mean switch step {pair.mean:.1f} against {pair.step}",
            methods=(pair.adaptive.method_id, pair.fixed.method_id),
            columns=("psnr",),
            run=run.run.run,
        )


@dataclass(frozen=True)
class HardSwitchLater:
    """Where a fixed switch leaves the video less like the large model's, the adaptive one waits longer.

    Spearman's correlation of switch step and PSNR at a fixed step, over videos; one that
    never switched counts as later than all, and is left out the second time.
    """

    method: str
    setting: str

    def published(self, setting: str) -> list[Finding]:
        raise Untold(ONLY_DRAWN)

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        pair = nearest(run, run.like(quoted.method(self.setting, self.method)))
        psnr = run.values(pair.fixed, "psnr")
        found = [self._one(run, pair, {**pair.switches, **pair.never}, psnr, "")]
        if pair.never:
            said = f", without {len(pair.never)} videos that never switched"
            found.append(self._one(run, pair, pair.switches, _without(psnr, pair.never), said))
        return found

    def _one(
        self, run: Evidence, pair: Pair, steps: Mapping[Key, float], psnr: Mapping[Key, float], said: str
    ) -> Finding:
        names = f"the switch step of {pair.adaptive.label} with the PSNR of {pair.fixed.label}"
        return measured(
            f"rank correlation of {names}{said}",
            "",
            inference.rank_correlation(steps, psnr),
            above=False,
            digits=2,
            methods=(pair.adaptive.method_id, pair.fixed.method_id),
            columns=("switch_step", "psnr"),
            run=run.run.run,
        )


@dataclass(frozen=True)
class WiderRange:
    """Switch steps are spread wider in one family than in another, at the same δ.

    Standard deviations over videos; the families have different prompts or videos, so they
    are drawn apart.
    """

    method: str
    wide: str
    narrow: str

    def published(self, setting: str) -> list[Finding]:
        raise Untold(ONLY_DRAWN)

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        own = {}
        for family in (self.wide, self.narrow):
            run = next((r for r in runs if r.family == family), None)
            if run is None:
                raise Untold(
                    f"it takes a run of {quoted.NAMES[self.wide]} and one of {quoted.NAMES[self.narrow]}"
                )
            method = run.like(quoted.method(family, self.method))
            own[family] = (run, method, *run.switches(method))
        (wide, a, steps_a, never_a), (narrow, b, steps_b, never_b) = own[self.wide], own[self.narrow]
        told = inference.log_variance_ratio(steps_a, steps_b, paired=False)
        names = f"{quoted.NAMES[self.wide]} over {quoted.NAMES[self.narrow]}"
        return [
            measured(
                f"standard deviation of the switch step of {a.label}, {names}",
                "×",
                told,
                lambda x: math.exp(x / 2),
                bound=1.0,
                at=0.0,
                note=f"never switched, and left out: {never_a} and {never_b} videos",
                methods=(a.method_id, b.method_id),
                columns=("switch_step",),
                run=f"{wide.run.run}, {narrow.run.run}",
            )
        ]
