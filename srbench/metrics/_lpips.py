"""The networks behind LPIPS, as fast as one reference and many videos allow.

Three things save time, and none changes what is computed by more than float32's rounding:
the reference's features are computed once; the mean of a bilinearly enlarged map is a
weighted mean of the map itself, so no map is enlarged; and on a CPU all layers but the first are
Winograd convolutions (Lavin and Gray 2016), a fifth or sixth of the multiplications.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from srbench.metrics.base import gpu_of
from srbench.metrics.lpips import Network, read_weights
from srbench.video import Video

BLOCK = 1 << 17  # numbers of a map that are compared at a time: they stay in the cache
# Of the lpips package, version 0.1: the inputs' standardisation on [-1, 1], and what is
# added to a norm.
SHIFT, SCALE, EPSILON = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450), 1e-10


@dataclass(frozen=True)
class Layout:
    """A network's convolutions, each followed by a ReLU, up to the last that counts.

    places: the numbers torchvision gives them.  pooled: those with max pooling (size, stride
    2) before them.  tapped: those whose output counts.  padding: of each.  stride: of the
    first; 1 of the others.
    """

    places: tuple[int, ...]
    padding: tuple[int, ...]
    pooled: tuple[int, ...]
    tapped: tuple[int, ...]
    pool: int
    stride: int = 1


LAYOUTS: dict[Network, Layout] = {
    "alex": Layout((0, 3, 6, 8, 10), (2, 2, 1, 1, 1), (1, 2), (0, 1, 2, 3, 4), pool=3, stride=4),
    "vgg": Layout(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (1,) * 13, (2, 4, 7, 10), (1, 3, 6, 9, 12), pool=2
    ),
}

Features = list[Tensor]
"""Of one frame: for each layer that counts (height, width, channels), normalised."""


class Net:
    """One network on one device.

    weights: `N.weight` (out, in, rows, columns) and `N.bias` (out,) of the N-th convolution,
    `head.N` (channels,) of the N-th layer that counts.
    """

    def __init__(self, layout: Layout, weights: Mapping[str, Tensor], device: torch.device) -> None:
        self.layout, self.device = layout, device
        count = len(layout.places)
        on_cpu = device.type == "cpu"
        kernels = [weights[f"{i}.weight"].to(device, torch.float32) for i in range(count)]
        self.kernels = [k.contiguous(memory_format=torch.channels_last) for k in kernels]
        self.biases = [weights[f"{i}.bias"].to(device, torch.float32) for i in range(count)]
        self.heads = [weights[f"head.{i}"].to(device, torch.float32) for i in range(len(layout.tapped))]
        # the first layer has too few channels, or a stride
        self.winograd = {
            i: Winograd(kernels[i], self.biases[i], layout.padding[i]) for i in range(1, count) if on_cpu
        }
        shift, scale = torch.tensor(SHIFT), torch.tensor(SCALE)
        self.factor = (2 / (255 * scale)).to(device)
        self.offset = (-(1 + shift) / scale).to(device)

    @torch.inference_mode()
    def features(self, video: Video) -> list[Features]:
        """Of each frame of uint8 RGB (frames, height, width, 3)."""
        parts = ([normalised(layer) for layer in self._layers(own)] for own in self._parts(video))
        return [[layer[n] for layer in part] for part in parts for n in range(len(part[0]))]

    @torch.inference_mode()
    def distances(self, video: Video, references: list[Features], spatial: bool) -> NDArray[np.float64]:
        """LPIPS of each frame against the features of its reference; see metrics.lpips.

        spatial: average each layer's map as if it were brought to the frame's size bilinearly.
        """
        size = video.shape[1:3] if spatial else None
        totals: list[Tensor] = []
        for own in self._parts(video):
            y = references[len(totals) : len(totals) + len(own)]
            found = torch.zeros(len(own), dtype=torch.float64, device=self.device)
            for i, layer in enumerate(self._layers(own)):
                found += torch.stack([self._apart(x, y[n][i], i, size) for n, x in enumerate(layer)])
            totals += found
        return torch.stack(totals).cpu().numpy()

    def _parts(self, video: Video) -> Iterator[Video]:
        """What goes through the network at once: all on a GPU, each frame alone on a CPU.

        There a frame's bits must not depend on its neighbours.
        """
        step = 1 if self.device.type == "cpu" else len(video)
        return (video[i : i + step] for i in range(0, len(video), step))

    def _apart(self, x: Tensor, y: Tensor, i: int, size: tuple[int, ...] | None) -> Tensor:
        """A layer's share of a distance; x as it comes out, y normalised, both (height, width, channels)."""
        rows = len(x) if self.device.type != "cpu" else max(1, BLOCK // x[0].numel())
        blocks = (normalised(x[r : r + rows]).sub_(y[r : r + rows]) for r in range(0, len(x), rows))
        apart = torch.cat([block.square_() @ self.heads[i] for block in blocks]).double()
        if size is None:
            return apart.mean()
        down, across = (share(n, to, self.device) for n, to in zip(apart.shape, size, strict=True))
        return down @ apart @ across

    def _layers(self, video: Video) -> Iterator[Tensor]:
        """What counts of each layer in turn, (frames, height, width, channels)."""
        x = torch.from_numpy(np.ascontiguousarray(video)).to(self.device)
        # whole rows at once: three channels are too short a loop
        factor, offset = self.factor.repeat(x.shape[2]), self.offset.repeat(x.shape[2])
        on_scale = x.flatten(2).float().mul_(factor).add_(offset).reshape(x.shape)
        x = on_scale.permute(0, 3, 1, 2)  # stays channels last
        for i in range(len(self.kernels)):
            if i in self.layout.pooled:
                x = F.max_pool2d(x, self.layout.pool, 2)
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                x = self._convolve(x, i)
            if i in self.layout.tapped:
                yield x.permute(0, 2, 3, 1)

    def _convolve(self, x: Tensor, i: int) -> Tensor:
        """Layer i with its ReLU, (frames, channels, height, width) in and out, channels last in memory."""
        if i in self.winograd:
            (frame,) = x.permute(0, 2, 3, 1)  # one at a time on a CPU, see _parts
            return self.winograd[i](frame)[None].permute(0, 3, 1, 2)
        stride = self.layout.stride if i == 0 else 1
        return F.conv2d(x, self.kernels[i], self.biases[i], stride, self.layout.padding[i]).relu_()


def normalised(x: Tensor) -> Tensor:
    """Each pixel divided by its norm over the last axis, 1e-10 added to it."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).add_(EPSILON)


@functools.lru_cache(maxsize=64)
def share(n: int, to: int, device: torch.device | str = "cpu") -> Tensor:
    """Float64 (n,), summing to 1: each point's share in the mean of a line enlarged to `to` points.

    Linear interpolation with align_corners=False; along both axes it is the bilinear one.  Kept on
    the device: to copy it there for every frame would wait for the GPU each time.
    """
    lines = torch.eye(n, dtype=torch.float64)[None]
    return F.interpolate(lines, size=to, mode="linear", align_corners=False)[0].mean(1).to(device)


# Winograd's minimal filtering (Lavin and Gray 2016) with the Toom–Cook points 0, ±1, ±2, ±1/2, ∞:
# y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for a tile d of 8×8 pixels, a kernel g of r×r and a tile y of m×m
# pixels, m = 9 − r.  6×6 pixels of a 3×3 kernel take 64 products where 324 are usual, 4×4 of a
# 5×5 kernel 64 for 400.
POINTS = np.array([0, 1, -1, 2, -2, 0.5, -0.5])
TILE = len(POINTS) + 1
TILES = 128  # tiles that go through at a time: their 64 matrices stay near the cores


def toom_cook(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Bᵀ (8, 8), G (8, size) and Aᵀ (9 − size, 8) for kernels of this size.

    Tile and kernel are evaluated at the points as polynomials; Lagrange's interpolation of their
    product, transposed, is the convolution.  Bᵀ holds the interpolation's polynomials
    Π (x − p) over the other points, G their denominators.
    """
    powers = POINTS[:, None] ** np.arange(TILE)
    others = [np.delete(POINTS, i) for i in range(TILE - 1)]
    denominators = np.array([np.prod(p - o) for p, o in zip(POINTS, others, strict=True)])
    infinity = np.eye(TILE)[-1]
    bt = np.array([*(np.append(np.poly(o)[::-1], 0) for o in others), np.poly(POINTS)[::-1]])
    g = np.vstack([powers[:, :size] / denominators[:, None], infinity[-size:]])
    at = np.vstack([powers[:, : TILE + 1 - size], infinity[size - 1 :]]).T
    return bt, g, at


class Winograd:
    """max(0, conv2d(x, kernel, bias, padding=padding)) for one frame at a time on a CPU.

    kernel: (out, in, r, r).  Channels lie last in memory, so every product runs along them.
    """

    def __init__(self, kernel: Tensor, bias: Tensor, padding: int) -> None:
        self.bias, self.padding, self.size = bias, padding, kernel.shape[-1]
        bt, g, at = (torch.from_numpy(m) for m in toom_cook(self.size))
        self.bt, self.at = bt.float(), at.float()
        transformed = torch.einsum("ar,oirs,bs->baio", g, kernel.double(), g)  # columns first, as tiles
        self.kernel = transformed.float().reshape(TILE**2, kernel.shape[1], kernel.shape[0]).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """(height, width, in) to (height, width, out), smaller by what padding doesn't make up for."""
        out, step, border = self.kernel.shape[2], len(self.at), self.size - 1
        height, width = (n + 2 * self.padding - border for n in x.shape[:2])
        down, across = -(-height // step), -(-width // step)
        bottom, right = (
            step * n + border - self.padding - m for n, m in zip((down, across), x.shape[:2], strict=True)
        )
        padded = F.pad(x, (0, 0, self.padding, right, self.padding, bottom))
        found = x.new_empty(down, step, across, step, out)
        rows = max(1, TILES // across)
        for lines, to in zip(padded.unfold(0, TILE, step).split(rows), found.split(rows), strict=True):
            n, columns, channels, _ = lines.shape
            tiles = self.bt @ lines.permute(3, 0, 1, 2).reshape(TILE, -1)
            tiles = tiles.view(TILE, n, columns, channels).unfold(2, TILE, step)
            tiles = self.bt @ tiles.permute(4, 0, 1, 2, 3).reshape(TILE, -1)
            products = tiles.view(TILE**2, -1, channels) @ self.kernel
            products = self.at @ products.view(TILE, -1)
            products = self.at @ products.view(step, TILE, -1)
            back = products.view(step, step, n, across, out).permute(2, 1, 3, 0, 4)
            torch.add(back, self.bias, out=to).relu_()
        return found.view(down * step, across * step, out)[:height, :width]


# Weights


@functools.lru_cache(maxsize=4)
def network(name: Network, device: str) -> Net:
    """A network with its published weights; "auto" is the first GPU where there is one.

    Raises UserError where the weights are not installed, or the file holds anything else.
    """
    weights = {key: torch.from_numpy(array) for key, array in read_weights(name).items()}
    return Net(LAYOUTS[name], weights, torch.device(gpu_of(device) or "cpu"))
