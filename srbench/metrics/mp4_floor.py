"""What an mp4 alone does to a video, in the terms of a similarity."""

from __future__ import annotations

from collections.abc import Mapping

from srbench.config.registry import plugin
from srbench.metrics.mp4 import VERSION, ThroughH264
from srbench.store.records import MetricFacts
from srbench.video import Video


@plugin
class Mp4Floor(ThroughH264):
    """Similarity of each video to itself after H.264: differences below it, an mp4 does not show.

    It needs no reference, so the reference's own row has it too.
    """

    def dimensions(self, prompt: str) -> Mapping[str, MetricFacts]:
        """One, METRIC/x264-…/floor, whatever the prompt."""
        name = f"{self.of}/{self.way}/floor"
        own = {"name": name, "version": VERSION, "needs_reference": False}
        return {name: self.inside.facts.model_copy(update=own)}

    def __call__(self, video: Video, prompt: str) -> Mapping[str, float]:
        """The mean over frames.  Raises UserError for an odd width or height."""
        (name,) = self.dimensions(prompt)
        return {name: float(self.inside(self._shown(video), video).mean())}
