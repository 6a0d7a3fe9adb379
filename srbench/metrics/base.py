"""What a metric is, and what may be compared."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UserError
from srbench.store.records import MetricFacts
from srbench.video import Video, check


class Metric(Protocol):
    """A pure function: the same two videos give the same numbers, nothing is kept."""

    @property
    def facts(self) -> MetricFacts:
        """Name, unit, direction and bounds; they travel with every score."""
        ...

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """One value a frame, shape (frames,), for uint8 RGB videos (frames, height, width, 3).

        Raises UserError where the two cannot be compared.
        """
        ...


def check_pair(video: Video, reference: Video) -> None:
    """Refuse two videos that differ in dtype, frame count or size; never cut one to fit.

    Cropping or resizing silently would change the number without changing its name.
    Raises UserError.
    """
    check(video, "the video")
    check(reference, "the reference")
    if len(video) != len(reference):
        raise UserError(
            f"{len(video)} frames against {len(reference)} of the reference",
            "as many frames in both",
            "generate both with the same frames setting",
        )
    if video.shape != reference.shape:
        raise UserError(
            f"{_size(video)} pixels against {_size(reference)} of the reference",
            "the same width and height in both",
            "generate both at the same size; srbench neither crops nor resizes",
        )


def _size(video: Video) -> str:
    return f"{video.shape[2]}×{video.shape[1]}"
