"""The software and hardware that the bits of a video depend on."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

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

    setting: the family's `device`; "auto" is the first GPU where there is one.  torch is
    asked only where it has to be: importing it takes seconds that a plan does not have.
    """
    if setting in ("auto", "cpu") and not (setting == "auto" and may_have_gpu()):
        return f"CPU {platform.machine()} {_cpu_capability()}"
    import torch

    resolved = setting if setting != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if resolved.startswith("cuda"):
        return torch.cuda.get_device_name(resolved)
    return f"CPU {platform.machine()} {_cpu_capability()}"


def may_have_gpu() -> bool:
    """Whether torch could find a GPU; False only where the system shows no driver of one."""
    signs = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    return sys.platform != "linux" or any(os.path.exists(s) for s in signs)


@functools.cache
def _cpu_capability() -> str:
    """The vector instructions that torch's own kernels use, by torch's own rule."""
    flags = _cpu_flags()
    if not flags or "ATEN_CPU_CAPABILITY" in os.environ:
        import torch

        return torch.backends.cpu.get_cpu_capability()
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"} <= flags:
        return "AVX512"
    return "AVX2" if {"avx2", "fma"} <= flags else "DEFAULT"


def _cpu_flags() -> set[str]:
    """Of an x86 processor as Linux lists them; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((x for x in file if x.startswith("flags")), "")
    except OSError:
        return set()
    return set(line.partition(":")[2].split())


def described(setting: str = "auto") -> str:
    """The device for a reader."""
    name = device(setting)
    return f"{name}, {os.cpu_count()} cores" if name.startswith("CPU") else name


def ground(threads: int, setting: str = "auto") -> dict[str, str]:
    """What goes into every key: our own version of bits, packages, device class, threads."""
    here = {"bits": str(BITS), "device": device(setting), "threads": str(threads)}
    return versions(PACKAGES) | here


def commit() -> tuple[str | None, bool | None]:
    """The checkout's commit and whether it has uncommitted changes; None outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
