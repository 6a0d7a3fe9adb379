"""What every training stage shares: processes, checkpoints, schedules, batches.

Checkpoints are safetensors (parameters, averages, optimiser state) and a stage
draws its data from (seed, step, rank) alone, so a run that was stopped goes on as
if it had not been.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from srbench.shapes.world import Scene, scenes


@dataclass(frozen=True)
class Group:
    """The processes of one training run; a single process is a group of one."""

    rank: int
    size: int

    @classmethod
    def join(cls) -> Group:
        """Join the group that `torchrun` describes in the environment, if any."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")
        return cls(int(os.environ.get("RANK", "0")), size)

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the group, in one message."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for grad in grads:
            grad.copy_(flat[start : start + grad.numel()].view_as(grad))
            start += grad.numel()

    def rng(self, *key: int) -> np.random.Generator:
        """A generator that depends on `key` and this process alone."""
        return np.random.default_rng([*key, self.rank])


def warm_cosine(step: int, steps: int, warm: int = 100, last: float = 0.02) -> float:
    """Learning-rate factor: linear to 1 over `warm` steps, then a cosine to `last`."""
    if step < warm:
        return (step + 1) / warm
    progress = min(1.0, (step - warm) / max(1, steps - warm))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))


class Average:
    """Exponential moving average of a model's parameters, on the same device."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            self.values[name].lerp_(value, 1 - decay)


def checkpoint(
    path: Path,
    step: int,
    models: dict[str, dict[str, Tensor]],
    optimisers: list[torch.optim.Optimizer],
) -> None:
    """Write everything a stage needs to go on, whole or not at all."""
    tensors = {f"{n}/{k}": v.contiguous() for n, m in models.items() for k, v in m.items()}
    for i, optimiser in enumerate(optimisers):
        for j, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser{i}/{j}/{key}"] = torch.as_tensor(value).contiguous()
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.clone() for k, v in tensors.items()}, partial, {"step": str(step)})
    os.replace(partial, path)


def restore(path: Path, models: dict[str, dict[str, Tensor]], optimisers: list[torch.optim.Optimizer]) -> int:
    """Load `checkpoint`'s file into given state dicts (in place); the next step's number."""
    states: list[dict] = [o.state_dict() for o in optimisers]
    with safe_open(path, "pt") as file:
        for name, model in models.items():
            for key, value in model.items():
                value.copy_(file.get_tensor(f"{name}/{key}"))
        for full in file.keys():
            if full.startswith("optimiser"):
                which, index, key = full.removeprefix("optimiser").split("/")
                slot = states[int(which)]["state"].setdefault(int(index), {})
                slot[key] = file.get_tensor(full)
        step = int(file.metadata()["step"])
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict(state)
    return step


@dataclass(frozen=True)
class Curriculum:
    """Which scenes are drawn: one thing with this probability, else two; train split only."""

    one: float

    def draw(self, rng: np.random.Generator, n: int) -> Iterator[Scene]:
        single, double = scenes(1, "train"), scenes(2, "train")
        for _ in range(n):
            pool = single if rng.random() < self.one else double
            yield pool[rng.integers(len(pool))]
