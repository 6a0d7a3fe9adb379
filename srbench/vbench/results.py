"""What VBench wrote, read back: a number for every staged video, or why there is none.

VBench leaves out of its mean what it cannot read or find, and says so at most on stdout; so
everything is counted against what was staged, and its own mean is checked against ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.vbench.score import DIMENSIONS, aggregate

TOLERANCE = 1e-9  # of VBench's mean against ours over its own videos
NOT_DETECTED = "the object was found in no frame: VBench's mean leaves this video out"
FRAMES: Mapping[str, Callable[[Mapping[str, Any], Any], float]] = {
    # subject_consistency compares each frame with the one before, and does not tell how many
    "subject_consistency": lambda line, frames: frames - 1,
    "background_consistency": lambda line, frames: line["cnt_per_video"],
    "object_class": lambda line, frames: line["frame_count"],
    "multiple_objects": lambda line, frames: line["frame_count"],
    "scene": lambda line, frames: line["frame_count"],
    "spatial_relationship": lambda line, frames: len(line["frame_results"]),
    "appearance_style": lambda line, frames: len(line["frame_results"]),
}
PERCENT = ("imaging_quality",)  # 0 to 100 a video, its mean 0 to 1


class Failure(Exception):
    """VBench's result is none: a NaN, other videos than were staged, an error it swallowed."""


@dataclass(frozen=True)
class Result:
    """One video's raw score, 0 to 1, and how much it counts; reason says why where it does not."""

    value: float
    count: float
    reason: str = ""


def load(path: Path, dimension: str) -> tuple[Any, list[dict[str, Any]]]:
    """A result file's mean and its lines, one a video.  Raises Failure where it is none."""
    try:
        plain = json.loads(path.read_text("utf-8"))  # which takes NaN, as VBench writes it
        mean, lines = plain[dimension]
        if not all(isinstance(line["video_path"], str) for line in lines):
            raise TypeError("video_path")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Failure(f"{path.name} holds no result of {dimension} ({type(error).__name__})") from None
    return mean, lines


def read(path: Path, dimension: str, frames: Mapping[str, int]) -> dict[str, Result | None]:
    """Each staged file's result; None for one that VBench left out without a word.

    path: `NAME_eval_results.json`.  frames: of each staged file, by its name.

    Raises Failure where a number is not finite, a video is none of those staged or comes
    twice, all are missing, or VBench's mean is not that of its videos to 1e-9.
    """
    mean, lines = load(path, dimension)
    found: dict[str, Result | None] = {}
    for line in lines:
        name = Path(line["video_path"]).name
        if name not in frames or name in found:
            raise Failure(f"a result of {name}, which was {'not staged' if name not in frames else 'scored'}")
        found[name] = _result(dimension, line, frames[name])
    detected = DIMENSIONS[dimension].over == "detected"
    if not (detected and mean is None and not lines):  # of no video there is no mean
        _check_mean(dimension, mean, [r for r in found.values() if r])
    for name in frames:
        if name not in found:
            found[name] = Result(0.0, 0.0, NOT_DETECTED) if detected else None
    return found


def _result(dimension: str, line: Mapping[str, Any], frames: int) -> Result:
    try:
        value = float(line["video_results"])
        count = float(FRAMES[dimension](line, frames)) if dimension in FRAMES else 1.0
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(f"a line of {dimension} that cannot be read ({type(error).__name__})") from None
    if not (math.isfinite(value) and math.isfinite(count) and count > 0):
        raise Failure(f"{value} of {count:g} frames for {Path(line['video_path']).name}, which is no score")
    return Result(value / 100.0 if dimension in PERCENT else value, count)


def _check_mean(dimension: str, mean: Any, results: list[Result]) -> None:
    ours = aggregate([r.value for r in results], [r.count for r in results])
    if ours is None or not isinstance(mean, int | float) or not math.isfinite(mean):
        raise Failure(f"{dimension} of {len(results)} videos has the mean {mean}, which is no score")
    if abs(mean - ours) > TOLERANCE:
        raise Failure(f"VBench's mean {mean!r} of {dimension} is not that of its videos, {ours!r}")
