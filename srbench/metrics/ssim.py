"""SSIM, the structural similarity of a frame to its reference (Wang et al. 2004).

For each pixel and channel, with weighted means, variances and covariance over a window,

    (2 μx μy + C1) (2 σxy + C2) / ((μx² + μy² + C1) (σx² + σy² + C2))

where C1 = 0.01² and C2 = 0.03² for values on [0, 1].  A frame's value is the mean over
pixels and channels.  What the paper leaves open is the window and the border, and there
the numbers of this field part by more than many papers' gains: hence named definitions.

What makes it fast, in float64 and on one core: of the second moments of x and y only the sum
is needed, so three maps are filtered for a video and one for its reference; a window along
one axis is the product with a narrow band matrix, which BLAS does in tiles that stay in the
cache, where a loop over the window's weights would go through memory once for each of them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UserError
from srbench.metrics.base import check_pair, compare_chunks
from srbench.registry import plugin
from srbench.store.records import MetricFacts
from srbench.video import Video

C1, C2 = 0.01**2, 0.03**2
ROWS, COLUMNS = 16, 24  # of a tile; wider ones multiply more zeros, smaller ones call BLAS more often

Map = NDArray[np.float64]
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
    """A reference frame: its planes (3, height, width), as the window sees them, and their means."""

    planes: Map
    means: Map


@plugin
class SSIM:
    """SSIM in float64 on a CPU, by one of three definitions.

    gauss11-valid: 11×11 Gaussian, σ = 1.5, where it fits.  TeaCache, VideoSys and MagCache;
        scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
    uniform7: 7×7 uniform where it fits, covariance with N / (N - 1).  scikit-image's default.
    gauss11-same: the same Gaussian on a frame padded by 5 zeros a side, mean over the whole
        map, as torch code with conv2d(padding=5) has it.
    """

    definition: Definition = "gauss11-valid"

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

    def prepare(self, reference: Video) -> list[_Prepared]:
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
        planes = (_planes(y, window) for y in reference)
        return [_Prepared(p, _means(p, window)) for p in planes]

    def compare(self, video: Video, prepared: list[_Prepared]) -> NDArray[np.float64]:
        """SSIM of each frame of as many as were prepared."""
        window = _WINDOWS[self.definition]
        return np.array([_ssim(_planes(x, window), y, window) for x, y in zip(video, prepared, strict=True)])


def _planes(frame: NDArray[np.uint8], window: _Window) -> Map:
    """uint8 (height, width, 3) as planes (3, height, width) on [0, 1], padded where the window wants it.

    Divided in float32, as the baselines' code does before it goes on in float64: dividing
    in float64 would part from their SSIM by 1e-8 instead of 1e-14.
    """
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1)).astype(np.float32)
    planes /= np.float32(255)
    if window.valid:
        return planes.astype(np.float64)
    reach = len(window.weights) // 2
    return np.pad(planes.astype(np.float64), ((0, 0), (reach, reach), (reach, reach)))


def _means(planes: Map, window: _Window) -> Map:
    """Weighted means over the window of each plane, where it fits."""
    return np.concatenate([_filter(strip, window) for strip, _ in _strips(planes, window)], axis=1)


def _ssim(x: Map, reference: _Prepared, window: _Window) -> float:
    """SSIM of a frame's planes against a prepared reference frame."""
    total = 0.0
    for (strip, at), (other, _) in zip(_strips(x, window), _strips(reference.planes, window), strict=True):
        products = np.empty((3, *strip.shape))
        np.multiply(strip, other, out=products[1])
        np.multiply(strip, strip, out=products[2])
        products[2] += other * other
        products[0] = strip
        mean_x, product, squares = _filter(products, window)
        total += _sum_of_map(mean_x, reference.means[:, at : at + mean_x.shape[1]], product, squares, window)
    return total / reference.means.size


def _sum_of_map(mean_x: Map, mean_y: Map, product: Map, squares: Map, window: _Window) -> float:
    """The sum of the equation at the top over a strip; overwrites all but mean_y.

    product: filtered x·y; squares: filtered x² + y².
    """
    mean_product = mean_x * mean_y
    means = mean_x
    means *= mean_x
    means += mean_y * mean_y
    product -= mean_product
    squares -= means
    mean_product *= 2
    mean_product += C1
    product *= 2 * window.scale
    product += C2
    means += C1
    squares *= window.scale
    squares += C2
    mean_product *= product
    means *= squares
    mean_product /= means
    return float(mean_product.sum())


def _strips(planes: Map, window: _Window) -> list[tuple[Map, int]]:
    """Rows that ROWS rows of the filtered planes need, and where those begin."""
    more = len(window.weights) - 1
    starts = range(0, planes.shape[1] - more, ROWS)
    return [(planes[:, at : at + ROWS + more], at) for at in starts]


def _filter(strip: Map, window: _Window) -> Map:
    """Weighted means over the window, along the last two axes, where it fits."""
    more = len(window.weights) - 1
    height, width = strip.shape[-2] - more, strip.shape[-1] - more
    down = np.matmul(_band(height, window.weights), strip)
    across = np.empty((*down.shape[:-1], width))
    # maps apart: the same product in the same order, whoever filters it, so that x = y gives 1
    for rows, out in zip(_apart(down), _apart(across), strict=True):
        for at in range(0, width, COLUMNS):
            n = min(COLUMNS, width - at)
            np.matmul(rows[:, at : at + n + more], _band(n, window.weights).T, out=out[:, at : at + n])
    return across


def _apart(maps: Map) -> Map:
    """(…, 3, rows, width) as one (3 rows, width) for each map."""
    return maps.reshape(-1, 3 * maps.shape[-2], maps.shape[-1])


@functools.lru_cache(maxsize=64)
def _band(n: int, weights: tuple[float, ...]) -> Map:
    """(n, n + window − 1): row i holds the weights from column i on."""
    band = np.zeros((n, n + len(weights) - 1))
    for i in range(n):
        band[i, i : i + len(weights)] = weights
    return band
