"""`srbench definitions VIDEO … --reference VIDEO`: every definition on the same videos.

What a paper calls PSNR, SSIM or LPIPS is one of these; how far they are apart is what the
table shows, beside what an encoder alone does, and beside scikit-image's own implementation of
PSNR and SSIM, with which srbench's must agree.  It is Markdown; experiments/metrics.md has one of
this command's code, and says what each definition is.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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


# How scikit-image computes the definitions of SSIM: its settings, and zeros around a frame.
_GAUSSIAN: Mapping[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
SCIKIT_IMAGE: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "gauss11-valid": (_GAUSSIAN, 0),
    "gauss11-same": (_GAUSSIAN, 5),
    "uniform7": ({}, 0),
}


def by_scikit_image(metric: Similarity, own: Video, reference: Video) -> NDArray[np.float64]:
    """Compute PSNR or SSIM by scikit-image.

    Args:
        metric: The definition of which to compute the values, PSNR or SSIM.
        own: (T, H, W, 3), uint8.
        reference: Likewise.

    Returns:
        (T,), the value of each frame; PSNR has the metric's cap, which scikit-image does not know.
    """
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    if isinstance(metric, SSIM):
        settings, zeros = SCIKIT_IMAGE[metric.definition]
        around = ((zeros, zeros), (zeros, zeros), (0, 0))
        pairs = zip(_unit(own), _unit(reference), strict=True)
        padded = [(np.pad(x, around), np.pad(y, around)) for x, y in pairs]
        values = [structural_similarity(x, y, channel_axis=-1, data_range=1.0, **settings) for x, y in padded]
        return np.array(values, np.float64)
    with np.errstate(divide="ignore"):  # equal frames have no error, and an infinite PSNR
        plain = [peak_signal_noise_ratio(y, x) for x, y in zip(own, reference, strict=True)]
    return np.minimum(plain, metric.facts.upper_bound or np.inf)


def _unit(frames: Video) -> NDArray[np.float64]:
    """On [0, 1], divided in float32 as the definitions have it."""
    return (frames.astype(np.float32) / np.float32(255)).astype(np.float64)


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

    def independent(self, metrics: Sequence[Similarity]) -> Iterator[str]:
        """Yield a Markdown table: means by scikit-image, with the largest difference of a frame."""
        heads = [name.replace("|", "\\|") for name in self.videos]
        version = importlib.metadata.version("scikit-image")
        yield f"| by scikit-image {version} | {' | '.join(heads)} |"
        yield f"|---|{'---|' * len(heads)}"
        for metric in (m for m in metrics if isinstance(m, (PSNR, SSIM))):
            numbers = [self._against(metric, v) for v in self.videos.values()]
            yield f"| `{metric.facts.name}` | {' | '.join(numbers)} |"

    def _against(self, metric: Similarity, own: Video) -> str:
        try:
            ours = metric(own, self.reference)
        except UserError as error:
            return f"–: {error.got}"
        theirs = by_scikit_image(metric, own, self.reference)
        return f"{theirs.mean():.4f} (differs by {np.abs(ours - theirs).max():.0e} at most)"

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


def formats(paths: Sequence[Path], reference: Path) -> Iterator[str]:
    """A warning for each video whose pixel format, matrix or range is not the reference's."""
    expected = video.look(reference)
    for path in paths:
        own = video.look(path)
        if own.reading != expected.reading:
            yield (
                f"Warning: the format of {errors.as_text(path)} ({own.encoding}) is not that of the "
                f"reference ({expected.encoding}). A part of the measured difference comes from the format"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after a mistake a user can mend."""
    parser = errors.Parser(prog="srbench definitions", description=__doc__)
    parser.add_argument("video", type=Path, nargs="+", help="one column each")
    parser.add_argument("--reference", type=Path, required=True, help="the video they are compared with")
    args = parser.parse_args(arguments)
    try:
        reference, fps = video.read(args.reference)
        given = list(dict.fromkeys(args.video))
        videos = {name: video.read(p)[0] for name, p in zip(columns(given), given, strict=True)}
        for line in formats(given, args.reference):
            print(line, file=sys.stderr)
        table = Table(videos, reference)
        encoded = through_mp4(float(fps))
        for line in table.lines(DEFINITIONS + encoded):
            print(line, flush=True)  # the next may take minutes
        print(f"\n{table.floor(encoded)}\n", flush=True)
        for line in table.independent(DEFINITIONS):
            print(line, flush=True)
    except UserError as error:
        errors.except_hook(type(error), error, error.__traceback__)
        return errors.EXIT_USER
    return 0


if __name__ == "__main__":
    errors.finish(main)
