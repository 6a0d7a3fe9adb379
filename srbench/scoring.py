"""Which scores a cell should have, which it has, and how the others are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from srbench.metrics.base import Metric, Similarity, all_facts, facts, has_dimensions
from srbench.store.records import CellRecord, MetricFacts, Score
from srbench.video import Video


def kept(
    cell: CellRecord, reference: CellRecord | None, wanted: Mapping[str, MetricFacts]
) -> dict[str, Score]:
    """The wanted scores that a cell has: by the same definition, against the same reference."""
    video = reference.video if reference else None
    return {
        s.metric.name: s
        for s in cell.scores
        if s.outcome == "done"
        and s.metric == wanted.get(s.metric.name)
        and s.reference == (video if s.metric.needs_reference else None)
    }


def is_scored(cell: CellRecord, reference: CellRecord | None, metrics: Sequence[Metric]) -> bool:
    """Whether a finished cell has every score that the metrics give for its prompt."""
    wanted = all_facts(metrics, [cell.prompt])
    return len(kept(cell, reference, wanted)) == len(wanted)


def score(
    cell: CellRecord,
    reference: CellRecord | None,
    metrics: Sequence[Metric],
    pixels: Callable[[CellRecord], Video],
) -> CellRecord:
    """The cell with every score that the metrics give; what it has already is kept.

    pixels: reads the video of a cell.  A score that needs a missing reference is "missing".
    """
    if cell.outcome != "done":
        return cell
    scores = kept(cell, reference, all_facts(metrics, [cell.prompt]))
    for metric in metrics:
        asked = facts(metric, cell.prompt)
        if set(asked) <= set(scores):
            continue
        if has_dimensions(metric):
            values = metric(pixels(cell), cell.prompt)
            scores |= {n: Score(metric=f, value=values[n], reference=None) for n, f in asked.items()}
        else:
            scores[metric.facts.name] = _compare(metric, cell, reference, pixels)
    return cell.model_copy(update={"scores": tuple(scores.values())})


def _compare(
    metric: Similarity, cell: CellRecord, reference: CellRecord | None, pixels: Callable[[CellRecord], Video]
) -> Score:
    if reference is None:
        reason = "the reference's video of this prompt and seed is missing"
        return Score(metric=metric.facts, value=None, reference=None, outcome="missing", reason=reason)
    per_frame = metric(pixels(cell), pixels(reference))
    return Score(
        metric=metric.facts,
        value=float(per_frame.mean()),
        per_frame=tuple(map(float, per_frame)),
        reference=reference.video,
    )
