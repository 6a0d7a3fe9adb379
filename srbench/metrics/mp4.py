"""Similarity as a reader of published videos gets it: both videos through an mp4 first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from srbench import video as files
from srbench.config.registry import STRICT, plugin
from srbench.errors import UserError
from srbench.metrics.base import CHUNK, Similarity, check_pair, unavailable
from srbench.metrics.lpips import LPIPS
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM
from srbench.store.records import MetricFacts
from srbench.video import Video

Of = Literal[
    "psnr",
    "ssim/gauss11-valid",
    "ssim/uniform7",
    "ssim/gauss11-same",
    "lpips/alex-spatial",
    "lpips/alex",
    "lpips/vgg",
]
# 1: bilinear chroma, and durations of frames that x264 did not know
VERSION = 2
Preset = Literal["ultrafast", "veryfast", "fast", "medium", "slow"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ThroughH264:
    """A metric of what H.264 (libx264, yuv420p) leaves of a video, and the encoder's settings.

    fps: frames a second of the encoded file, by which x264 spends bits; None is the videos' own,
    which a run fills in.
    """

    of: Of
    crf: Annotated[int, Field(ge=0, le=51)] = 25
    preset: Preset = "medium"
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None

    @property
    def unavailable(self) -> str:
        """What the metric inside lacks."""
        return unavailable(self.inside)

    @property
    def way(self) -> str:
        """The encoder's settings, as in `x264-medium-crf25-16fps`."""
        rate = "" if self.fps is None else f"-{self.fps:.6g}fps"
        return f"x264-{self.preset}-crf{self.crf}{rate}"

    def at_fps(self, fps: float) -> Self:
        """The metric of videos with so many frames a second; a rate that is set stays."""
        return self if self.fps is not None else replace(self, fps=fps)

    @property
    def _rate(self) -> Fraction:
        if self.fps is None:
            raise UserError(
                f"{self.of} through H.264 of videos without a known frame rate",
                "frames a second of the encoded file",
                "set fps of the metric, as in metric.psnr_mp4.fps=16",
            )
        return Fraction(self.fps).limit_denominator(1001)

    @property
    def inside(self) -> Similarity:
        """The metric named `of`, as it is taken on lossless videos."""
        kind, _, definition = self.of.partition("/")
        if kind == "psnr":
            return PSNR()
        return (SSIM if kind == "ssim" else LPIPS)(definition=definition)  # type: ignore[arg-type]

    def encoded(self, chunks: Iterator[Video]) -> bytes:
        """The mp4.  Raises UserError for an odd width or height."""
        return files.encoded(chunks, self._rate, self.crf, self.preset)

    def decoded(self, encoded: bytes) -> Iterator[Video]:
        """As a viewer of the mp4 gets it."""
        return files.decoded(encoded, CHUNK)

    def _shown(self, video: Video) -> Video:
        return files.through_mp4(video, self._rate, self.crf, self.preset)


@plugin
class Mp4(ThroughH264):
    """Another metric after both videos went through H.264.

    Published numbers are taken this way, with the encoder that their tool happened to use.  The
    encoder removes from both videos what it cannot keep, which moves the number either way.
    crf 25, `medium` and both color conversions are those of diffusers' export_to_video and of
    the evaluation scripts that read its files.  x264 alone is set differently, to one thread and
    CPU-independent choices; experiments/metrics.md says by how much the numbers differ.  The
    encoder's own loss is metric `mp4_floor`.
    """

    @property
    def facts(self) -> MetricFacts:
        """Named METRIC/x264-…, with the encoder's settings; VERSION is that of the encoding."""
        name = f"{self.of}/{self.way}"
        return self.inside.facts.model_copy(update={"name": name, "version": VERSION})

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """One value a frame, shape (frames,).

        Raises UserError: see check_pair; and for an odd width or height.
        """
        check_pair(video, reference)
        return self.inside(self._shown(video), self._shown(reference))
