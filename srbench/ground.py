"""The software and hardware that the bits of a video depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable

PACKAGES = ("torch", "diffusers", "transformers")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions, read without importing anything."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    return {p: version(p) for p in packages}


def device() -> str:
    """The accelerator's name, or the CPU's with its vector instructions."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def described() -> str:
    """The device for a reader."""
    cores = "" if not device().startswith("CPU") else f", {os.cpu_count()} cores"
    return device() + cores


def ground(threads: int) -> dict[str, str]:
    """What goes into every key: versions, device class, number of threads."""
    return versions(PACKAGES) | {"device": device(), "threads": str(threads)}
