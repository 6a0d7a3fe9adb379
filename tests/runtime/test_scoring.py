"""Scores of the cells of one prompt and seed: what is computed once, kept, missing or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from srbench import video as files
from srbench.errors import UserError
from srbench.metrics.base import CHUNK, compare_many
from srbench.metrics.mp4 import Mp4
from srbench.metrics.mp4_floor import Mp4Floor
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM
from srbench.runtime.scoring import NO_REFERENCE, merged, score_all
from srbench.store.records import CellRecord, MetricFacts, Score
from srbench.video import Video

FRAMES = 2 * CHUNK + 1


def noise(seed: int, frames: int = FRAMES, width: int = 13) -> Video:
    return np.random.default_rng(seed).integers(0, 256, (frames, 16, width, 3), dtype=np.uint8)


def cell(method: str, **changes: Any) -> CellRecord:
    fields: dict[str, Any] = dict(
        id=method, family="f", method=method, label=method, method_id=method, path=[], prompt="p",
        prompt_index=0, seed=0, outcome="done", protocol="p", video=f"sha of {method}",
        is_reference=method == "large",
    )  # fmt: skip
    return CellRecord(**(fields | changes))


@dataclass
class Reader:
    """Reads cells' videos in chunks and counts how often each was begun."""

    videos: dict[str, Video]
    begun: Counter[str] = field(default_factory=Counter)

    def __call__(self, cell: CellRecord) -> Iterator[Video]:
        self.begun[cell.method] += 1
        whole = self.videos[cell.method]
        return (whole[i : i + CHUNK] for i in range(0, len(whole), CHUNK))


@dataclass
class Counting:
    """PSNR that counts how many reference frames it was shown."""

    prepared: int = 0
    unavailable: str = ""
    facts: MetricFacts = PSNR().facts

    def prepare(self, reference: Video) -> Video:
        self.prepared += len(reference)
        return reference

    def compare(self, video: Video, prepared: Video) -> np.ndarray:
        return PSNR()(video, prepared)

    def __call__(self, video: Video, reference: Video) -> np.ndarray:
        return PSNR()(video, reference)


LOOK = PSNR().facts.model_copy(update={"name": "look", "needs_reference": False})
VIDEOS = {"large": noise(0), "small": noise(1), "srd": noise(2)}
CELLS = [cell(name) for name in VIDEOS]


def test_every_cell_gets_what_the_metric_alone_gives() -> None:
    scored = score_all(CELLS, CELLS[0], [PSNR(), SSIM()], Reader(VIDEOS))
    for own in scored:
        for score, metric in zip(own.scores, (PSNR(), SSIM()), strict=True):
            assert score.per_frame == tuple(metric(VIDEOS[own.method], VIDEOS["large"]))
            assert score.reference == "sha of large"


def test_the_reference_is_prepared_once_for_all() -> None:
    metric, reader = Counting(), Reader(VIDEOS)
    score_all(CELLS, CELLS[0], [metric], reader)
    assert metric.prepared == FRAMES
    assert reader.begun == {"large": 2, "small": 1, "srd": 1}  # as reference, and as its own row


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The crf of each encoding so far."""
    made: list[int] = []
    encoded = files.encoded

    def counted(chunks: Iterator[Video], fps: int, crf: int, preset: str) -> bytes:
        made.append(crf)
        return encoded(chunks, fps, crf, preset)

    monkeypatch.setattr(files, "encoded", counted)
    return made


def test_a_video_goes_through_mp4_once_for_all_metrics_and_floors(encodings: list[int]) -> None:
    videos = {name: v[:, :, :12] for name, v in VIDEOS.items()}
    ssim = "ssim/gauss11-valid"
    metrics = [
        PSNR(),
        Mp4(of="psnr", fps=16),
        Mp4(of=ssim, fps=16),
        Mp4Floor(of="psnr", fps=16),
        Mp4Floor(of=ssim, fps=16),
    ]
    metrics.append(Mp4(of="psnr", crf=40, fps=16))
    reader = Reader(videos)
    scored = score_all(CELLS, CELLS[0], metrics, reader)
    assert sorted(encodings) == [25] * 3 + [40] * 3
    # twice to be encoded, and as it is for PSNR and for the floors; the reference once more as such
    assert reader.begun == {"large": 5, "small": 4, "srd": 4}
    for own in scored:
        for score, metric in zip(own.scores, metrics, strict=True):
            if isinstance(metric, Mp4Floor):
                assert {score.metric.name: score.value} == metric(videos[own.method], "p")
            else:
                assert score.per_frame == tuple(metric(videos[own.method], videos["large"]))


def test_a_floor_that_refuses_fails_alone() -> None:
    """An 11×11 window does not fit into frames that PSNR takes."""
    small = {"large": VIDEOS["large"][:, :8, :8]}
    floors = [Mp4Floor(of="ssim/gauss11-valid", fps=16), Mp4Floor(of="psnr", fps=16)]
    (own,) = score_all(CELLS[:1], CELLS[0], floors, Reader(small))
    assert [s.outcome for s in own.scores] == ["failed", "done"]
    assert "frames of 8×8 pixels" in own.scores[0].reason


class Steadiness:
    """A similarity of one's own that looks at the whole video, as one of motion does."""

    facts = PSNR().facts

    def __call__(self, video: Video, reference: Video) -> np.ndarray:
        return np.full(len(video), float(len(video)))


class SteadinessFloor(Mp4Floor):
    @property
    def inside(self) -> Any:
        return Steadiness()


def test_a_floor_of_what_looks_at_the_whole_video_gets_the_whole_video() -> None:
    even = {"large": VIDEOS["large"][:, :, :12]}
    (own,) = score_all(CELLS[:1], CELLS[0], [SteadinessFloor(of="psnr", fps=16)], Reader(even))
    assert own.scores[0].value == FRAMES > CHUNK


def test_an_odd_size_fails_through_mp4_alone() -> None:
    (own,) = score_all(CELLS[1:2], CELLS[0], [PSNR(), Mp4(of="psnr", fps=16)], Reader(VIDEOS))
    assert [s.outcome for s in own.scores] == ["done", "failed"]
    assert "13×16 pixels" in own.scores[1].reason


def test_one_video_of_two_cells_is_scored_once() -> None:
    twin = cell("twin", video="sha of small")
    reader = Reader(VIDEOS)
    *_, small, twin = score_all([*CELLS[:2], twin], CELLS[0], [PSNR()], reader)
    assert small.scores == twin.scores
    assert "twin" not in reader.begun


def test_what_is_scored_is_not_read_again() -> None:
    once = score_all(CELLS, CELLS[0], [PSNR()], Reader(VIDEOS))
    reader = Reader(VIDEOS)
    assert score_all(once, once[0], [PSNR()], reader) == once
    assert not reader.begun
    more = score_all(once, once[0], [SSIM(), PSNR()], reader)
    assert [[s.metric.name for s in c.scores] for c in more] == [["ssim/gauss11-valid", "psnr"]] * 3


def test_a_score_that_is_not_asked_for_now_stays_while_its_reference_does() -> None:
    made = Score(metric=LOOK, value=0.5, made={"torch": "2"})  # as VBench's pass leaves it
    cells = [c.model_copy(update={"scores": (made,)}) for c in CELLS]
    once = score_all(cells, cells[0], [PSNR(), SSIM()], Reader(VIDEOS))
    for metrics in ([PSNR()], []):
        later = score_all(once, once[0], metrics, Reader(VIDEOS))
        assert later == once
        # without the reference's row nothing is known against them
        assert score_all(once[1:], None, [], Reader(VIDEOS)) == once[1:]
    other = cell("large", video="sha of another")
    (small,) = score_all(once[1:2], other, [PSNR()], Reader(VIDEOS))
    assert [(s.metric.name, s.reference) for s in small.scores] == [
        ("psnr", "sha of another"),
        ("look", None),
    ]


def test_an_older_version_of_a_metric_that_is_asked_for_goes() -> None:
    old = Counting(facts=PSNR().facts.model_copy(update={"version": 0}))
    once = score_all(CELLS, CELLS[0], [old], Reader(VIDEOS))
    later = score_all(once, once[0], [PSNR()], Reader(VIDEOS))
    assert [[s.metric.version for s in c.scores] for c in later] == [[1]] * 3


def test_what_others_wrote_meanwhile_is_taken_along() -> None:
    large, small, _ = score_all(CELLS, CELLS[0], [PSNR()], Reader(VIDEOS))
    _, by_ssim, _ = score_all(CELLS, CELLS[0], [SSIM()], Reader(VIDEOS))
    flickering = Score(metric=LOOK, value=0.5, made={"torch": "2"})
    there = by_ssim.model_copy(update={"scores": (*by_ssim.scores, flickering)})
    got = merged(small, there, large)
    assert got.scores == (*small.scores, *there.scores)
    again = flickering.model_copy(update={"value": 0.7})  # VBench's pass is the one that makes them
    newer = there.model_copy(update={"scores": (*by_ssim.scores, again)})
    assert merged(got, newer, large).scores[-1] == again
    missing = score_all(CELLS[1:2], CELLS[0], [Counting(unavailable="no weights")], Reader(VIDEOS))[0]
    assert merged(missing, small, large).scores == small.scores, "another machine had the weights"
    another = there.model_copy(update={"video": "sha of a video made again"})
    assert merged(small, another, large) == small and merged(small, None, large) == small


def test_without_a_reference_a_score_is_missing() -> None:
    (small,) = score_all([CELLS[1]], None, [PSNR()], Reader(VIDEOS))
    assert [(s.outcome, s.reason) for s in small.scores] == [("missing", NO_REFERENCE)]


def test_what_the_machine_lacks_makes_a_score_missing_and_nothing_else() -> None:
    lacking = Counting(unavailable="no weights: make weights gets them", facts=SSIM().facts)
    scored = score_all(CELLS, CELLS[0], [PSNR(), lacking], Reader(VIDEOS))
    for own in scored:
        assert [s.outcome for s in own.scores] == ["done", "missing"]
        assert own.scores[1].reason == "no weights: make weights gets them"
    # and once it is there, only it is computed
    reader = Reader(VIDEOS)
    again = score_all(scored, scored[0], [PSNR(), SSIM()], reader)
    assert [[s.outcome for s in c.scores] for c in again] == [["done", "done"]] * 3


def test_a_video_that_does_not_fit_fails_alone() -> None:
    reader = Reader(VIDEOS | {"srd": noise(2, frames=FRAMES - 1)})
    large, small, srd = score_all(CELLS, CELLS[0], [PSNR()], reader)
    assert small.scores[0].outcome == large.scores[0].outcome == "done"
    assert srd.scores[0].outcome == "failed"
    assert srd.scores[0].reason.startswith(f"{FRAMES - 1} frames against {FRAMES} of the reference")


def test_a_failed_cell_stays_as_it_is() -> None:
    failed = cell("small", outcome="failed", reason="out of memory")
    assert score_all([CELLS[0], failed], CELLS[0], [PSNR()], Reader(VIDEOS))[1] == failed


# --- chunk by chunk


def parts(video: Video, size: int) -> Iterator[Video]:
    return (video[i : i + size] for i in range(0, len(video), size))


@pytest.mark.parametrize("size", [1, 3, CHUNK, 100])
@pytest.mark.parametrize(
    "metric", [PSNR(), SSIM(), SSIM(definition="gauss11-same")], ids=lambda m: m.facts.name
)
def test_the_chunks_size_changes_no_bit(metric: Any, size: int) -> None:
    got = compare_many([metric], [parts(VIDEOS["small"], size)], parts(VIDEOS["large"], size))
    assert got[0][0].tolist() == metric(VIDEOS["small"], VIDEOS["large"]).tolist()


@pytest.mark.parametrize("frames", [FRAMES - 1, FRAMES + 1, FRAMES + CHUNK, 1])
def test_another_frame_count_is_noticed_wherever_it_ends(frames: int) -> None:
    with pytest.raises(UserError, match=f"{frames} frames against {FRAMES} of the reference"):
        compare_many([PSNR()], [parts(noise(3, frames), CHUNK)], parts(VIDEOS["large"], CHUNK))


def test_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="12×16 pixels against 13×16"):
        compare_many([SSIM()], [parts(noise(3, width=12), CHUNK)], parts(VIDEOS["large"], CHUNK))
