"""PSNR, the peak signal-to-noise ratio of a frame against its reference, in dB."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from srbench.config.registry import plugin
from srbench.metrics.base import check_pair
from srbench.store.records import MetricFacts
from srbench.video import Video

DEFAULT_CAP = 100.0


@plugin
class PSNR:
    """min(cap, 10 log10(1 / MSE)), MSE being the mean over a frame's height, width and RGB.

    Values are on [0, 1], so the peak is 1.  With the default cap an MSE below 1e-10 counts
    as 100 dB, the definition TeaCache, VideoSys and MagCache share; they compute it in
    float32, here it is exact up to the logarithm, within 1e-6 dB of theirs.

    Identical frames sit at the cap and raise a mean over frames: tell how many do.
    """

    cap: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_CAP

    @property
    def facts(self) -> MetricFacts:
        """Named psnr; with another cap psnr/cap-60, as their means are not comparable."""
        return MetricFacts(
            name="psnr" if self.cap == DEFAULT_CAP else f"psnr/cap-{self.cap:g}",
            version=1,
            unit="dB",
            higher_is_better=True,
            lower_bound=0.0,
            upper_bound=self.cap,
        )

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """DB of each frame, shape (frames,), from 0 to cap.  Raises UserError: see check_pair."""
        check_pair(video, reference)
        return self.compare(video, reference)

    def prepare(self, reference: Video) -> Video:
        """The reference as it is: it is read once for many videos, which is all there is to save."""
        return reference

    def compare(self, video: Video, prepared: Video) -> NDArray[np.float64]:
        """DB of each frame of as many as were prepared."""
        mse = np.array([_mse(x, y) for x, y in zip(video, prepared, strict=True)])
        floor = 10 ** (-self.cap / 10)
        return np.minimum(self.cap, -10.0 * np.log10(np.maximum(mse, floor)))


def _mse(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    """Mean squared difference on [0, 1] of two frames (height, width, 3)."""
    # whole numbers throughout, so the sum is exact; a square of 255 still fits into 16 bits
    difference = np.maximum(x, y)
    difference -= np.minimum(x, y)
    squares = difference.astype(np.uint16)
    squares *= squares
    return int(squares.sum(dtype=np.uint64)) / x.size / 255.0**2
