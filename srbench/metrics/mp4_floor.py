"""What an mp4 alone does to a video, in the terms of a similarity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from srbench.metrics.base import unavailable
from srbench.metrics.mp4 import Of, Preset, inner, settings
from srbench.registry import plugin
from srbench.store.records import MetricFacts
from srbench.video import Video, through_mp4


@plugin
class Mp4Floor:
    """Similarity of each video to itself after H.264: differences below it, an mp4 does not show.

    It needs no reference, so the reference's own row has it too.
    """

    of: Of
    crf: Annotated[int, Field(ge=0, le=51)] = 25
    preset: Preset = "medium"
    fps: Annotated[int, Field(ge=1, le=1000)] = 16

    @property
    def unavailable(self) -> str:
        """What the metric inside lacks."""
        return unavailable(inner(self.of))

    def dimensions(self, prompt: str) -> Mapping[str, MetricFacts]:
        """One, METRIC/x264-…/floor, whatever the prompt."""
        name = f"{self.of}/{settings(self.crf, self.preset, self.fps)}/floor"
        return {name: inner(self.of).facts.model_copy(update={"name": name, "needs_reference": False})}

    def __call__(self, video: Video, prompt: str) -> Mapping[str, float]:
        """The mean over frames.  Raises UserError for an odd width or height."""
        shown = through_mp4(video, self.fps, self.crf, self.preset)
        (name,) = self.dimensions(prompt)
        return {name: float(inner(self.of)(shown, video).mean())}
