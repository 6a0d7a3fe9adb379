"""Which scores a cell should have, which it has, and how the others are computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UserError
from srbench.metrics.base import (
    Metric,
    Prepares,
    Similarity,
    Through,
    all_facts,
    compare_many,
    facts,
    has_dimensions,
    unavailable,
)
from srbench.store.records import CellRecord, MetricFacts, Outcome, Score
from srbench.video import Video

Chunks = Callable[[CellRecord], Iterator[Video]]
NO_REFERENCE = "the reference's video of this prompt and seed is missing"


def kept(
    cell: CellRecord, reference: CellRecord | None, wanted: Mapping[str, MetricFacts]
) -> dict[str, Score]:
    """The wanted scores that a cell has: by the same definition, against the same reference."""
    return {
        s.metric.name: s
        for s in cell.scores
        if s.outcome == "done" and s.metric == wanted.get(s.metric.name) and _is_against(s, reference)
    }


def _is_against(score: Score, reference: CellRecord | None) -> bool:
    """Whether a score was taken against this reference, or needs none."""
    video = reference.video if reference else None
    return score.reference == (video if score.metric.needs_reference else None)


def _unasked(cell: CellRecord, reference: CellRecord | None, asked: Collection[str]) -> tuple[Score, ...]:
    """Scores that another job or VBench's pass made, and that are true of the cell still.

    A job without a reference has nothing to judge them by and leaves them.
    """
    others = (s for s in cell.scores if s.metric.name not in asked)
    return tuple(s for s in others if reference is None or _is_against(s, reference))


def merged(cell: CellRecord, there: CellRecord | None, reference: CellRecord | None) -> CellRecord:
    """A cell with what others wrote of the same video into its record `there` since it was read."""
    if there is None or cell.outcome != "done" or there.video != cell.video:
        return cell
    own = {s.metric.name: s for s in cell.scores}
    asked = {name for name, s in own.items() if not s.made}  # what is `made` elsewhere is newer there
    theirs = {s.metric.name: s for s in _unasked(there, reference, asked)}
    for s in (s for s in there.scores if s.outcome == "done" and _is_against(s, reference)):
        mine = own.get(s.metric.name)
        if mine is not None and mine.outcome != "done" and mine.metric == s.metric:
            theirs[s.metric.name] = s
    return cell.model_copy(update={"scores": tuple((own | theirs).values())})


def score_all(
    cells: Sequence[CellRecord], reference: CellRecord | None, metrics: Sequence[Metric], chunks: Chunks
) -> list[CellRecord]:
    """The cells of one prompt and seed with every score that the metrics give.

    What is there is kept, scores of metrics that are not asked for now included.

    chunks: reads a cell's video, a few frames at a time.  The reference is read, filtered and
    turned into features once for all cells, and a video that several cells have is scored
    once.  A score without a reference, or that this machine lacks something for, is
    "missing"; one whose metric refuses the video is "failed"; each with the reason.
    """
    scored = [_Scoring(cell, reference, metrics) for cell in cells]
    for own in scored:
        own.look(chunks)
    _compare(scored, reference, metrics, chunks)
    return [own.result() for own in scored]


class _Scoring:
    """One cell on its way to its scores, kept in the metrics' order."""

    def __init__(self, cell: CellRecord, reference: CellRecord | None, metrics: Sequence[Metric]) -> None:
        self.cell, self.reference, self.metrics = cell, reference, metrics
        self.wanted = all_facts(metrics, [cell.prompt]) if cell.outcome == "done" else {}
        self.scores = kept(cell, reference, self.wanted)

    def lacks(self, metric: Metric) -> bool:
        return self.cell.outcome == "done" and not set(facts(metric, self.cell.prompt)) <= set(self.scores)

    def look(self, chunks: Chunks) -> None:
        """Score what needs no reference, and say what cannot be scored."""
        for metric in filter(self.lacks, self.metrics):
            asked = facts(metric, self.cell.prompt)
            lacking = unavailable(metric)
            if lacking:
                self.note(metric, "missing", lacking)
            elif has_dimensions(metric):
                try:
                    values = metric(_whole(chunks(self.cell)), self.cell.prompt)
                except UserError as error:
                    self.note(metric, "failed", f"{error.got}; {error.do}")
                else:
                    self.scores |= {n: Score(metric=f, value=values[n]) for n, f in asked.items()}
            elif self.reference is None:
                self.note(metric, "missing", NO_REFERENCE)

    def note(self, metric: Metric, outcome: Outcome, reason: str) -> None:
        for name, f in facts(metric, self.cell.prompt).items():
            video = self.reference.video if self.reference and f.needs_reference else None
            self.scores[name] = Score(metric=f, value=None, reference=video, outcome=outcome, reason=reason)

    def add(self, metric: Similarity, per_frame: NDArray[np.float64]) -> None:
        assert self.reference is not None
        ((name, own),) = facts(metric, self.cell.prompt).items()
        self.scores[name] = Score(
            metric=own,
            value=float(per_frame.mean()),
            per_frame=tuple(map(float, per_frame)),
            reference=self.reference.video,
        )

    def result(self) -> CellRecord:
        if self.cell.outcome != "done":
            return self.cell
        ordered = tuple(self.scores[name] for name in self.wanted if name in self.scores)
        others = _unasked(self.cell, self.reference, self.wanted)
        return self.cell.model_copy(update={"scores": (*ordered, *others)})


def _compare(
    scored: Sequence[_Scoring], reference: CellRecord | None, metrics: Sequence[Metric], chunks: Chunks
) -> None:
    """Score what needs the reference; videos that lack the same metrics go through together."""
    groups: dict[tuple[int, ...], dict[str, list[_Scoring]]] = {}
    for own in scored if reference else ():
        lacking = tuple(i for i, m in enumerate(metrics) if not has_dimensions(m) and own.lacks(m))
        groups.setdefault(lacking, {}).setdefault(own.cell.video or own.cell.id, []).append(own)
    for lacking, videos in groups.items():
        asked = [m for i in lacking if not has_dimensions(m := metrics[i])]
        if reference and asked:
            _compare_group(list(videos.values()), reference, asked, chunks)


def _compare_group(
    videos: Sequence[Sequence[_Scoring]], reference: CellRecord, metrics: Sequence[Similarity], chunks: Chunks
) -> None:
    """All videos (each of one or several cells) by all metrics; a metric that refuses fails alone."""
    together = _together(metrics)
    for own_way in together:
        found = _many(videos, reference, own_way, chunks)
        for i, cells in enumerate(videos):
            for j, metric in enumerate(own_way):
                if found is None:  # one by one, to see whom it concerns
                    _alone(cells, reference, metric, chunks)
                else:
                    _note_all(cells, metric, found[i][j])
    for metric in (m for m in metrics if not isinstance(_inside(m), Prepares)):
        for cells in videos:
            _alone(cells, reference, metric, chunks)


def _together(metrics: Sequence[Similarity]) -> list[list[Similarity]]:
    """Metrics that look at the same frames a few at a time: on the videos themselves, then by each way."""
    ways: dict[str, list[Similarity]] = {}
    for metric in metrics:
        if isinstance(_inside(metric), Prepares):
            ways.setdefault(metric.way if isinstance(metric, Through) else "", []).append(metric)
    return list(ways.values())


def _inside(metric: Similarity) -> Similarity:
    return metric.inside if isinstance(metric, Through) else metric


def _many(
    videos: Sequence[Sequence[_Scoring]], reference: CellRecord, metrics: Sequence[Similarity], chunks: Chunks
) -> list[list[NDArray[np.float64]]] | None:
    """Values [video][metric] of metrics that go together; None where anything is refused."""
    way = metrics[0]

    def come_out(cell: CellRecord) -> Iterator[Video]:
        return way.through(chunks(cell)) if isinstance(way, Through) else chunks(cell)

    try:
        each = [come_out(v[0].cell) for v in videos]
        return compare_many([_inside(m) for m in metrics], each, come_out(reference))
    except UserError:
        return None


def _alone(cells: Sequence[_Scoring], reference: CellRecord, metric: Similarity, chunks: Chunks) -> None:
    try:
        per_frame = metric(_whole(chunks(cells[0].cell)), _whole(chunks(reference)))
    except UserError as error:
        for own in cells:
            own.note(metric, "failed", f"{error.got}; {error.do}")
    else:
        _note_all(cells, metric, per_frame)


def _note_all(cells: Sequence[_Scoring], metric: Similarity, per_frame: NDArray[np.float64]) -> None:
    for own in cells:
        own.add(metric, per_frame)


def _whole(parts: Iterator[Video]) -> Video:
    return np.concatenate(list(parts))
