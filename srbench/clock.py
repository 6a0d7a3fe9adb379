"""Seconds of device work, not of launching it."""

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
