"""Result files of VBench, VBench-Long and VBench-2.0 that were made elsewhere, read and checked.

All three write JSON of {dimension: [mean, [line, …]]}.  A line is a video; in VBench-Long a clip,
with each video's own mean in a third list; in VBench-2.0's Diversity a prompt of 20 videos.
How each suite forms its mean and in which range its numbers lie is read in its source
(Vchitect/VBench at 45e79ec); no line of it is here.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.errors import UserError, counted, one_line
from srbench.vbench import results
from srbench.vbench.score import DIMENSIONS, aggregate

TOLERANCE = 1e-6  # of a mean and of a range's ends: scores may have been rounded to float32
SIGNED = ("appearance_style", "temporal_style", "overall_consistency")  # cosines of features
NOT_APPLICABLE = -1.0  # what VBench-2.0 scores a video to which the dimension does not apply
DIVERSITY = "Diversity"
# VBench-2.0's motion order is 0 where more than this share of the videos is not applicable.
ORDER, MOST_EXCLUDED = "Motion_Order_Understanding", 0.9
DIMENSIONS_2 = (
    *("Human_Anatomy", "Human_Identity", "Human_Clothes", DIVERSITY, "Composition"),
    *("Dynamic_Spatial_Relationship", "Dynamic_Attribute", ORDER, "Human_Interaction"),
    *("Complex_Landscape", "Complex_Plot", "Camera_Motion", "Motion_Rationality"),
    *("Instance_Preservation", "Mechanics", "Thermotics", "Material", "Multi-View_Consistency"),
)
FORM = "results as VBench writes them, JSON of {dimension: [mean, [{video_path, video_results}, …]]}"


@dataclass(frozen=True)
class Result:
    """One dimension of a result file.

    lines: how many scores it rests on.  counted: what they are scores of, as in `4 clips of
    2 videos`.  warning: what could not be checked, or does not fit; empty where all is well.
    """

    mean: float
    lines: int
    counted: str
    warning: str = ""


@dataclass(frozen=True)
class _Line:
    path: str
    value: float
    plain: Mapping[str, Any]

    @property
    def is_fused(self) -> bool:
        """Whether VBench-Long made it of a video's clips and of how alike these are."""
        return "inclip_score" in self.plain


def read(paths: Sequence[Path]) -> dict[str, Result]:
    """Return every dimension of some result files.

    Lists of what was to be scored (`*_full_info.json`) may be among the files and are passed over.

    Raises:
        UserError: For a file that holds no results, a number outside its dimension's range, a
            mean that is not that of its lines, a path or a dimension that comes twice, a
            dimension without a score, and for no results at all.
    """
    found: dict[str, Result] = {}
    of: dict[str, Path] = {}
    for path in paths:
        for dimension, own in _dimensions(path).items():
            if dimension in of:
                raise UserError(
                    f"{dimension} is in {of[dimension]} and in {path}",
                    "each dimension in one file only",
                    "leave out one of the two files",
                )
            of[dimension] = path
            found[dimension] = _Reader(path, dimension).result(own)
    if not found:
        raise UserError(
            f"no result in {', '.join(map(str, paths))}",
            FORM,
            "name the *_eval_results.json; *_full_info.json only lists what was to be scored",
        )
    return found


def _dimensions(path: Path) -> dict[str, Any]:
    """The file's dimensions as they stand; none of a list of what was to be scored."""
    try:
        plain = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_once)
    except UserError as error:
        raise UserError(f"{path}: {error.got}", error.expected, error.do) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply", FORM, "name the *_eval_results.json") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"no JSON: {error}"
        raise UserError(f"{path} ({reason})", FORM, "name the *_eval_results.json") from None
    if isinstance(plain, list) and all(isinstance(e, dict) and "prompt_en" in e for e in plain):
        return {}
    if not isinstance(plain, dict) or not plain:
        raise UserError(f"{path} is {one_line(json.dumps(plain), 60)}", FORM, "name the *_eval_results.json")
    return plain


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.  Raises UserError for a name that comes twice, of which JSON keeps the last."""
    plain = dict(pairs)
    if len(plain) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{one_line(twice, 60)} comes twice", "each name once", "remove one of the two")
    return plain


class _Reader:
    """Reads one dimension of one file; every mistake names both."""

    def __init__(self, path: Path, dimension: str) -> None:
        self._path, self._dimension = path, dimension
        self._is_percent = dimension in results.PERCENT

    def result(self, own: Any) -> Result:
        is_form = isinstance(own, list) and len(own) in (2, 3) and all(isinstance(p, list) for p in own[1:])
        if not is_form:
            raise self._refused(f"is {one_line(repr(own), 60)}", FORM)
        if not own[1]:
            raise self._refused(f"0 videos, with the mean {own[0]}", "a score of at least one video")
        mean = self._number(None if isinstance(own[0], bool) else own[0], "the mean")
        lines = self._lines(own[1])
        low, high = self._range()
        self._check_range(mean, low, high / 100 if self._is_percent else high, "the mean")
        for line in lines:
            self._check_range(line.value, low, math.inf if line.is_fused else high, line.path)
        return self._of_clips(mean, lines, own[2]) if len(own) == 3 else self._of_videos(mean, lines)

    def _of_clips(self, mean: float, clips: Sequence[_Line], plain: list[Any]) -> Result:
        """VBench-Long's: the mean over all clips, and each video's own mean in a third list."""
        videos = self._lines(plain)
        unmatched = self._check_videos(clips, videos)
        scored = f"{counted(len(clips), 'clip')} of {counted(len(videos), 'video')}"
        warning = self._check_mean(mean, clips, [1.0] * len(clips))
        return Result(mean, len(clips), scored, "; ".join(filter(None, (warning, unmatched))))

    def _of_videos(self, mean: float, lines: Sequence[_Line]) -> Result:
        applies = [line for line in lines if not self._is_excluded(line)]
        noun = "prompt" if self._dimension == DIVERSITY else "video"
        few = f"{len(applies)} of " if len(applies) < len(lines) else ""
        scored = few + counted(len(lines), noun)
        if self._is_mostly_excluded(mean, lines, applies):
            return Result(mean, len(lines), scored)
        return Result(mean, len(lines), scored, self._check_mean(mean, applies, self._counts(applies)))

    def _refused(self, what: str, expected: str, do: str = "score the videos again") -> UserError:
        return UserError(f"{self._path}: {self._dimension}: {what}", expected, do)

    def _number(self, value: Any, of: str) -> float:
        try:
            number = math.nan if isinstance(value, str) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self._refused(f"{of} is {one_line(repr(value), 40)}", "a finite number")
        return number

    def _lines(self, plain: list[Any]) -> list[_Line]:
        found: dict[str, _Line] = {}
        for line in plain:
            path = line.get("video_path") if isinstance(line, dict) else None
            if not isinstance(path, str) or "video_results" not in line:
                raise self._refused(f"a line is {one_line(repr(line), 60)}", FORM)
            name = posixpath.normpath(path)
            if name in found:
                raise self._refused(f"{path} comes twice", "each video once", "remove one of the two lines")
            found[name] = _Line(name, self._number(line["video_results"], path), line)
        return list(found.values())

    # -- ranges

    def _range(self) -> tuple[float, float]:
        """The lowest and the highest score that a line may have."""
        if self._dimension in DIMENSIONS:
            return -1.0 if self._dimension in SIGNED else 0.0, 100.0 if self._is_percent else 1.0
        return (0.0, 1.0) if self._dimension in DIMENSIONS_2 else (-math.inf, math.inf)

    def _check_range(self, value: float, low: float, high: float, of: str) -> None:
        excluded = value == NOT_APPLICABLE and self._dimension in DIMENSIONS_2 and of != "the mean"
        if not (excluded or low - TOLERANCE <= value <= high + TOLERANCE):
            raise self._refused(f"{of} is {value:g}", f"a number from {low:g} to {high:g}")

    # -- means

    def _is_excluded(self, line: _Line) -> bool:
        return line.value == NOT_APPLICABLE and self._dimension in DIMENSIONS_2

    def _is_mostly_excluded(self, mean: float, lines: Sequence[_Line], applies: Sequence[_Line]) -> bool:
        """Whether the mean is 0 since the dimension applies to few videos.  Raises where to none."""
        if self._dimension == ORDER and len(lines) - len(applies) > MOST_EXCLUDED * len(lines):
            return mean == 0.0
        if not applies:
            raise self._refused(
                f"it applies to 0 of {counted(len(lines), 'video')}", "a score of at least one video"
            )
        return False

    def _counts(self, lines: Sequence[_Line]) -> list[float] | None:
        """How much each line counts in the mean; None where the file does not hold it."""
        if any(line.is_fused for line in lines):
            return None
        if self._dimension not in DIMENSIONS or DIMENSIONS[self._dimension].over != "frames":
            return [1.0] * len(lines)
        try:
            counts = [float(results.FRAMES[self._dimension](line.plain, None)) for line in lines]
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        for line, count in zip(lines, counts, strict=True):
            if not (math.isfinite(count) and count > 0):
                raise self._refused(f"{line.path} has {count:g} frames", "at least one frame")
        return counts

    def _check_mean(self, mean: float, lines: Sequence[_Line], counts: Sequence[float] | None) -> str:
        """Return a warning where the mean differs from that of the lines and the rule cannot be checked.

        Raises UserError where it differs though the rule is known, or lies outside the lines.
        """
        values = [line.value / (100.0 if self._is_percent else 1.0) for line in lines]
        ours = aggregate(values, counts or [1.0] * len(values)) or 0.0
        is_known = self._dimension in DIMENSIONS or self._dimension in DIMENSIONS_2
        unknown = "" if is_known else "srbench does not know this dimension: its range is not checked"
        if abs(mean - ours) <= TOLERANCE:
            return unknown
        apart = f"the mean is {mean:.6f}, but the mean of its {counted(len(lines), 'line')} is {ours:.6f}"
        if unknown:
            return f"{apart}; {unknown}"
        if any(line.is_fused for line in lines):
            return f"{apart}; VBench-Long weighs them by settings that are not in the file"
        if counts is None and min(values) - TOLERANCE <= mean <= max(values) + TOLERANCE:
            return f"{apart}; VBench weighs videos by their frames, which are not in the file"
        raise self._refused(apart, "the mean of the file's own lines, by the dimension's rule")

    def _check_videos(self, clips: Sequence[_Line], videos: Sequence[_Line]) -> str:
        """Return a warning where clips are not named by their videos.

        Raises UserError where a video's mean is not that of its clips.
        """
        of: dict[str, list[float]] = {}
        for clip in clips:
            of.setdefault(_video_of(clip.path), []).append(clip.value)
        if of.keys() != {v.path for v in videos}:
            return "the names of the clips do not show which video each is of"
        for video in videos:
            ours = math.fsum(of[video.path]) / len(of[video.path])
            if abs(video.value - ours) > TOLERANCE * (100.0 if self._is_percent else 1.0):
                raise self._refused(
                    f"{video.path} is {video.value:g}, but its clips' mean is {ours:g}", "equal numbers"
                )
        return ""


def _video_of(clip: str) -> str:
    """The video of a clip, which VBench-Long keeps in a folder of the video's name.

    >>> _video_of("out/split_clip/a dog-0/a dog-0_000.mp4")
    'out/a dog-0.mp4'
    """
    folder = posixpath.basename(posixpath.dirname(clip))
    return posixpath.normpath(posixpath.join(clip.split("split_clip")[0], f"{folder}.mp4"))
