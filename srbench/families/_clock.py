"""Seconds of device work, not of launching it, and the memory that it took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Seconds:
    """Filled when the `with` is left."""

    value: float = 0.0


@contextmanager
def timed(device: torch.device) -> Iterator[Seconds]:
    """Time the block with the device synchronised before and after it."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    seconds, began = Seconds(), now()
    yield seconds
    seconds.value = now() - began


def begin_peak(device: torch.device) -> None:
    """From here on `peak_bytes` counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The most that this process held on the device since `begin_peak`; 0 where it is no GPU of CUDA's."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def busy(seconds: float = 1.0) -> float | None:
    """The share of this machine's processors in use while this process sleeps, 0 to 1; None if not known."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    if before is None or after is None or after[1] <= before[1]:
        return None
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def _ticks() -> tuple[int, int] | None:
    """Idle and all ticks since the start, as Linux counts them."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        counts = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return counts[3] + counts[4], sum(counts)  # idle, and waiting for a disk
    return None


def others_bytes(device: torch.device) -> int | None:
    """Bytes of a CUDA device's memory that other processes hold, its driver's own included; else None."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device))
