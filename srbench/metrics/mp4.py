"""Similarity as a reader of published videos gets it: both videos through an mp4 first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from srbench import video as files
from srbench.metrics.base import CHUNK, Similarity, check_pair, unavailable
from srbench.metrics.lpips import LPIPS
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM
from srbench.registry import STRICT, plugin
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
Preset = Literal["ultrafast", "veryfast", "fast", "medium", "slow"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ThroughH264:
    """A metric of what H.264 (libx264, yuv420p) leaves of a video, and the encoder's settings."""

    of: Of
    crf: Annotated[int, Field(ge=0, le=51)] = 25
    preset: Preset = "medium"
    fps: Annotated[int, Field(ge=1, le=1000)] = 16

    @property
    def unavailable(self) -> str:
        """What the metric inside lacks."""
        return unavailable(self.inside)

    @property
    def way(self) -> str:
        """All that the encoder was told, as in `x264-medium-crf25-16fps`."""
        return f"x264-{self.preset}-crf{self.crf}-{self.fps}fps"

    @property
    def inside(self) -> Similarity:
        """The metric named `of`, as it is taken on lossless videos."""
        kind, _, definition = self.of.partition("/")
        if kind == "psnr":
            return PSNR()
        return (SSIM if kind == "ssim" else LPIPS)(definition=definition)  # type: ignore[arg-type]

    def encoded(self, chunks: Iterator[Video]) -> bytes:
        """The mp4.  Raises UserError for an odd width or height."""
        return files.encoded(chunks, self.fps, self.crf, self.preset)

    def decoded(self, encoded: bytes) -> Iterator[Video]:
        """As a viewer of the mp4 gets it."""
        return files.decoded(encoded, CHUNK)

    def _shown(self, video: Video) -> Video:
        return files.through_mp4(video, self.fps, self.crf, self.preset)


@plugin
class Mp4(ThroughH264):
    """Another metric after both videos went through H.264.

    Published numbers are taken this way, with the encoder their tool happened to use: it
    takes from both videos what it cannot keep, which moves the number either way.  crf 25 and
    `medium` are what diffusers' export_to_video comes to with its defaults.  The encoder's own
    loss is metric `mp4_floor`, which belongs beside it.
    """

    @property
    def facts(self) -> MetricFacts:
        """Named METRIC/x264-…, with all that the encoder was told."""
        return self.inside.facts.model_copy(update={"name": f"{self.of}/{self.way}"})

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """One value a frame, shape (frames,).

        Raises UserError: see check_pair; and for an odd width or height.
        """
        check_pair(video, reference)
        return self.inside(self._shown(video), self._shown(reference))
