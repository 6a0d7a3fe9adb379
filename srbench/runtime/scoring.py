"""Which scores a cell should have, which it has, and how the others are computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UserError
from srbench.metrics.base import (
    Dimensions,
    Floor,
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


def still_true(known: CellRecord, cell: CellRecord) -> tuple[Score, ...]:
    """A record's scores that hold for `cell`: those of the same bytes, decoded by the same decoder.

    What was computed elsewhere, as VBench's dimensions are, read the file in its own way.
    """
    if known.video != cell.video:
        return ()
    return tuple(s for s in known.scores if s.made or known.decoder == cell.decoder)


def merged(cell: CellRecord, there: CellRecord | None, reference: CellRecord | None) -> CellRecord:
    """A cell with what others wrote of the same video into its record `there` since it was read."""
    if there is None or cell.outcome != "done" or there.video != cell.video:
        return cell
    there = there.model_copy(update={"scores": still_true(there, cell)})
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

    chunks: reads a cell's video, CHUNK frames at a time.  The reference is read, filtered and
    turned into features once for all cells, and a video that several cells have is scored
    once.  A score without a reference, or that this machine lacks something for, is
    "missing"; one whose metric refuses the video is "failed"; each with the reason.
    """
    scored = [_Scoring(cell, reference, metrics) for cell in cells]
    read = _Reader(chunks)
    for own in scored:
        own.look(read)
    _compare(scored, reference, metrics, read)
    return [own.result() for own in scored]


class _Reader:
    """Reads cells' videos as a metric wants them; what they go through, each goes through once."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        self._encoded: dict[tuple[str, str], bytes] = {}

    def __call__(self, cell: CellRecord, metric: Metric) -> Iterator[Video]:
        """The video's chunks.  Raises UserError, at the latest when begun, where they can't be had."""
        if not isinstance(metric, Through):
            return self.chunks(cell)
        key = metric.way, cell.video or cell.id
        if key not in self._encoded:
            self._encoded[key] = metric.encoded(self.chunks(cell))
        return metric.decoded(self._encoded[key])

    def whole(self, cell: CellRecord) -> Video:
        return np.concatenate(list(self.chunks(cell)))


class _Scoring:
    """One cell on its way to its scores, kept in the metrics' order."""

    def __init__(self, cell: CellRecord, reference: CellRecord | None, metrics: Sequence[Metric]) -> None:
        self.cell, self.reference, self.metrics = cell, reference, metrics
        self.wanted = all_facts(metrics, [cell.prompt]) if cell.outcome == "done" else {}
        self.scores = kept(cell, reference, self.wanted)

    def lacks(self, metric: Metric) -> bool:
        return self.cell.outcome == "done" and not set(facts(metric, self.cell.prompt)) <= set(self.scores)

    def look(self, read: _Reader) -> None:
        """Score what needs no reference, and say what cannot be scored."""
        floors: dict[str, list[Floor]] = {}
        for metric in filter(self.lacks, self.metrics):
            lacking = unavailable(metric)
            if lacking:
                self.note(metric, "missing", lacking)
            elif isinstance(metric, Floor) and isinstance(metric.inside, Prepares):
                floors.setdefault(metric.way, []).append(metric)
            elif has_dimensions(metric):
                try:
                    self.add_dimensions(metric, metric(read.whole(self.cell), self.cell.prompt))
                except UserError as error:
                    self.refuse(metric, error)
            elif self.reference is None:
                self.note(metric, "missing", NO_REFERENCE)
        for own_way in floors.values():
            self.look_through(own_way, read)

    def look_through(self, floors: Sequence[Floor], read: _Reader) -> None:
        """What comes out of one way against the video itself; a floor that refuses fails alone."""
        try:
            shown = read(self.cell, floors[0])
            (found,) = compare_many([f.inside for f in floors], [shown], read.chunks(self.cell))
        except UserError as error:
            if len(floors) == 1:
                self.refuse(floors[0], error)
            else:
                for floor in floors:
                    self.look_through([floor], read)
        else:
            for floor, per_frame in zip(floors, found, strict=True):
                names = floor.dimensions(self.cell.prompt)
                self.add_dimensions(floor, dict.fromkeys(names, float(per_frame.mean())))

    def add_dimensions(self, metric: Dimensions, values: Mapping[str, float]) -> None:
        own = facts(metric, self.cell.prompt)
        self.scores |= {n: Score(metric=f, value=values[n]) for n, f in own.items()}

    def refuse(self, metric: Metric, error: UserError) -> None:
        self.note(metric, "failed", f"{error.got}; {error.do}")

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
    scored: Sequence[_Scoring], reference: CellRecord | None, metrics: Sequence[Metric], read: _Reader
) -> None:
    """Score what needs the reference; videos that lack the same metrics go through together."""
    groups: dict[tuple[int, ...], dict[str, list[_Scoring]]] = {}
    for own in scored if reference else ():
        lacking = tuple(i for i, m in enumerate(metrics) if not has_dimensions(m) and own.lacks(m))
        groups.setdefault(lacking, {}).setdefault(own.cell.video or own.cell.id, []).append(own)
    for lacking, videos in groups.items():
        asked = [m for i in lacking if not has_dimensions(m := metrics[i])]
        if reference and asked:
            _compare_group(list(videos.values()), reference, asked, read)


def _compare_group(
    videos: Sequence[Sequence[_Scoring]],
    reference: CellRecord,
    metrics: Sequence[Similarity],
    read: _Reader,
) -> None:
    """All videos (each of one or several cells) by all metrics; a metric that refuses fails alone."""
    together = _together(metrics)
    for own_way in together:
        found = _many(videos, reference, own_way, read)
        for i, cells in enumerate(videos):
            for j, metric in enumerate(own_way):
                if found is None:  # one by one, to see whom it concerns
                    _alone(cells, reference, metric, read)
                else:
                    _note_all(cells, metric, found[i][j])
    for metric in (m for m in metrics if not isinstance(_inside(m), Prepares)):
        for cells in videos:
            _alone(cells, reference, metric, read)


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
    videos: Sequence[Sequence[_Scoring]],
    reference: CellRecord,
    metrics: Sequence[Similarity],
    read: _Reader,
) -> list[list[NDArray[np.float64]]] | None:
    """Values [video][metric] of metrics that go together; None where anything is refused."""
    try:
        each = [read(v[0].cell, metrics[0]) for v in videos]
        return compare_many([_inside(m) for m in metrics], each, read(reference, metrics[0]))
    except UserError:
        return None


def _alone(cells: Sequence[_Scoring], reference: CellRecord, metric: Similarity, read: _Reader) -> None:
    try:
        per_frame = metric(read.whole(cells[0].cell), read.whole(reference))
    except UserError as error:
        for own in cells:
            own.refuse(metric, error)
    else:
        _note_all(cells, metric, per_frame)


def _note_all(cells: Sequence[_Scoring], metric: Similarity, per_frame: NDArray[np.float64]) -> None:
    for own in cells:
        own.add(metric, per_frame)
