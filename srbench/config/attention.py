"""Attention backends that a denoiser may ask for, and the packages they need; no torch.

The names are diffusers' own.  Those that fetch compiled kernels from a hub at run time
(`…_hub`) are left out: no remote code is run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import Literal, get_args

from packaging.version import InvalidVersion, Version

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
    at_least: str | None
    do: str


_FLASH = Package("flash_attn", "flash-attn", "2.6.3", "install 'srbench[flash]'")
_FLASH_3 = Package(
    "flash_attn_interface",
    "flash-attn-3",
    None,
    "build FlashAttention 3 (its hopper folder) from source, or use attention: flash ('srbench[flash]')",
)
_SAGE = Package("sageattention", "sageattention", "2.1.1", "install 'srbench[sage]'")
_XFORMERS = Package("xformers", "xformers", "0.0.29", "install xformers")


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
    version = f" {needs.at_least} or newer" if needs.at_least else ""
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
    version = _version(needs)
    return needs.at_least is None or version is None or is_at_least(version, needs.at_least)


def is_at_least(version: str, least: str) -> bool:
    """Return whether a release, or a candidate for it, is not older than `least`.

    Args:
        version: an installed version.  A local part (`+cu128`) and the suffix of a candidate or a
            development version do not count.  A version that is not of PEP 440 counts as new enough, as
            a package built without metadata does.
        least: the oldest version that will do.

    >>> is_at_least("0.17", "0.17.0"), is_at_least("2.6.3rc1", "2.6.3"), is_at_least("2.6.10", "2.6.3")
    (True, True, True)
    >>> is_at_least("2.6.2.post1", "2.6.3")
    False
    """
    try:
        return Version(Version(version).base_version) >= Version(least)
    except InvalidVersion:
        return True


def names() -> tuple[str, ...]:
    """Every backend a denoiser may name."""
    return get_args(Attention)
