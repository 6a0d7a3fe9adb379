"""What a video of the shapes world shows of its caption, dimension by dimension."""

from __future__ import annotations

from collections.abc import Mapping

from srbench.config.registry import plugin
from srbench.errors import UserError
from srbench.shapes import scorers
from srbench.shapes.world import Scene, parse
from srbench.store.records import MetricFacts
from srbench.video import Video


@plugin
class Shapes:
    """The analytic scorers of `srbench.shapes.scorers`: from pixels, no learned model.

    A score `shapes/NAME` lies in [0, 1].  Semantic and quality dimensions are averaged, and the
    total is (4 quality + semantic) / 5, as VBench weighs its own; the two are not comparable.
    """

    def dimensions(self, prompt: str) -> Mapping[str, MetricFacts]:
        scene = _scene(prompt)
        return {
            f"shapes/{name}": MetricFacts(
                name=f"shapes/{name}",
                version=scorers.VERSION,
                unit="",
                higher_is_better=True,
                lower_bound=0.0,
                upper_bound=1.0,
                needs_reference=False,
                group=dimension.group,
                weight=dimension.weight,
            )
            for name, dimension in scorers.DIMENSIONS.items()
            if dimension.applies(scene)
        }

    def __call__(self, video: Video, prompt: str) -> Mapping[str, float]:
        values = scorers.score(video, _scene(prompt))
        return {f"shapes/{name}": v for name, v in values.items() if v is not None}


def _scene(prompt: str) -> Scene:
    try:
        return parse(prompt)
    except ValueError:
        raise UserError(
            f"metric shapes on the prompt {prompt!r}",
            "captions of the shapes world, as 'a red circle moving left on a black background'",
            "take suite=shapes, or leave this metric out, as in 'metric=[psnr,ssim]'",
        ) from None
