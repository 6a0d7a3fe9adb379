"""The software and hardware that the bits of a video depend on."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from srbench.errors import UserError
from srbench.store.records import Software

PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "ftfy", "numpy", "av")
# What is recorded with everything that srbench makes: those, srbench, and what scores.
RECORDED = ("srbench", *PACKAGES, "lpips")
# Raised by hand when our own code changes the bits of a video or a state.
BITS = 2
# Of those that decide which kernels the libraries below torch choose, and so the bits.
SETTINGS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG",
)
# Instructions for which those libraries have kernels of their own, and torch's capability has no
# word: x86's, then ARM's.
FURTHER = (
    *("avx_vnni", "avx_ne_convert", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx10"),
    *("amx_tile", "amx_bf16", "amx_fp16"),
    *("bf16", "i8mm", "sve", "sve2", "svebf16", "sme"),
)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions, read without importing anything."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    return {p: version(p) for p in packages}


def new_job() -> str:
    """An id for the processes of one command, whose times are comparable: its begin, and a random end."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def lacking(setting: str, of: str = "family.device") -> UserError | None:
    """Why this machine has no such device; None where it has, or where torch alone could tell.

    of: what was set to it.
    """
    kind, _, number = setting.partition(":")
    if kind != "cuda":
        return None
    if not may_have_gpu():
        seen = "where the system shows no driver of a GPU"
    else:
        import torch

        count = torch.cuda.device_count()
        if int(number or 0) < count:
            return None
        seen = f"where torch {torch.__version__} sees {count} GPUs"
    return UserError(f"{of}={setting}, {seen}", "a GPU of this machine", f"{of}=auto, or cpu")


def device(setting: str = "auto") -> str:
    """The accelerator's name, or the CPU's with its vector instructions.

    setting: the family's `device`; "auto" is the first GPU where there is one.  One that is
    neither CUDA's nor the CPU goes by its type, as mps.  torch is asked only where it has to
    be: importing it takes seconds that a plan does not have.  Raises UserError where a GPU is
    asked for that is not there: keys hold its name.
    """
    if (mistake := lacking(setting)) is not None:
        raise mistake
    kind = setting.partition(":")[0]
    if kind == "cuda" or (kind == "auto" and may_have_gpu()):
        import torch

        if kind == "cuda" or torch.cuda.is_available():
            return torch.cuda.get_device_name("cuda" if kind == "auto" else setting)
    if kind not in ("auto", "cpu"):
        return f"{kind} {platform.machine()}"
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
    return set(_cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return {}
    lines = text.partition("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def cpu() -> str:
    """Who made the processor, and instructions that kernels are chosen by and the device has no word for.

    MKL goes by the maker too, and bfloat16 is another number with AMX than without it.
    """
    about = _cpuinfo()
    there = {*about.get("flags", "").split(), *about.get("Features", "").split()}
    makers = [about[k] for k in ("vendor_id", "CPU implementer", "CPU part") if k in about]
    return " ".join([*(makers or [platform.processor()]), *(f for f in FURTHER if f in there)])


def described(setting: str = "auto") -> str:
    """The device for a reader."""
    name = device(setting)
    return f"{name}, {os.cpu_count()} cores" if name.startswith("CPU") else name


def ground(threads: int, setting: str = "auto") -> dict[str, str]:
    """What goes into every key: our own version of bits, packages, device class, threads.

    And what of the environment chooses kernels, where it is set.
    """
    here = {"bits": str(BITS), "device": device(setting), "threads": str(threads)}
    if here["device"].startswith("CPU"):
        here["cpu"] = cpu()
    return versions(PACKAGES) | here | {k: v for k in SETTINGS if (v := os.environ.get(k))}


@functools.cache
def software(further: tuple[str, ...] = ()) -> Software:
    """The software of this process, as it is recorded with what the process makes.

    Args:
        further: packages that only some methods need, each as `name version`.
    """
    sha, dirty = commit()
    packages = versions(RECORDED) | dict(p.split(" ", 1) for p in further)
    return Software(commit=sha, dirty=dirty, packages=packages)


def commit(package: Path = Path(__file__).parents[1]) -> tuple[str | None, bool | None]:
    """Return the commit that srbench's code is of, and whether the code has uncommitted changes.

    In srbench's own checkout, git knows the commit.  A package that was installed from a repository
    has the commit in its metadata (PEP 610).  Everything else gives (None, None): an installed
    package may lie inside the checkout of another project, whose commit says nothing of srbench.

    Args:
        package: The folder of the package srbench.
    """
    try:
        _git(package, "ls-files", "--error-unmatch", "config/fingerprint.py")
        if Path(_git(package, "rev-parse", "--show-toplevel")).resolve() != package.resolve().parent:
            return _installed_commit(package), None
        changes = _git(package, "status", "--porcelain", "--untracked-files=no")
        return _git(package, "rev-parse", "HEAD"), bool(changes)
    except (OSError, subprocess.CalledProcessError):
        return _installed_commit(package), None


def _git(folder: Path, *words: str) -> str:
    # variables such as GIT_DIR, which git sets for hooks, name another repository
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *words], cwd=folder, env=clean, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _installed_commit(package: Path) -> str | None:
    """Return the commit in the metadata of an installed package; None where there is none."""
    for found in importlib.metadata.distributions(name="srbench", path=[str(package.parent)]):
        try:
            about = json.loads(found.read_text("direct_url.json") or "{}")
            commit_id = about.get("vcs_info", {}).get("commit_id")
        except (ValueError, AttributeError):
            continue
        if isinstance(commit_id, str):
            return commit_id
    return None
