"""What any δ would have done, read off a run's stored traces: its switch steps, cost and similarity.

The reference runs all steps with the large model, so its trace shows after which step every δ
would switch.  A video depends on its switch step and not on the rule that chose it.  So each video
of the run that goes from the large to the small model is one exact point of the prompt's curve,
whether a fixed step or a δ chose its switch; the small model alone is the point of step 0.  Between
two points the curve is interpolated.  Outside them it is not known, and such a δ is refused.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.analysis import latency
from srbench.errors import UserError
from srbench.rules.base import replay
from srbench.rules.srdiffusion import SRDiffusion
from srbench.store.records import CellRecord, RunRecord

Key = tuple[int, int]  # prompt's number and seed
FEWEST_POINTS = 2


@dataclass(frozen=True, eq=False)
class Replayed:
    """What each of some δ would do.

    Attributes:
        deltas: (D,), as they were given.
        steps: (V, D), after how many steps each of V videos would switch; all steps: never.
        speedup: (D,), latency of the reference over that of the δ; NaN where it is not known.
        similarity: (V, D), each video's score; NaN in every row where it is not known for some.
        computed: (D,), share of the videos that the run has, and that are not interpolated.
        reasons: by δ, why its cost and similarity are not known; empty where they are.
    """

    deltas: NDArray[np.float64]
    steps: NDArray[np.int64]
    speedup: NDArray[np.float64]
    similarity: NDArray[np.float64]
    computed: NDArray[np.float64]
    reasons: tuple[str, ...]

    def best(self, speedup: float) -> int:
        """Return the place of the δ with the most similarity among those with at least this speedup.

        Raises:
            UserError: Where no δ is known to have it.
        """
        known = np.flatnonzero([not reason for reason in self.reasons])
        if not len(known):
            raise UserError(
                f"no δ whose videos can be known: δ={self.deltas[0]:.4g} {self.reasons[0]}",
                "switch steps between two that the run has",
                "run more fixed switches: python -m srbench -m method.fixed_step.step=…",
            )
        fast = known[self.speedup[known] >= speedup]
        if not len(fast):
            most = known[np.argmax(self.speedup[known])]
            raise UserError(
                f"a speedup of {speedup:g}×",
                f"at most {self.speedup[most]:.2f}×, that of δ={self.deltas[most]:.4g}",
                "accept less, or run an earlier fixed switch and a larger δ",
            )
        return int(fast[np.argmax(self.similarity[:, fast].mean(0))])


def replayed(
    run: RunRecord, cells: Sequence[CellRecord], deltas: Sequence[float], metric: str = "psnr"
) -> Replayed:
    """Return what each δ would do in this run.

    Args:
        run: The run's record.
        cells: Its cells, with the change D in the traces of the reference.
        deltas: (D,), each in (0, 1).
        metric: The similarity's name.

    Raises:
        UserError: Where the run has no trace of the reference, or fewer than two switch steps.
    """
    reference = {_key(c): c for c in cells if c.is_reference and c.outcome == "done" and c.trace is not None}
    if not reference:
        raise UserError("a run without a trace of the reference", "one that srbench made", "name another run")
    points = _Points(run, cells, reference, metric)
    rule = _rule(cells)
    keys = [key for key in reference if key in points.scores]
    steps = np.array([[_switch(rule, d, reference[k]) for d in deltas] for k in keys], np.int64)
    reasons = tuple(points.reason(keys, own) for own in steps.T)
    known = np.array([not reason for reason in reasons])
    similarity = np.array([_interpolated(own, points.scores[k]) for k, own in zip(keys, steps, strict=True)])
    cost = np.array([_interpolated(own, points.seconds) for own in steps]).mean(0)
    computed = np.array([[s in points.scores[k] for s in own] for k, own in zip(keys, steps, strict=True)])
    return Replayed(
        np.asarray(deltas, np.float64),
        steps,
        np.where(known, points.reference_seconds / cost, np.nan),
        np.where(known, similarity, np.nan),
        computed.mean(0),
        reasons,
    )


def _rule(cells: Iterable[CellRecord]) -> Any:
    """The rule as the run's own rows have it, but for δ; as it is by default where there are none."""
    rules = [c.path[0].get("until") or {} for c in cells if c.path]
    known = [{k: v for k, v in r.items() if k != "kind"} for r in rules if r.get("kind") == "srdiffusion"]
    return SRDiffusion(**known[0]) if known else SRDiffusion()


def _switch(rule: Any, delta: float, cell: CellRecord) -> int:
    """After how many steps δ would have switched; all of them where it never fires."""
    assert cell.trace is not None
    fired = replay(dataclasses.replace(rule, delta=float(delta)), cell.trace)
    return len(cell.trace) if fired is None else fired


def _key(cell: CellRecord) -> Key:
    return cell.prompt_index, cell.seed


def _interpolated(steps: NDArray[np.int64], points: Mapping[int, float]) -> NDArray[np.float64]:
    """Linear between points, NaN outside."""
    at = sorted(points)
    return np.interp(steps, at, [points[k] for k in at], left=np.nan, right=np.nan)


class _Points:
    """The videos of a run that go from the large to the small model, by their switch step.

    scores: by prompt and seed, of each switch step.  seconds: a video's latency by switch step,
    the mean over the videos that have it.
    """

    def __init__(
        self, run: RunRecord, cells: Sequence[CellRecord], reference: Mapping[Key, CellRecord], metric: str
    ) -> None:
        self.scores: dict[Key, dict[int, float]] = defaultdict(dict)
        seconds: dict[int, list[float]] = defaultdict(list)
        work, stages = latency.work_seconds(cells), latency.stage_seconds(cells)

        def latency_of(cell: CellRecord) -> float:
            try:
                return sum(latency.cell_latency(cell, work, stages).values())
            except LookupError as error:
                raise UserError(
                    f"{cell.label}: {error}", "step times of every method", "time them: timing=exclusive"
                ) from None

        for cell, step in _switching(run, cells, reference):
            score = next((s.value for s in cell.scores if s.metric.name == metric), None)
            if score is not None:
                self.scores[_key(cell)][step] = score
                seconds[step].append(latency_of(cell))
        self.seconds = {step: float(np.mean(own)) for step, own in seconds.items()}
        self.reference_seconds = float(np.mean([latency_of(c) for c in reference.values()]))
        self._all_steps = max(len(c.trace or ()) for c in reference.values())
        if len(self.seconds) < FEWEST_POINTS:
            have = ", ".join(map(str, self.seconds)) or "none"
            raise UserError(
                f"switch steps with videos and {metric}: {have}",
                f"at least {FEWEST_POINTS} switch steps from the large to the small model",
                "run more of them: python -m srbench -m method.fixed_step.step=6,10,20,40",
            )

    def reason(self, keys: Sequence[Key], steps: NDArray[np.int64]) -> str:
        """Why a δ with these switch steps cannot be known; empty where it can."""
        outside = Counter(
            "never switches" if step == self._all_steps else f"switches after {step} steps"
            for key, step in zip(keys, steps.tolist(), strict=True)
            if not min(self.scores[key]) <= step <= max(self.scores[key])
        )
        if not outside:
            return ""
        ((what, count),) = outside.most_common(1)
        return (
            f"{what} in {count} of {len(keys)} videos, and the run has switches "
            f"after {min(self.seconds)} to {max(self.seconds)} steps"
        )


def _switching(
    run: RunRecord, cells: Sequence[CellRecord], reference: Mapping[Key, CellRecord]
) -> list[tuple[CellRecord, int]]:
    """The cells that start as the reference does and end with the small model, with their switch step."""
    large = next(iter(reference.values())).path[0]["denoiser"]
    small = {**large, "model": "small"}
    own = {m.id for m in run.methods if m.sampler is not None}
    found = []
    for cell in cells:
        base = reference.get(_key(cell))
        if base is None or cell.outcome != "done" or cell.trace is None or cell.method_id in own:
            continue
        is_alike = len(cell.trace) == len(base.trace or ()) and cell.noise_seed == base.noise_seed
        denoisers = [segment["denoiser"] for segment in cell.path]
        if is_alike and denoisers == [large, small] and cell.trace.switches:
            found.append((cell, cell.trace.switches[0]))
        elif is_alike and denoisers == [small]:
            found.append((cell, 0))
    return found
