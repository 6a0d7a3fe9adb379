"""SSIM, the structural similarity of a frame to its reference (Wang et al. 2004).

For each pixel and channel, with weighted means, variances and covariance over a window,

    (2 μx μy + C1) (2 σxy + C2) / ((μx² + μy² + C1) (σx² + σy² + C2))

where C1 = 0.01² and C2 = 0.03² for values on [0, 1].  A frame's value is the mean over
pixels and channels.  What the paper leaves open is the window and the border, and there
the numbers of this field part by more than many papers' gains: hence named definitions.

What makes it fast, in float64 and on one core: of the second moments of x and y only the sum
is needed, so three maps are filtered for a video and one for its reference; a window along
one axis is the product with a narrow band matrix, which BLAS does in tiles that stay in the
cache, where a loop over the window's weights would go through memory once for each of them; and
one strip of one channel goes all the way before the next, in arrays that are used again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from srbench.config import fingerprint
from srbench.config.registry import plugin
from srbench.errors import UserError
from srbench.metrics.base import Device, check_pair, compare_chunks, gpu_of
from srbench.store.records import MetricFacts
from srbench.video import Video

C1, C2 = 0.01**2, 0.03**2
ROWS, COLUMNS = 24, 24  # of a tile; wider ones multiply more zeros, smaller ones call BLAS more often

Map = NDArray[np.float64]
Planes = NDArray[np.float32]
Definition = Literal["gauss11-valid", "uniform7", "gauss11-same"]


@dataclass(frozen=True)
class _Window:
    """weights: (n,), n odd, summing to 1, the same along height and width.

    valid: only where the window fits; else the frame is surrounded by zeros.
    unbiased: variances with N / (N - 1), N being the pixels of the window.
    """

    weights: tuple[float, ...]
    valid: bool = True
    unbiased: bool = False

    @property
    def scale(self) -> float:
        n = len(self.weights) ** 2
        return n / (n - 1) if self.unbiased else 1.0


def _gauss(size: int, sigma: float) -> tuple[float, ...]:
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * np.square(offsets / sigma))
    return tuple((weights / weights.sum()).tolist())


_WINDOWS: dict[Definition, _Window] = {
    "gauss11-valid": _Window(_gauss(11, 1.5)),
    "uniform7": _Window((1 / 7,) * 7, unbiased=True),
    "gauss11-same": _Window(_gauss(11, 1.5), valid=False),
}
DEFINITIONS = get_args(Definition)


@dataclass(frozen=True)
class _Prepared:
    """A reference frame: its planes (3, height, width), as the window sees them, and each strip's means."""

    planes: Planes
    means: tuple[Map, ...]


@plugin
class SSIM:
    """SSIM in float64, by one of three definitions; on the first GPU where there is one and device is "auto".

    gauss11-valid: 11×11 Gaussian, σ = 1.5, where it fits.  TeaCache, VideoSys and MagCache;
        scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
    uniform7: 7×7 uniform where it fits, covariance with N / (N - 1).  scikit-image's default.
    gauss11-same: the same Gaussian on a frame padded by 5 zeros a side, mean over the whole
        map, as torch code with conv2d(padding=5) has it.
    """

    definition: Definition = "gauss11-valid"
    device: Device = "auto"

    @property
    def facts(self) -> MetricFacts:
        """Named ssim/DEFINITION, a plain number."""
        return MetricFacts(
            name=f"ssim/{self.definition}",
            version=1,
            unit="",
            higher_is_better=True,
            lower_bound=-1.0,
            upper_bound=1.0,
        )

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """SSIM of each frame, shape (frames,), from -1 to 1 (identical frames).

        Raises UserError: see check_pair; and for frames smaller than the window.
        """
        check_pair(video, reference)
        return compare_chunks(self, video, reference)

    @property
    def unavailable(self) -> str:
        """A GPU that was asked for and is not there; empty if nothing is lacking."""
        lacking = fingerprint.lacking(self.device, "metric.ssim.device")
        return f"{lacking.got}: {lacking.do}" if lacking else ""

    def prepare(self, reference: Video) -> Sequence[Any]:
        """The reference's planes and their filtered means.

        Raises UserError for frames smaller than the window.
        """
        window = _WINDOWS[self.definition]
        size = len(window.weights)
        height, width = reference.shape[1:3]
        if min(height, width) < size:
            raise UserError(
                f"frames of {width}×{height} pixels",
                f"at least {size}×{size}, the window of ssim/{self.definition}",
                "generate larger frames, or leave out this metric",
            )
        if gpu := gpu_of(self.device):
            import torch

            from srbench.metrics import _ssim_gpu

            return _ssim_gpu.prepare(reference, _kernel(window), torch.device(gpu))
        planes = (_planes(y, window) for y in reference)
        return [_Prepared(p, _means(p, window)) for p in planes]

    def compare(self, video: Video, prepared: Sequence[Any]) -> NDArray[np.float64]:
        """SSIM of each frame of as many as were prepared, where they were prepared."""
        window = _WINDOWS[self.definition]
        if prepared and not isinstance(prepared[0], _Prepared):
            from srbench.metrics import _ssim_gpu

            return _ssim_gpu.compare(video, prepared, _kernel(window))
        return np.array([_ssim(_planes(x, window), y, window) for x, y in zip(video, prepared, strict=True)])


def _kernel(window: _Window) -> Any:
    from srbench.metrics._ssim_gpu import Kernel

    padding = 0 if window.valid else len(window.weights) // 2
    return Kernel(window.weights, padding, window.scale, C1, C2)


def _planes(frame: NDArray[np.uint8], window: _Window) -> Planes:
    """uint8 (height, width, 3) as planes (3, height, width) on [0, 1], padded where the window wants it.

    Divided in float32, as the baselines' code does before it goes on in float64: dividing
    in float64 would part from their SSIM by 1e-8 instead of 1e-14.
    """
    reach = 0 if window.valid else len(window.weights) // 2
    planes = np.pad(frame.transpose(2, 0, 1), ((0, 0), (reach, reach), (reach, reach))).astype(np.float32)
    planes /= np.float32(255)
    return planes


def _means(planes: Planes, window: _Window) -> tuple[Map, ...]:
    """Weighted means over the window where it fits, of each strip, as `_filter` lays them out."""
    found = []
    for strip in _strips(planes, window):
        rows, columns = strip.shape
        scratch = _Scratch(1, rows, columns, window)
        scratch.strips[0] = strip
        found.append(_filter(window, scratch)[0])
    return tuple(found)


def _ssim(x: Planes, reference: _Prepared, window: _Window) -> float:
    """SSIM of a frame's planes against a prepared reference frame."""
    total = 0.0
    scratch: dict[int, _Scratch] = {}
    strips = zip(_strips(x, window), _strips(reference.planes, window), reference.means, strict=True)
    for strip, other, mean_y in strips:
        if len(strip) not in scratch:
            rows, columns = strip.shape
            scratch[len(strip)] = _Scratch(3, rows, columns, window)
        own = scratch[len(strip)]
        (x_strip, product, squares), y_strip = own.strips, own.other
        x_strip[:], y_strip[:] = strip, other
        np.multiply(x_strip, y_strip, out=product)
        np.multiply(x_strip, x_strip, out=squares)
        y_strip *= y_strip
        squares += y_strip
        mean_x, mean_xy, mean_xx = _filter(window, own)
        total += _sum_of_map(mean_x, mean_xy, mean_xx, mean_y, own.spare, window)
    return total / sum(m.size for m in reference.means)


def _sum_of_map(mean_x: Map, product: Map, squares: Map, mean_y: Map, spare: Map, window: _Window) -> float:
    """The sum of the equation at the top over a strip; overwrites all but mean_y.

    product: filtered x·y; squares: filtered x² + y².  Both factors of the numerator are taken by half,
    so that nothing is doubled pixel by pixel; four times the sum is exact, as 4 is a power of 2.
    """
    constant = window.scale * C1 + C2  # takes C1 away from what it is added to, and adds C2
    above = np.multiply(mean_x, mean_y, out=spare[0])
    above += C1 / 2
    product -= above
    below = np.multiply(mean_x, mean_x, out=mean_x)
    below += np.multiply(mean_y, mean_y, out=spare[1])
    below += C1
    squares -= below
    if window.unbiased:
        product *= window.scale
        squares *= window.scale
    product += constant / 2
    squares += constant
    above *= product
    below *= squares
    above /= below
    return 4 * float(above.sum())


class _Scratch:
    """Arrays for `maps` strips of one size; memory that is touched first costs more than the arithmetic.

    strips: (maps, rows, columns), what is filtered.  other: the reference's strip.  spare: maps on
    the way.  filtered: (maps, pixels), tile by tile, COLUMNS wide, row by row in each, the narrower
    rest last.  tiles, rest and their outs: views, of `down` with the columns that a tile needs, and
    of `filtered`.
    """

    def __init__(self, maps: int, rows: int, columns: int, window: _Window) -> None:
        more = len(window.weights) - 1
        rows, width = rows - more, columns - more
        count, inside = width // COLUMNS, rows * (width - width % COLUMNS)
        self.strips = np.empty((maps, rows + more, columns))
        self.other = np.empty((rows + more, columns))
        self.spare = np.empty((2, rows * width))
        self.down = np.empty((maps, rows, columns))
        self.filtered = np.empty((maps, rows * width))
        views = sliding_window_view(self.down, COLUMNS + more, axis=2) if count else self.down[..., None]
        self.tiles = views[:, :, ::COLUMNS][:, :, :count].swapaxes(1, 2)
        self.tiles_out = self.filtered[:, :inside].reshape(maps, count, rows, COLUMNS)
        self.rest = self.down[:, :, count * COLUMNS :]
        self.rest_out = self.filtered[:, inside:].reshape(maps, rows, width % COLUMNS)


def _strips(planes: Planes, window: _Window) -> Iterator[Planes]:
    """Of each plane in turn, the rows that ROWS rows of its filtered plane need; fewer at its end."""
    more = len(window.weights) - 1
    for plane in planes:
        for at in range(0, len(plane) - more, ROWS):
            yield plane[at : at + ROWS + more]


def _filter(window: _Window, scratch: _Scratch) -> Map:
    """Weighted means over the window where it fits, of scratch.strips: scratch.filtered.

    Whoever filters a map has the same products in the same order, so that x = y gives 1.
    """
    np.matmul(_band(scratch.down.shape[1], window.weights), scratch.strips, out=scratch.down)
    if scratch.tiles_out.size:
        np.matmul(scratch.tiles, _band_across(COLUMNS, window.weights), out=scratch.tiles_out)
    if rest := scratch.rest_out.shape[2]:
        np.matmul(scratch.rest, _band_across(rest, window.weights), out=scratch.rest_out)
    return scratch.filtered


@functools.lru_cache(maxsize=64)
def _band(n: int, weights: tuple[float, ...]) -> Map:
    """(n, n + window − 1): row i holds the weights from column i on."""
    band = np.zeros((n, n + len(weights) - 1))
    for i in range(n):
        band[i, i : i + len(weights)] = weights
    return band


@functools.lru_cache(maxsize=64)
def _band_across(n: int, weights: tuple[float, ...]) -> Map:
    """`_band` transposed, in the order that BLAS multiplies by twice as fast."""
    return np.ascontiguousarray(_band(n, weights).T)
