"""The networks behind LPIPS, as fast as one reference and many videos allow.

Three things save time, and none changes what is computed by more than float32's rounding:
the reference's features are computed once; the mean of a bilinearly enlarged map is a
weighted mean of the map itself, so no map is enlarged; and on a CPU AlexNet's 3×3 layers are
Winograd convolutions F(4×4, 3×3) (Lavin and Gray 2016), a quarter of the multiplications.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from srbench.errors import UserError
from srbench.metrics.lpips import Network, converted_file, heads_file, torchvision_file
from srbench.store.objects import file_hash
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
        # VGG's maps are as large as the frame: their tiles would take gigabytes
        wanted = on_cpu and layout.stride > 1
        self.winograd = {i: winograd_kernel(k) for i, k in enumerate(kernels) if wanted and k.shape[-1] == 3}
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
        down, across = (share(n, to).to(self.device) for n, to in zip(apart.shape, size, strict=True))
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
                x = self._convolve(x, i).relu_()
            if i in self.layout.tapped:
                yield x.permute(0, 2, 3, 1)

    def _convolve(self, x: Tensor, i: int) -> Tensor:
        if i in self.winograd:
            return winograd(x, self.winograd[i], self.biases[i])
        stride = self.layout.stride if i == 0 else 1
        return F.conv2d(x, self.kernels[i], self.biases[i], stride, self.layout.padding[i])


def normalised(x: Tensor) -> Tensor:
    """Each pixel divided by its norm over the last axis, 1e-10 added to it."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).add_(EPSILON)


@functools.lru_cache(maxsize=64)
def share(n: int, to: int) -> Tensor:
    """Float64 (n,), summing to 1: each point's share in the mean of a line enlarged to `to` points.

    Linear interpolation with align_corners=False; along both axes it is the bilinear one.
    """
    lines = torch.eye(n, dtype=torch.float64)[None]
    return F.interpolate(lines, size=to, mode="linear", align_corners=False)[0].mean(1)


# Winograd's F(4×4, 3×3) with the points 0, ±1, ±2, ∞: y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for a
# tile d of 6×6 pixels, a kernel g and a tile y of 4×4 pixels.
_G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
).div(24)
_BT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float32,
)
_AT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float32
)


def winograd_kernel(kernel: Tensor) -> Tensor:
    """G g Gᵀ of a kernel (out, in, 3, 3), as (36, in, out)."""
    transformed = torch.einsum("ar,oirs,bs->abio", _G, kernel.double(), _G)
    return transformed.float().reshape(36, kernel.shape[1], kernel.shape[0]).contiguous()


def winograd(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """conv2d(x, g, bias, padding=1) for x (batch, in, height, width) and a winograd_kernel of g.

    Both ways channels lie last in memory, so every product runs along them.
    """
    batch, channels, height, width = x.shape
    down, across = -(-height // 4), -(-width // 4)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * across + 1 - width, 1, 4 * down + 1 - height))
    tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)
    tiles = _BT @ tiles.reshape(6, -1)
    tiles = _BT @ tiles.reshape(6, 6, -1)
    product = tiles.reshape(36, -1, channels) @ kernel  # (36, tiles, out)
    product = _AT @ product.reshape(6, -1)
    product = _AT @ product.reshape(4, 6, -1)
    whole = product.reshape(4, 4, batch, down, across, -1).permute(2, 3, 0, 4, 1, 5)
    whole = whole.reshape(batch, 4 * down, 4 * across, -1)[:, :height, :width]
    return whole.add_(bias).permute(0, 3, 1, 2)


# Weights


@functools.lru_cache(maxsize=4)
def network(name: Network, device: str) -> Net:
    """A network with its published weights; "auto" is the first GPU where there is one.

    Raises UserError where a weights file is not what it should be.
    """
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return Net(LAYOUTS[name], load(name), torch.device(where))


def load(name: Network) -> dict[str, Tensor]:
    """The weights of a network, torchvision's own file before any other source."""
    path, own_heads = torchvision_file(name), heads_file(name)
    if not path.is_file() or own_heads is None:
        return load_file(converted_file(name))
    wanted = path.stem.rpartition("-")[2]
    if not file_hash(path).startswith(wanted):
        raise UserError(
            f"{path}: its sha256 does not begin with {wanted}", "the file its name promises", "remove it"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    heads = torch.load(own_heads, map_location="cpu", weights_only=True)
    return from_torchvision(LAYOUTS[name], state, heads)


def from_torchvision(
    layout: Layout, state: Mapping[str, Tensor], heads: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """State dicts of torchvision and of the lpips package, under the names of `Net`."""
    found = {
        f"{i}.{part}": state[f"features.{place}.{part}"]
        for i, place in enumerate(layout.places)
        for part in ("weight", "bias")
    }
    return found | {f"head.{i}": heads[f"lin{i}.model.1.weight"].flatten() for i in range(len(layout.tapped))}
