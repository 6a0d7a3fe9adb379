"""Tests of claims about speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from srbench.paper.claims import quoted
from srbench.paper.claims.base import Finding, Untold, measured
from srbench.paper.claims.evidence import Evidence


@dataclass(frozen=True)
class Faster:
    """A method's speedup over the large model is above a factor.

    method: of the paper.  factor: as claimed.  slack: the share of it that may be lacking, for
    a claim of so many times, not of more than so many.  setting: whose method it is.
    """

    method: str
    factor: float
    setting: str
    slack: float = 0.0

    @property
    def bound(self) -> float:
        return self.factor * (1 - self.slack)

    @property
    def because(self) -> str:
        return f", {100 * self.slack:g} % below the {self.factor:g}× claimed" if self.slack else ""

    def published(self, setting: str) -> list[Finding]:
        name = quoted.label(setting, self.method)
        speedup = quoted.find(setting, self.method, "speedup")
        if speedup is None:
            large, own = (quoted.need(setting, m, "latency") for m in ("large", self.method))
            return [
                quoted.finding(
                    f"speedup of {name}, from the latencies",
                    "×",
                    lambda a, b: a / b,
                    (large, own),
                    bound=self.bound,
                    because=self.because,
                )
            ]
        return [
            quoted.finding(
                f"speedup of {name}", "×", lambda s: s, (speedup,), bound=self.bound, because=self.because
            )
        ]

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        method = run.small if self.method == "small" else run.like(quoted.method(self.setting, self.method))
        return [
            measured(
                f"speedup of {method.label}",
                "×",
                run.speedup(method),
                math.exp,
                bound=self.bound,
                at=math.log(self.bound),
                because=self.because,
                note=f"on {run.run.device}",
                methods=(run.large.method_id, method.method_id),
                columns=("speedup", "latency"),
                run=run.run.run,
                estimated=run.estimated,
            )
        ]


@dataclass(frozen=True)
class FastestOfAll:
    """Even the slowest plain SRDiffusion is faster than the fastest PAB or TeaCache.

    tables: of the paper; its methods are those with a row there.
    """

    tables: tuple[str, ...]

    def published(self, setting: str) -> list[Finding]:
        own = [quoted.need(setting, m, "speedup", self.tables) for m in quoted.adaptive(setting, self.tables)]
        others = [
            quoted.need(setting, m, "speedup", self.tables) for m in quoted.baselines(setting, self.tables)
        ]
        slowest, fastest = min(own, key=lambda v: v.value), max(others, key=lambda v: v.value)
        names = [quoted.label(setting, v.method) for v in (slowest, fastest)]
        what = f"speedup of {names[0]}, the slowest, over that of {names[1]}, the fastest other"
        return [quoted.finding(what, "×", lambda a, b: a / b, (slowest, fastest), bound=1.0)]

    def measured(self, runs: Sequence[Evidence]) -> list[Finding]:
        run = runs[0]
        own = [m for m, _ in run.matching(quoted.SRD)]
        others = [m for m, _ in run.matching(quoted.BASELINE)]
        if not own or not others:
            raise Untold(f"the run has no {'PAB or TeaCache' if own else 'SRDiffusion'}")
        speed = {m.method_id: run.row(m, "speedup").value or 0.0 for m in [*own, *others]}
        slowest = min(own, key=lambda m: speed[m.method_id])
        fastest = max(others, key=lambda m: speed[m.method_id])
        return [
            measured(
                f"speed of {slowest.label}, the slowest, over that of {fastest.label}, the fastest other",
                "×",
                run.speedup(slowest, fastest),
                math.exp,
                bound=1.0,
                at=0.0,
                methods=(slowest.method_id, fastest.method_id),
                columns=("latency",),
                run=run.run.run,
                estimated=run.estimated,
            )
        ]
