"""`python -m srbench.definitions VIDEO … --reference VIDEO`: every definition on the same videos.

What a paper calls PSNR, SSIM or LPIPS is one of these; how far they are apart is what the
table shows, beside what an encoder alone does.  It is Markdown; experiments/metrics.md has one of
this command's code, and says what each definition is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srbench import errors, video
from srbench.errors import UserError
from srbench.metrics import lpips, ssim
from srbench.metrics.base import Similarity, Through, unavailable
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


def through_mp4(fps: float) -> tuple[Similarity, ...]:
    """Definitions of videos with so many frames a second that go through H.264 first."""
    return tuple(Mp4(of=of, fps=fps) for of in ("psnr", "ssim/gauss11-valid", "lpips/alex-spatial"))


class Table:
    """Videos, and what comes out of an encoder for each of them, encoded once for all definitions.

    videos: by the name of their column.
    """

    def __init__(self, videos: Mapping[str, Video], reference: Video) -> None:
        self.videos, self.reference = videos, reference
        self._shown: dict[tuple[str, int], Video] = {}

    def lines(self, metrics: Sequence[Similarity]) -> Iterator[str]:
        """A Markdown table, line by line: one line a definition, one column a video, the mean over frames.

        Where frames sit at the metric's best value, as PSNR's 100 dB cap, how many, and the mean
        over the others.
        """
        heads = [name.replace("|", "\\|") for name in self.videos]
        yield f"| definition | version | {' | '.join(heads)} |"
        yield f"|---|---|{'---|' * len(heads)}"
        for metric in metrics:
            numbers = [self._number(metric, v) for v in self.videos.values()]
            arrow = "↑" if metric.facts.higher_is_better else "↓"
            name = " ".join(p for p in (f"`{metric.facts.name}`", arrow, metric.facts.unit) if p)
            yield f"| {name} | {metric.facts.version} | {' | '.join(numbers)} |"

    def floor(self, metrics: Sequence[Similarity]) -> str:
        """What the encoder alone does to the reference, by every definition that goes through one."""
        found: list[str] = []
        for metric in metrics:
            if isinstance(metric, Through) and not unavailable(metric):
                try:
                    value = metric.inside(self._through(metric, self.reference), self.reference).mean()
                except UserError:  # told in the table
                    continue
                found.append(f"{value:.4f} ({metric.inside.facts.name})")
        told = "The floor of these settings, the reference itself through H.264"
        return f"{told}: {', '.join(found)}." if found else ""

    def _number(self, metric: Similarity, own: Video) -> str:
        lacking = unavailable(metric)
        if lacking:
            return f"missing: {lacking}"
        try:
            values = self._values(metric, own)
        except UserError as error:
            return f"–: {error.got}"
        score = Score(metric=metric.facts, value=float(values.mean()), per_frame=tuple(values.tolist()))
        if not score.at_bound:
            return f"{score.value:.4f}"
        best = metric.facts.upper_bound if metric.facts.higher_is_better else metric.facts.lower_bound
        rest = "" if score.value_below_bound is None else f"; {score.value_below_bound:.4f} without"
        return f"{score.value:.4f} ({score.at_bound} of {len(values)} frames at {best:g}{rest})"

    def _values(self, metric: Similarity, own: Video) -> NDArray[np.float64]:
        if isinstance(metric, Through):
            return metric.inside(self._through(metric, own), self._through(metric, self.reference))
        return metric(own, self.reference)

    def _through(self, metric: Through, own: Video) -> Video:
        key = metric.way, id(own)
        if key not in self._shown:
            self._shown[key] = np.concatenate(list(metric.decoded(metric.encoded(iter([own])))))
        return self._shown[key]


def columns(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell the files apart: without the folder, or the file name, that all share.

    >>> columns([Path("out/pab/a dog-0.mp4"), Path("out/teacache/a dog-0.mp4")])
    ['pab', 'teacache']
    >>> columns([Path("out/a.mp4"), Path("out/b.mp4")]), columns([Path("out/a.mp4")])
    (['a.mp4', 'b.mp4'], ['a.mp4'])
    """
    parts = [p.parts for p in paths]
    for shared, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
        while min(map(len, parts)) > 1 and len({own[shared] for own in parts}) == 1:
            parts = [own[rest] for own in parts]
    return ["/".join(own) for own in parts]


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after a mistake a user can mend."""
    parser = errors.Parser(prog="python -m srbench.definitions", description=__doc__)
    parser.add_argument("video", type=Path, nargs="+", help="one column each")
    parser.add_argument("--reference", type=Path, required=True, help="the video they are compared with")
    args = parser.parse_args(arguments)
    try:
        reference, fps = video.read(args.reference)
        given = list(dict.fromkeys(args.video))
        videos = {name: video.read(p)[0] for name, p in zip(columns(given), given, strict=True)}
        table = Table(videos, reference)
        encoded = through_mp4(float(fps))
        for line in table.lines(DEFINITIONS + encoded):
            print(line, flush=True)  # the next may take minutes
        print(f"\n{table.floor(encoded)}")
    except UserError as error:
        errors.except_hook(type(error), error, error.__traceback__)
        return errors.EXIT_USER
    return 0


if __name__ == "__main__":
    errors.finish(main)
