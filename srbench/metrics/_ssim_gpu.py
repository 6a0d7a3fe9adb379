"""SSIM on a GPU: the windows and the equation of `metrics.ssim`, in float64, by torch's convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from srbench.video import Video


@dataclass(frozen=True, eq=False)
class Prepared:
    """A reference frame on the device, float64: planes (3, height, width), filtered y and y² (3, …)."""

    planes: Tensor
    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class Kernel:
    """A window's line of weights, how far frames are padded with zeros, N / (N − 1) or 1, C1 and C2."""

    weights: tuple[float, ...]
    padding: int
    scale: float
    c1: float
    c2: float


def prepare(reference: Video, kernel: Kernel, device: torch.device) -> list[Prepared]:
    """Of each frame of uint8 RGB (frames, height, width, 3)."""
    return [_prepared(_planes(frame, kernel, device), kernel) for frame in reference]


def _prepared(planes: Tensor, kernel: Kernel) -> Prepared:
    mean, square = _filter([planes, planes * planes], kernel)
    return Prepared(planes, mean, square)


def compare(video: Video, prepared: Sequence[Prepared], kernel: Kernel) -> NDArray[np.float64]:
    """SSIM of each frame; waited for once."""
    values = [_ssim(frame, y, kernel) for frame, y in zip(video, prepared, strict=True)]
    return torch.stack(values).cpu().numpy()


def _ssim(frame: NDArray[np.uint8], y: Prepared, kernel: Kernel) -> Tensor:
    x = _planes(frame, kernel, y.planes.device)
    mean, square, product = _filter([x, x * x, x * y.planes], kernel)
    c1, c2, scale = kernel.c1, kernel.c2, kernel.scale
    means = mean * y.mean
    covariance = scale * (product - means)
    variances = scale * (square - mean * mean + y.square - y.mean * y.mean)
    above = (2 * means + c1) * (2 * covariance + c2)
    return (above / ((mean * mean + y.mean * y.mean + c1) * (variances + c2))).mean()


def _planes(frame: NDArray[np.uint8], kernel: Kernel, device: torch.device) -> Tensor:
    """Divided in float32 as on a CPU, and padded where the window wants it."""
    planes = torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)
    return F.pad(planes.float().div_(255).double(), (kernel.padding,) * 4)


def _filter(maps: Sequence[Tensor], kernel: Kernel) -> tuple[Tensor, ...]:
    """Weighted means over the window where it fits, of maps (3, height, width)."""
    stacked = torch.cat(list(maps))[:, None]
    line = torch.tensor(kernel.weights, dtype=torch.float64, device=stacked.device)
    down = F.conv2d(stacked, line[None, None, :, None])
    return tuple(F.conv2d(down, line[None, None, None, :])[:, 0].split(3))
