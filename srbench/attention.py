"""Attention backends that a denoiser may ask for, and the packages they need; no torch.

The names are diffusers' own.  Those that fetch compiled kernels from a hub at run time
(`…_hub`) are left out: no remote code is run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import Literal, get_args

from srbench.errors import UserError

Attention = Literal[
    "native",
    "_native_math",
    "_native_efficient",
    "_native_flash",
    "_native_cudnn",
    "flex",
    "flash",
    "flash_varlen",
    "_flash_3",
    "_flash_varlen_3",
    "sage",
    "sage_varlen",
    "_sage_qk_int8_pv_fp16_cuda",
    "_sage_qk_int8_pv_fp16_triton",
    "_sage_qk_int8_pv_fp8_cuda",
    "_sage_qk_int8_pv_fp8_cuda_sm90",
    "xformers",
]


@dataclass(frozen=True)
class Package:
    """What a backend needs: the module it imports, and how to get it."""

    module: str
    distribution: str
    at_least: tuple[int, ...]
    do: str


_FLASH = Package("flash_attn", "flash-attn", (2, 6, 3), "install 'srbench[flash]'")
_FLASH_3 = Package(
    "flash_attn_interface",
    "flash-attn-3",
    (),
    "build FlashAttention 3 (its hopper folder) from source, or use attention: flash ('srbench[flash]')",
)
_SAGE = Package("sageattention", "sageattention", (2, 1, 1), "install 'srbench[sage]'")
_XFORMERS = Package("xformers", "xformers", (0, 0, 29), "install xformers")


def package(backend: Attention) -> Package | None:
    """The package of a backend; None where torch itself has it."""
    if backend.startswith(("native", "_native", "flex")):
        return None
    if backend in ("_flash_3", "_flash_varlen_3"):
        return _FLASH_3
    return _FLASH if backend.startswith("flash") else _XFORMERS if backend == "xformers" else _SAGE


def mistake(backend: Attention, where: str) -> UserError | None:
    """What is missing for a backend on this machine, told before a model loads.

    where: the dotted place of the setting, for the message.
    """
    needs = package(backend)
    if needs is None or _installed(needs):
        return None
    version = f" {'.'.join(map(str, needs.at_least))} or newer" if needs.at_least else ""
    return UserError(f"{where}.attention = {backend}", f"{needs.distribution}{version}", needs.do)


def installed(backend: Attention | None) -> str | None:
    """A backend's package with its version, which the bits of what it computes depend on.

    None where torch itself has the backend, or where its package is not installed.
    """
    needs = package(backend) if backend else None
    if needs is None or importlib.util.find_spec(needs.module) is None:
        return None
    return f"{needs.distribution} {_version(needs) or 'of unknown version'}"


def _version(needs: Package) -> str | None:
    """None for an own build without metadata."""
    try:
        return importlib.metadata.version(needs.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(needs: Package) -> bool:
    if importlib.util.find_spec(needs.module) is None:
        return False
    if not needs.at_least:
        return True
    if (version := _version(needs)) is None:
        return True
    numbers = tuple(int(p) for p in version.split("+")[0].split(".")[:3] if p.isdigit())
    return numbers >= needs.at_least


def names() -> tuple[str, ...]:
    """Every backend a denoiser may name."""
    return get_args(Attention)
