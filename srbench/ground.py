"""The software and hardware that the bits of a video depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable

PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "ftfy", "numpy", "av")
# Raised by hand when our own code changes the bits of a video or a state.
BITS = 1


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions, read without importing anything."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    return {p: version(p) for p in packages}


def device(setting: str = "auto") -> str:
    """The accelerator's name, or the CPU's with its vector instructions.

    setting: the family's `device`; "auto" is the first GPU where there is one.
    """
    import torch

    resolved = setting if setting != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if resolved.startswith("cuda"):
        return torch.cuda.get_device_name(resolved)
    return f"CPU {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def described(setting: str = "auto") -> str:
    """The device for a reader."""
    name = device(setting)
    return f"{name}, {os.cpu_count()} cores" if name.startswith("CPU") else name


def ground(threads: int, setting: str = "auto") -> dict[str, str]:
    """What goes into every key: our own version of bits, packages, device class, threads."""
    here = {"bits": str(BITS), "device": device(setting), "threads": str(threads)}
    return versions(PACKAGES) | here
