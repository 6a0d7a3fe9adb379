"""Tests of claims about a suite's scores: quality, semantic and total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from srbench.analysis import inference
from srbench.analysis.quantities import Contender
from srbench.paper.claims import quoted
from srbench.paper.claims.base import Finding, Untold, measured
from srbench.paper.claims.evidence import Evidence

KEPT = 50.0  # % of the large model's lead that must be kept: the margin is the other half
POINTS = 0.3  # the other margin, told beside it
PERCENT = 100.0


@dataclass(frozen=True)
class NextToNoLoss:
    """Non-inferiority to the large model in the total, with assay sensitivity.

    The margin is half of the large model's lead over the small one, told as the share of
    that lead which is kept: where it is above ½, the loss is below half the lead, with the
    lead's own error counted. Beside it 0.3 points.  Printed totals have no errors; a lead of
    less than those 0.3 points is then taken as not resolved.
    """

    method: str
    setting: str

    def published(self, setting: str) -> list[Finding]:
        name = quoted.label(setting, self.method)
        own, large, small = (quoted.need(setting, m, "vbench/total") for m in (self.method, "large", "small"))
        lead = quoted.difference(large, small, "lead", "points")
        if (lead.estimate or 0.0) <= POINTS:
            raise Untold(
                f"the large model leads the small one by {lead.estimate:.2f} points only, printed without "
                "errors: no loss could be seen"
            )
        kept = quoted.finding(
            f"share of the large model's lead of {lead.estimate:.2f} points that {name} keeps",
            "%",
            lambda m, top, s: PERCENT * (m - s) / (top - s),
            (own, large, small),
            bound=KEPT,
        )
        margin = quoted.difference(
            own,
            large,
            f"total of {name} minus the large model's",
            "points",
            bound=-POINTS,
            counts=False,
        )
        return [kept, margin]

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        method = run.like(quoted.method(self.setting, self.method))
        small = run.combined([(1.0, run.small, "total"), (-1.0, run.large, "total")])
        own = run.combined([(1.0, method, "total"), (-1.0, run.large, "total")])
        share = run.retained(method)
        about: dict[str, Any] = {
            "methods": tuple(m.method_id for m in (run.large, run.small, method)),
            "columns": (f"{run.suite}/total",),
            "run": run.run.run,
        }
        lead = -(small.estimate or 0.0)
        kept = measured(
            f"share of the large model's lead of {lead:.1f} points in the total that {method.label} keeps",
            "%",
            share,
            lambda x: PERCENT * x,
            bound=KEPT,
            at=KEPT / PERCENT,
            reason=inference.insensitive(small, lead / 2),
            **about,
        )
        margin = measured(
            f"total of {method.label} minus the large model's",
            "points",
            own,
            bound=-POINTS,
            counts=False,
            reason=inference.insensitive(small, POINTS),
            **about,
        )
        return [kept, margin]


@dataclass(frozen=True)
class ScoresAbove:
    """A method scores above rivals: all PAB and TeaCache settings of `tables`, or `rivals`.

    groups: of total, quality, semantic, each a comparison.
    """

    method: str
    setting: str
    tables: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("total",)

    def published(self, setting: str) -> list[Finding]:
        name = quoted.label(setting, self.method)
        found = []
        for group in self.groups:
            column = f"vbench/{group}"
            own = quoted.need(setting, self.method, column, self.tables)
            for rival in self.rivals or quoted.baselines(setting, self.tables):
                other = quoted.need(setting, rival, column, self.tables)
                what = f"{quoted.ABOUT[group]} of {name} minus that of {quoted.label(setting, rival)}"
                found.append(quoted.difference(own, other, what, "points"))
        return found

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        method = run.like(quoted.method(self.setting, self.method))
        rivals, absent = others(run, self.tables, self.rivals)
        found = [self._one(run, method, rival, group) for group in self.groups for rival in rivals]
        return [*found, *absent]

    def _one(self, run: Evidence, method: Contender, rival: Contender, group: str) -> Finding:
        return measured(
            f"{quoted.ABOUT[group]} of {method.label} minus that of {rival.label}",
            "points",
            run.combined([(1.0, method, group), (-1.0, rival, group)]),
            methods=(method.method_id, rival.method_id),
            columns=(f"{run.suite}/{group}",),
            run=run.run.run,
        )


def others(
    run: Evidence, tables: Sequence[str], named: Sequence[str] = ()
) -> tuple[list[Contender], list[Finding]]:
    """Whom a method is compared with in a run, and a finding for each that the run lacks.

    Of a setting of the paper, those of its tables; of another family all PAB and TeaCache
    that the run has, whatever their settings.  Raises Untold where there is none.
    """
    found, absent = [], []
    if run.family in quoted.NAMES:
        for key in named or quoted.baselines(run.family, tables):
            try:
                found.append(_own(run, run.family, key))
            except Untold as why:
                absent.append(
                    Finding(
                        f"beside {quoted.label(run.family, key)}",
                        "",
                        None,
                        None,
                        None,
                        reason=str(why),
                        run=run.run.run,
                    )
                )
    elif named:
        found = [_own(run, "wan21_480p", key) for key in named]
    else:
        found = [m for m, _ in run.matching(quoted.BASELINE)]
    if not found:
        raise Untold(
            absent[0].reason if absent else "the run has neither PAB nor TeaCache on the large model"
        )
    return found, absent


def _own(run: Evidence, setting: str, key: str) -> Contender:
    if key in ("large", "small"):
        return run.large if key == "large" else run.small
    return run.like(quoted.method(setting, key))


@dataclass(frozen=True)
class GapIsIn:
    """The large model leads the small one by more in one group than in another.

    more, less: of quality, semantic, total; `less` empty: more than 0.  turned: the small
    model is said to lead.  tables: of the paper, each a comparison.
    """

    more: str
    less: str
    tables: tuple[str, ...]
    turned: bool = False

    def published(self, setting: str) -> list[Finding]:
        return [self._printed(setting, table) for table in self.tables]

    def _printed(self, setting: str, table: str) -> Finding:
        groups = [g for g in (self.more, self.less) if g]
        numbers = [
            quoted.need(setting, m, f"vbench/{g}", (table,)) for g in groups for m in ("large", "small")
        ]
        sign = -1.0 if self.turned else 1.0
        gaps = ", ".join(
            f"{g} {sign * (a.value - b.value):+.2f}".replace("-", "−")
            for g, a, b in zip(groups, numbers[::2], numbers[1::2], strict=True)
        )
        return quoted.finding(
            f"{self._what} (Table {table}: {gaps})",
            "points",
            lambda *v: sign * (v[0] - v[1] - (v[2] - v[3] if len(v) > 2 else 0.0)),
            numbers,
        )

    @property
    def _what(self) -> str:
        first, second = ("small", "large") if self.turned else ("large", "small")
        lead = f"lead of the {first} model over the {second} one in {quoted.ABOUT[self.more]}"
        return lead + (f" minus that in {quoted.ABOUT[self.less]}" if self.less else "")

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        sign = -1.0 if self.turned else 1.0
        parts = [(sign, run.large, self.more), (-sign, run.small, self.more)]
        gaps = [(self.more, run.combined(parts).estimate or 0.0)]
        if self.less:
            rest = [(sign, run.large, self.less), (-sign, run.small, self.less)]
            gaps.append((self.less, run.combined(rest).estimate or 0.0))
            parts += [(-w, m, g) for w, m, g in rest]
        said = ", ".join(f"{g} {v:+.1f}".replace("-", "−") for g, v in gaps)
        return [
            measured(
                f"{self._what} ({said})",
                "points",
                run.combined(parts),
                digits=1,
                methods=(run.large.method_id, run.small.method_id),
                columns=tuple(f"{run.suite}/{g}" for g, _ in gaps),
                run=run.run.run,
            )
        ]
