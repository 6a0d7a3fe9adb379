"""VBench's result files, read back.  official/ has one of VBench 0.1.5 for each dimension.

They are of two videos, 12 and 7 frames long.  Eight were scored with random weights
(temporal_flickering needs none), eight with their networks pretended (stand_in_networks.py): the
files are VBench's own, the scores mean nothing.  Only the paths were changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srbench.vbench.results import Failure, read
from srbench.vbench.score import DIMENSIONS, aggregate

OUTPUTS = sorted((Path(__file__).parent / "official").glob("*.json"))
FRAMES = {"a dog-0.mp4": 12, "a dog-1.mp4": 7}


def write(path: Path, dimension: str, mean: Any, *lines: dict[str, Any]) -> Path:
    path.write_text(json.dumps({dimension: [mean, lines]}))
    return path


def line(i: int, value: Any, **more: Any) -> dict[str, Any]:
    return {"video_path": f"/somewhere/a dog-{i}.mp4", "video_results": value, **more}


def test_there_are_real_outputs_of_all_dimensions() -> None:
    assert {p.stem for p in OUTPUTS} == set(DIMENSIONS)


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda p: p.stem)
def test_the_official_mean_comes_out_of_the_videos_by_the_dimensions_own_rule(path: Path) -> None:
    dimension = path.stem
    official = json.loads(path.read_text())[dimension][0]
    results = [r for r in read(path, dimension, FRAMES).values() if r is not None]
    ours = aggregate([r.value for r in results], [r.count for r in results])
    assert ours == pytest.approx(official, abs=1e-9)


@pytest.mark.parametrize("dimension", ["subject_consistency", "background_consistency", "appearance_style"])
def test_of_those_over_frames_the_mean_over_videos_is_another_number(dimension: str) -> None:
    path = next(p for p in OUTPUTS if p.stem == dimension)
    official = json.loads(path.read_text())[dimension][0]
    results = [r for r in read(path, dimension, FRAMES).values() if r is not None]
    assert abs(sum(r.value for r in results) / 2 - official) > 1e-6


# By hand, with videos of unequal lengths where the mean is over frames.
@pytest.mark.parametrize(
    ("dimension", "lines", "mean"),
    [
        (
            "object_class",
            [
                line(0, 0.5, success_frame_count=8, frame_count=16),
                line(1, 1.0, success_frame_count=4, frame_count=4),
            ],
            12 / 20,
        ),
        (
            "spatial_relationship",
            [line(0, 0.5, frame_results=[0, 1]), line(1, 1.0, frame_results=[1])],
            2 / 3,
        ),
        ("human_action", [line(0, True), line(1, False)], 0.5),
        ("temporal_style", [line(0, 0.2), line(1, 0.3)], 0.25),
    ],
)
def test_means_of_layouts_by_hand(
    tmp_path: Path, dimension: str, lines: list[dict[str, Any]], mean: float
) -> None:
    found = read(write(tmp_path / "r.json", dimension, mean, *lines), dimension, FRAMES)
    assert aggregate([r.value for r in found.values() if r], [r.count for r in found.values() if r]) == mean


def test_imaging_quality_is_0_to_100_a_video_and_0_to_1_as_a_mean(tmp_path: Path) -> None:
    path = write(tmp_path / "r.json", "imaging_quality", 0.65, line(0, 70.0), line(1, 60.0))
    found = read(path, "imaging_quality", FRAMES)
    assert [r.value for r in found.values() if r] == [0.7, 0.6]


def test_a_color_found_in_no_frame_counts_nothing_and_any_other_video_left_out_is_none(
    tmp_path: Path,
) -> None:
    color = read(write(tmp_path / "c.json", "color", 0.5, line(0, 0.5)), "color", FRAMES)["a dog-1.mp4"]
    assert color is not None and (color.value, color.count) == (0, 0) and "no frame" in color.reason
    other = write(tmp_path / "o.json", "human_action", 1.0, line(0, True))
    assert read(other, "human_action", FRAMES)["a dog-1.mp4"] is None


def test_where_no_color_was_found_at_all_nothing_counts_and_nothing_failed(tmp_path: Path) -> None:
    """What the worker writes where VBench divides by 0; for a mean over videos it would be a failure."""
    found = read(write(tmp_path / "c.json", "color", None), "color", FRAMES)
    assert [r.count for r in found.values() if r] == [0, 0]
    with pytest.raises(Failure, match="no score"):
        read(write(tmp_path / "h.json", "human_action", None), "human_action", FRAMES)


@pytest.mark.parametrize(
    ("mean", "lines", "reason"),
    [
        (float("nan"), [], "no score"),
        (float("nan"), [line(0, 0.5)], "no score"),
        (0.5, [line(0, float("nan")), line(1, 0.5)], "no score"),
        (0.5 + 2e-9, [line(0, 0.5)], "is not that of its videos"),
        (0.5, [line(2, 0.5)], "not staged"),
        (0.5, [line(0, 0.5), line(0, 0.5)], "was scored"),
        (0.5, [{"video_path": "/a dog-0.mp4"}], "cannot be read"),
        (0.5, [{"video_results": 0.5}], "holds no result"),
    ],
)
def test_what_is_no_score_is_refused(
    tmp_path: Path, mean: float, lines: list[dict[str, Any]], reason: str
) -> None:
    with pytest.raises(Failure, match=reason):
        read(write(tmp_path / "r.json", "human_action", mean, *lines), "human_action", FRAMES)


def test_a_file_that_is_not_there_or_of_another_dimension(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="holds no result of scene"):
        read(tmp_path / "none.json", "scene", FRAMES)
    with pytest.raises(Failure, match="holds no result of scene"):
        read(write(tmp_path / "r.json", "color", 0.5, line(0, 0.5)), "scene", FRAMES)


def test_every_dimension_can_be_read() -> None:
    from srbench.vbench import results

    assert {d for d, own in DIMENSIONS.items() if own.over == "frames"} == set(results.FRAMES)
