"""PAB's hooks: diffusers' own, and the same with a state for each guidance branch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from diffusers.hooks.hooks import StateManager
from diffusers.hooks.pyramid_attention_broadcast import (
    PyramidAttentionBroadcastHook,
    PyramidAttentionBroadcastState,
)
from torch import nn

from srbench.accelerators._hooks import hooked
from srbench.accelerators.base import Attachment

if TYPE_CHECKING:
    from srbench.accelerators.pab import PAB

NAME = "pyramid_attention_broadcast"


class SharedHook(PyramidAttentionBroadcastHook):
    """The stock hook, which also tells whether it computed."""

    def __init__(self, pab: PAB, attachment: Attachment) -> None:
        super().__init__(pab.timestep_range, pab.skip_range, lambda: attachment.timestep)
        self.attachment = attachment

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        cached = self.state.cache
        output = super().new_forward(module, *args, **kwargs)
        self.attachment.tally_module(reused=output is cached)
        return output


class BranchHook(SharedHook):
    """The same with one state for `cond` and one for `uncond`."""

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        self.states = StateManager(PyramidAttentionBroadcastState)
        return module

    @property
    def state(self) -> PyramidAttentionBroadcastState:
        return self.states.get_state()

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.states.reset()
        return module


def attention_modules(model: nn.Module, cross: bool) -> list[nn.Module]:
    """Self-attention of every block (`attn1`), and cross-attention (`attn2`) if asked for."""
    names = ("attn1", "attn2") if cross else ("attn1",)
    return [m for n, m in model.named_modules() if n.rpartition(".")[2] in names]


@contextlib.contextmanager
def attached(pab: PAB, model: nn.Module, attachment: Attachment) -> Iterator[None]:
    """Hook every attention module of `model`; leave no trace on leaving."""
    hook = BranchHook if pab.state == "per_branch" else SharedHook
    modules = attention_modules(model, pab.hooks == "self+cross")
    with hooked(model, [(m, NAME, hook(pab, attachment)) for m in modules]):
        yield
