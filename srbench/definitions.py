"""`python -m srbench.definitions VIDEO … --reference VIDEO`: every definition on the same videos.

What a paper calls PSNR, SSIM or LPIPS is one of these; how far they are apart is what the
table shows.  It is Markdown; the one in experiments/metrics.md is made by this command's code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from srbench import errors, video
from srbench.errors import UserError
from srbench.metrics import lpips, ssim
from srbench.metrics.base import Similarity, unavailable
from srbench.metrics.lpips import LPIPS
from srbench.metrics.mp4 import Mp4
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM
from srbench.store.records import Score
from srbench.video import Video

DEFINITIONS: tuple[Similarity, ...] = (
    PSNR(),
    *(SSIM(definition=d) for d in ssim.DEFINITIONS),
    *(LPIPS(definition=d) for d in lpips.DEFINITIONS),
)
THROUGH_MP4: tuple[Similarity, ...] = (
    Mp4(of="psnr"),
    Mp4(of="ssim/gauss11-valid"),
    Mp4(of="lpips/alex-spatial"),
)


def markdown(videos: Mapping[str, Video], reference: Video, metrics: Sequence[Similarity]) -> str:
    """One line a definition, one column a video: the mean over frames.

    Where frames sit at the metric's best value, as PSNR's 100 dB cap, how many, and the mean
    over the others.  Raises UserError where videos cannot be compared.
    """
    lines = ["| definition | version | " + " | ".join(videos) + " |", "|---|---|" + "---|" * len(videos)]
    for metric in metrics:
        numbers = [_number(metric, v, reference) for v in videos.values()]
        arrow = "↑" if metric.facts.higher_is_better else "↓"
        name = " ".join(p for p in (f"`{metric.facts.name}`", arrow, metric.facts.unit) if p)
        lines.append(f"| {name} | {metric.facts.version} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def _number(metric: Similarity, own: Video, reference: Video) -> str:
    lacking = unavailable(metric)
    if lacking:
        return f"missing: {lacking}"
    try:
        values = metric(own, reference)
    except UserError as error:
        return f"–: {error.got}"
    score = Score(metric=metric.facts, value=float(values.mean()), per_frame=tuple(values.tolist()))
    if not score.at_bound:
        return f"{score.value:.4f}"
    best = metric.facts.upper_bound if metric.facts.higher_is_better else metric.facts.lower_bound
    rest = "" if score.value_below_bound is None else f"; {score.value_below_bound:.4f} without"
    return f"{score.value:.4f} ({score.at_bound} of {len(values)} frames at {best:g}{rest})"


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after a mistake a user can mend."""
    parser = errors.Parser(prog="python -m srbench.definitions", description=__doc__)
    parser.add_argument("video", type=Path, nargs="+")
    parser.add_argument("--reference", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        videos = {str(p): video.read(p)[0] for p in args.video}
        print(markdown(videos, video.read(args.reference)[0], DEFINITIONS + THROUGH_MP4))
    except UserError as error:
        errors.except_hook(type(error), error, error.__traceback__)
        return errors.EXIT_USER
    return 0


if __name__ == "__main__":
    sys.exit(main())
