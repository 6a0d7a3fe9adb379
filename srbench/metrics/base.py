"""What a metric is, and what may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeIs  # of typing from 3.13 on

from srbench.errors import UserError
from srbench.store.records import MetricFacts
from srbench.video import Video, check


class Similarity(Protocol):
    """How near a video is to its reference; a pure function, nothing is kept."""

    @property
    def facts(self) -> MetricFacts:
        """Name, unit, direction and bounds; they travel with every score."""
        ...

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """One value a frame, shape (frames,), for uint8 RGB videos (frames, height, width, 3).

        Raises UserError where the two cannot be compared.
        """
        ...


class Dimensions(Protocol):
    """What a video shows of its prompt: a suite's dimensions, each a score of its own."""

    def dimensions(self, prompt: str) -> Mapping[str, MetricFacts]:
        """Those that are defined for this prompt, by name.  Raises UserError where none can be."""
        ...

    def __call__(self, video: Video, prompt: str) -> Mapping[str, float]:
        """A number for each of `dimensions(prompt)`, for a uint8 RGB video (frames, height, width, 3)."""
        ...


Metric = Similarity | Dimensions


def has_dimensions(metric: Metric) -> TypeIs[Dimensions]:
    """Whether a metric looks at a prompt, and not at a reference."""
    return hasattr(metric, "dimensions")


def facts(metric: Metric, prompt: str) -> Mapping[str, MetricFacts]:
    """What a metric gives for a video of this prompt, by name."""
    if has_dimensions(metric):
        return metric.dimensions(prompt)
    return {metric.facts.name: metric.facts}


def all_facts(metrics: Sequence[Metric], prompts: Sequence[str]) -> dict[str, MetricFacts]:
    """What metrics give for the videos of these prompts, by name, in the metrics' order.

    Raises UserError where a metric cannot score a prompt.
    """
    return {name: f for m in metrics for prompt in prompts for name, f in facts(m, prompt).items()}


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
