"""LPIPS, the learned perceptual distance of a frame to its reference (Zhang et al. 2018).

With features φ of five layers of a network, each pixel's features divided by their norm, and
the linear heads w that were fitted to people's judgements,

    d = Σ over layers of the mean over pixels of Σ over channels of w (φ̂(x) − φ̂(y))²

What is left open is the network and how a layer's pixels are averaged: hence named
definitions.  All are version 0.1 of the heads.  This file knows the settings and where the
weights are; the network is in `_lpips`, which alone loads torch.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from srbench.config import fingerprint
from srbench.config.registry import plugin
from srbench.errors import UserError
from srbench.families._weights import own_cache
from srbench.metrics.base import Device, check_pair, compare_chunks
from srbench.store.records import MetricFacts
from srbench.video import Video

Definition = Literal["alex-spatial", "alex", "vgg"]
Network = Literal["alex", "vgg"]
DEFINITIONS = get_args(Definition)

# The sha256 of a network's arrays, features and heads; see `digest`.
SHA256: dict[Network, str] = {
    "alex": "515c07cef2ddc711ce2d11d81ca48bda16f0cb9a39828d000de5d18bd572601a",
    "vgg": "23d67f5a6c9ada9f9447da6d703b1113728328c4544ad1ef1ec8612efe2a9baf",
}
# Below it a pooling layer would leave no pixel.
SMALLEST: dict[Network, int] = {"alex": 31, "vgg": 16}
COMMAND: dict[Network, str] = {"alex": "make lpips-weights", "vgg": "make lpips-weights NET=vgg"}

Arrays = Mapping[str, NDArray[np.float32]]
"""A network's weights under the names of `_lpips.Net`."""


def weights_folders() -> tuple[Path, Path]:
    """Return the folders where weights may be, in the order in which they are searched.

    srbench's cache (`$SRBENCH_CACHE`, else the user's cache folder), then the Python
    environment, which `make install` fills.
    """
    return own_cache().expanduser() / "lpips", Path(sys.prefix, "share", "srbench", "lpips")


def file_name(network: Network) -> str:
    """Return the name of a network's weights file; 0.1 is the version of the heads."""
    return f"{network}-0.1.safetensors"


def weights_file(network: Network) -> Path | None:
    """Return the file with a network's weights; None if it is in no folder."""
    files = (folder / file_name(network) for folder in weights_folders())
    return next((file for file in files if file.is_file()), None)


def digest(arrays: Arrays) -> str:
    """Return the sha256 of the names, shapes and values: a file's header may vary."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        found.update(f"{name} {array.shape}\n".encode() + array.tobytes())
    return found.hexdigest()


def read_weights(network: Network) -> Arrays:
    """Read the installed weights of a network.

    Raises:
        UserError: The weights are not installed, or the file holds anything else.
    """
    path = weights_file(network)
    if path is None:
        raise UserError(missing(network), "the weights of LPIPS", "do that, or leave this metric out")
    try:
        arrays: Arrays = load_file(path)
        sound = digest(arrays) == SHA256[network]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        do = f"remove the file, then run `{COMMAND[network]}`"
        raise UserError(f"{path} does not hold these weights", f"weights of sha256 {SHA256[network]}", do)
    return arrays


def missing(network: Network) -> str:
    """Return the sentence for weights that are not installed."""
    return f"the LPIPS weights are not installed: run `{COMMAND[network]}`"


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
        if no_device := fingerprint.lacking(self.device, "metric.lpips.device"):
            return f"{no_device.got}: {no_device.do}"
        return "" if weights_file(self.network) else missing(self.network)

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
            raise UserError(self.unavailable, "what LPIPS needs", "do that, or leave this metric out")
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
        from srbench.metrics import _lpips

        return _lpips.network(self.network, self.device)
