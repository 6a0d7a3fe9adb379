"""Seconds of device work, not of launching it, and the memory that it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
