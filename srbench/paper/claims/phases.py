"""Tests of claims about what happens when while a video is denoised (Figures 1 and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from srbench.analysis import inference, statistics
from srbench.analysis.quantities import Contender, Key
from srbench.paper.claims import quoted
from srbench.paper.claims.base import Finding, Untold, measured
from srbench.paper.claims.closeness import similarities
from srbench.paper.claims.evidence import Evidence
from srbench.paper.claims.switching import ONLY_DRAWN

EARLY = 0.2  # the first ten of the paper's 50 steps
FEW_KEPT = 0.1  # of its first size, where a change is called settled


@dataclass(frozen=True)
class EarlyStepsMatter:
    """Noise put into the first steps changes the video more than the same noise later on.

    Early: after a step up to a fifth of all, as the paper's 10 of 50.  Semantic score and
    similarity to the undisturbed video, each the mean over the disturbed methods on its side.
    """

    def published(self, setting: str) -> list[Finding]:
        raise Untold(ONLY_DRAWN)

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        steps = _disturbed(run)
        if not steps:
            raise Untold("the run has no disturbed method (experiment fig1 has them)")
        last = EARLY * _length(run)
        early = [m for k, m in steps if k <= last]
        late = [m for k, m in steps if k > last]
        if not early or not late:
            raise Untold(f"the run has noise only {'after' if late else 'up to'} step {last:g}")
        said = f"noise after step {_steps(steps, late)} minus noise after step {_steps(steps, early)}"
        about: dict[str, Any] = {"methods": tuple(m.method_id for _, m in steps), "run": run.run.run}
        found = []
        for column in similarities(run):
            facts = run.quantity(column).column
            told = inference.difference(_pooled(run, late, column), _pooled(run, early, column))
            lost = inference.dropped(*(run.values(m, column) for m in (*late, *early)))
            found.append(
                measured(
                    f"{quoted.ABOUT[column]} with {said}",
                    facts.unit,
                    replace(told, dropped=lost),
                    above=facts.higher_is_better is True,
                    columns=(facts.key,),
                    **about,
                )
            )
        return [*self._semantic(run, early, late, said, about), *found]

    def _semantic(
        self,
        run: Evidence,
        early: Sequence[Contender],
        late: Sequence[Contender],
        said: str,
        about: Mapping[str, Any],
    ) -> list[Finding]:
        """Nothing where the run has no semantic score, as with a part of VBench's prompts."""
        parts = [(1 / len(late), m, "semantic") for m in late] + [
            (-1 / len(early), m, "semantic") for m in early
        ]
        try:
            told = run.combined(parts)
        except Untold:
            return []
        return [
            measured(
                f"semantic score with {said}", "points", told, columns=(f"{run.suite}/semantic",), **about
            )
        ]


def _disturbed(run: Evidence) -> list[tuple[int, Contender]]:
    """The large model with noise put in after a step, by that step."""
    found = []
    for method in run.contenders:
        path: Sequence[Any] = run.path(method)
        denoisers = [s.get("denoiser") or {} for s in path]
        if (
            len(path) == 2
            and denoisers[1].get("disturb")
            and all(d.get("model") == "large" for d in denoisers)
        ):
            until = path[0].get("until") or {}
            if method.cells and until.get("kind") == "fixed_step":
                found.append((int(until["step"]), method))
    return sorted(found, key=lambda pair: pair[0])


def _steps(steps: Sequence[tuple[int, Contender]], own: Sequence[Contender]) -> str:
    return ", ".join(str(k) for k, m in steps if m in own)


def _length(run: Evidence) -> int:
    return max((len(c.trace) for c in run.large.cells.values() if c.trace), default=quoted.STEPS)


def _pooled(run: Evidence, methods: Sequence[Contender], column: str) -> dict[Key, float]:
    """The mean over methods, of the videos that all have."""
    of = [run.values(m, column) for m in methods]
    return {k: fmean(v[k] for v in of) for k in of[0] if all(k in v for v in of)}


@dataclass(frozen=True)
class ChangeSettles:
    """d, by which D changes from step to step, is large at first, then smaller, then next to nothing.

    Mean |d| of the large model's runs over the steps that are 3–10, 11–20 and 21–50 of 50:
    the second below the first, the third below a tenth of it.  D is that of the signal that
    the family's switch rule looks at.
    """

    def published(self, setting: str) -> list[Finding]:
        raise Untold(ONLY_DRAWN)

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        means = _mean_changes(run)
        if not means:
            raise Untold("the large model's traces have no D")
        prompts = [k[0] for k in means]
        first, second, third = (list(v) for v in zip(*means.values(), strict=True))
        steps = _windows(_length(run))
        found = []
        for number, values, bound in ((1, second, 1.0), (2, third, FEW_KEPT)):
            names = [f"{a}–{b}" for a, b in (steps[number], steps[0])]
            told = inference.of_estimate(statistics.ratio_of_means(values, first, prompts))
            found.append(
                measured(
                    f"mean change of D ({run.signal}) in steps {names[0]} over that in steps {names[1]}",
                    "",
                    told,
                    bound=bound,
                    above=False,
                    methods=(run.large.method_id,),
                    columns=("trace",),
                    run=run.run.run,
                )
            )
        return found


def _windows(steps: int) -> list[tuple[int, int]]:
    """First and last step of each part, counted from 1."""
    ends = [round(share * steps) for share in (0.2, 0.4, 1.0)]
    return [(3, ends[0]), (ends[0] + 1, ends[1]), (ends[1] + 1, ends[2])]


def _mean_changes(run: Evidence) -> dict[Key, tuple[float, ...]]:
    """Mean |d| of each part, of each of the reference's videos."""
    windows = _windows(_length(run))
    found = {}
    for key, cell in run.large.cells.items():
        if cell.trace is None or any(
            s.change is None or run.signal not in s.change for s in cell.trace.steps[1:]
        ):
            continue
        d = np.abs(np.diff(cell.trace.change(run.signal)))  # d[i] is that of step i + 2, counted from 1
        parts = tuple(float(np.mean(d[a - 2 : b - 1])) for a, b in windows if len(d) >= b - 1 > a - 2)
        if len(parts) == len(windows) and all(np.isfinite(parts)):
            found[key] = parts
    return found
