"""Similarity as a reader of published videos gets it: both videos through an mp4 first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from srbench.metrics.base import CHUNK, Similarity, check_pair, unavailable
from srbench.metrics.lpips import LPIPS
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM
from srbench.registry import plugin
from srbench.store.records import MetricFacts
from srbench.video import Video, chunks_through_mp4

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


def inner(of: Of) -> Similarity:
    """The metric of this name, as it is taken on lossless videos."""
    kind, _, definition = of.partition("/")
    if kind == "psnr":
        return PSNR()
    return (SSIM if kind == "ssim" else LPIPS)(definition=definition)  # type: ignore[arg-type]


@plugin
class Mp4:
    """Another metric after both videos went through H.264 (libx264, yuv420p).

    Published numbers are taken this way, with the encoder their tool happened to use: it
    takes from both videos what it cannot keep, which moves the number either way.  crf 25 and
    `medium` are what diffusers' export_to_video comes to with its defaults.  The encoder's own
    loss is metric `mp4_floor`, which belongs beside it.
    """

    of: Of
    crf: Annotated[int, Field(ge=0, le=51)] = 25
    preset: Preset = "medium"
    fps: Annotated[int, Field(ge=1, le=1000)] = 16

    @property
    def facts(self) -> MetricFacts:
        """Named METRIC/x264-…, with all that the encoder was told."""
        name = f"{self.of}/{settings(self.crf, self.preset, self.fps)}"
        return inner(self.of).facts.model_copy(update={"name": name})

    @property
    def unavailable(self) -> str:
        """What the metric inside lacks."""
        return unavailable(inner(self.of))

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """One value a frame, shape (frames,).

        Raises UserError: see check_pair; and for an odd width or height.
        """
        check_pair(video, reference)
        x, y = (np.concatenate(list(self.through(iter([v])))) for v in (video, reference))
        return self.inside(x, y)

    @property
    def way(self) -> str:
        """The encoder and its settings."""
        return settings(self.crf, self.preset, self.fps)

    @property
    def inside(self) -> Similarity:
        return inner(self.of)

    def through(self, chunks: Iterator[Video]) -> Iterator[Video]:
        """As a viewer of the mp4 gets it.  Raises UserError for an odd width or height."""
        return chunks_through_mp4(chunks, self.fps, self.crf, self.preset, CHUNK)


def settings(crf: int, preset: str, fps: int) -> str:
    """The encoder in a metric's name, as in `x264-medium-crf25-16fps`."""
    return f"x264-{preset}-crf{crf}-{fps}fps"
