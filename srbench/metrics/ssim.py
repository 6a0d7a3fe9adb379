"""SSIM, the structural similarity of a frame to its reference (Wang et al. 2004).

For each pixel and channel, with weighted means, variances and covariance over a window,

    (2 μx μy + C1) (2 σxy + C2) / ((μx² + μy² + C1) (σx² + σy² + C2))

where C1 = 0.01² and C2 = 0.03² for values on [0, 1].  A frame's value is the mean over
pixels and channels.  What the paper leaves open is the window and the border, and there
the numbers of this field part by more than many papers' gains: hence named definitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from srbench.errors import UserError
from srbench.metrics.base import check_pair
from srbench.registry import plugin
from srbench.store.records import MetricFacts
from srbench.video import Video

C1, C2 = 0.01**2, 0.03**2

Map = NDArray[np.float64]


@dataclass(frozen=True)
class _Window:
    """weights: (n,), n odd, summing to 1, the same along height and width.

    valid: only where the window fits; else the frame is surrounded by zeros.
    unbiased: variances with N / (N - 1), N being the pixels of the window.
    """

    weights: Map
    valid: bool = True
    unbiased: bool = False


def _gauss(size: int, sigma: float) -> Map:
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * np.square(offsets / sigma))
    return weights / weights.sum()


_WINDOWS = {
    "gauss11-valid": _Window(_gauss(11, 1.5)),
    "uniform7": _Window(np.full(7, 1 / 7), unbiased=True),
    "gauss11-same": _Window(_gauss(11, 1.5), valid=False),
}


@plugin
class SSIM:
    """SSIM in float64 on a CPU, by one of three definitions.

    gauss11-valid: 11×11 Gaussian, σ = 1.5, where it fits.  TeaCache, VideoSys and MagCache;
        scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
    uniform7: 7×7 uniform where it fits, covariance with N / (N - 1).  scikit-image's default.
    gauss11-same: the same Gaussian on a frame padded by 5 zeros a side, mean over the whole
        map, as torch code with conv2d(padding=5) has it.
    """

    definition: Literal["gauss11-valid", "uniform7", "gauss11-same"] = "gauss11-valid"

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
        window = _WINDOWS[self.definition]
        size = len(window.weights)
        height, width = video.shape[1:3]
        if min(height, width) < size:
            raise UserError(
                f"frames of {width}×{height} pixels",
                f"at least {size}×{size}, the window of ssim/{self.definition}",
                "generate larger frames, or leave out this metric",
            )
        return np.array([_ssim(x, y, window) for x, y in zip(video, reference, strict=True)])


def _ssim(x: NDArray[np.uint8], y: NDArray[np.uint8], window: _Window) -> float:
    """SSIM of two frames (height, width, 3)."""
    # Four filtered maps do: of the second moments of x and y only the sum is needed.
    fx, fy = _unit(x), _unit(y)
    maps = np.stack([fx, fy, fx * fx + fy * fy, fx * fy])
    mean_x, mean_y, squares, product = _filter(maps, window)
    n = len(window.weights) ** 2
    scale = n / (n - 1) if window.unbiased else 1.0
    means, mean_product = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    variances, covariance = scale * (squares - means), scale * (product - mean_product)
    above = (2 * mean_product + C1) * (2 * covariance + C2)
    return float(np.mean(above / ((means + C1) * (variances + C2))))


def _unit(frame: NDArray[np.uint8]) -> Map:
    """uint8 (height, width, 3) as (3, height, width) on [0, 1].

    Divided in float32, as the baselines' code does before it goes on in float64: dividing
    in float64 would part from their SSIM by 1e-8 instead of 1e-14.
    """
    unit = frame.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(unit.transpose(2, 0, 1), dtype=np.float64)


def _filter(maps: Map, window: _Window) -> Map:
    """Weighted means over the window, along the last two axes."""
    reach = len(window.weights) // 2
    inner = slice(reach, -reach) if window.valid else slice(None)
    down = correlate1d(maps, window.weights, axis=-2, mode="constant")[..., inner, :]
    return correlate1d(down, window.weights, axis=-1, mode="constant")[..., inner]
