"""Tests of claims about similarity to the large model's videos: LPIPS, PSNR, SSIM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from srbench.analysis import inference
from srbench.analysis.quantities import Contender
from srbench.paper.claims import quoted
from srbench.paper.claims.base import Finding, Untold, measured
from srbench.paper.claims.evidence import SAME_SPEED, Evidence
from srbench.paper.claims.scores import others


def compared(run: Evidence, method: Contender, other: Contender, column: str, **more: Any) -> Finding:
    """One method against another in one measure; the claim has the first closer to the large model."""
    facts = run.quantity(column).column
    return measured(
        f"{quoted.ABOUT[column]} of {method.label} minus that of {other.label}",
        facts.unit,
        inference.difference(run.values(method, column), run.values(other, column)),
        above=facts.higher_is_better is True,
        methods=(method.method_id, other.method_id),
        columns=(facts.key,),
        run=run.run.run,
        **more,
    )


def printed(
    setting: str, method: str, other: str, column: str, tables: Sequence[str], **more: Any
) -> Finding:
    """The same of printed numbers."""
    own, its = (quoted.need(setting, m, column, tables) for m in (method, other))
    names = [quoted.label(setting, m) for m in (method, other)]
    return quoted.difference(
        own,
        its,
        f"{quoted.ABOUT[column]} of {names[0]} minus that of {names[1]}",
        quoted.UNITS.get(column, ""),
        above=own.higher_is_better,
        **more,
    )


def similarities(run: Evidence) -> list[str]:
    """Those of the paper's three that the run has.  Raises Untold where it has none."""
    found = [c for c in quoted.SIMILARITY if c in run.quantities]
    if not found:
        raise Untold("the run has neither LPIPS, PSNR nor SSIM")
    return found


@dataclass(frozen=True)
class Closer:
    """Closer to the large model than every PAB and TeaCache, and as fast or faster.

    A rival that is faster and less close contradicts nothing and counts for nothing; one that
    is faster and closer does.  tables: of the paper, whose rivals.  within: if only rivals are
    meant that are at most that share slower.
    """

    method: str
    setting: str
    tables: tuple[str, ...]
    within: float | None = None

    def published(self, setting: str) -> list[Finding]:
        speed = quoted.need(setting, self.method, "speedup", self.tables)
        found = []
        for rival in quoted.baselines(setting, self.tables):
            its = quoted.need(setting, rival, "speedup", self.tables)
            note = f"{speed.text}× against {its.text}×"
            for column in quoted.SIMILARITY:
                one = printed(setting, self.method, rival, column, self.tables, note=note)
                found.append(self._weighed(one, speed.value, its.value))
        return found

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        method = run.like(quoted.method(self.setting, self.method))
        rivals, absent = others(run, self.tables)
        own_speed = _speed(run, method)
        found = []
        for rival in rivals:
            speed = _speed(run, rival)
            est = " est." * run.estimated
            note = f"{own_speed:.2f}× against {speed:.2f}×{est}"
            for column in similarities(run):
                one = compared(run, method, rival, column, note=note)
                found.append(self._weighed(one, own_speed, speed))
        return [*found, *absent]

    def _weighed(self, finding: Finding, own: float, other: float) -> Finding:
        """A rival that is faster counts only where it is closer too; one that is much slower may not."""
        faster = other > own * (1 + SAME_SPEED) and finding.word != "does not hold"
        slower = self.within is not None and other < own * (1 - self.within)
        return replace(finding, counts=False) if faster or slower else finding


def _speed(run: Evidence, method: Contender) -> float:
    found = run.row(method, "speedup")
    if found.value is None or found.pooled:
        why = "has no speedup" if found.value is None else "has a speedup that rests on times of several jobs"
        raise Untold(f"{method.label} {why}")
    return found.value


@dataclass(frozen=True)
class FollowsMore:
    """Of each two neighbouring δ the smaller is closer to the large model, in all three measures."""

    tables: tuple[str, ...]

    def published(self, setting: str) -> list[Finding]:
        pairs = pairwise(quoted.adaptive(setting, self.tables))
        return [printed(setting, a, b, c, self.tables) for a, b in pairs for c in quoted.SIMILARITY]

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        methods = sorted(run.matching(quoted.SRD), key=lambda pair: float(pair[1][1]))
        if len(methods) < 2:
            raise Untold("the run has fewer than two δ of plain SRDiffusion")
        pairs = pairwise([m for m, _ in methods])
        return [compared(run, a, b, column) for a, b in pairs for column in similarities(run)]
