"""TeaCache's hooks: block 0 decides, the middle blocks pass through, the last one stores.

One class for every family: a block takes and gives a video's hidden states, and in
CogVideoX the text's beside them, each with a residual of its own under one decision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.hooks import BaseState, ModelHook, StateManager
from torch import Tensor, nn

from srbench.accelerators._hooks import hooked
from srbench.accelerators.base import Attachment
from srbench.errors import UserError

if TYPE_CHECKING:
    from srbench.accelerators.teacache import TeaCache


class Memory(BaseState):
    """What one guidance branch remembers between steps."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self, *args: Any, **kwargs: Any) -> None:
        self.seen = 0
        self.accumulated = 0.0
        self.embedding: Tensor | None = None
        self.entered: tuple[Tensor, ...] = ()
        self.residuals: tuple[Tensor, ...] = ()
        self.skip = False


def time_embedder(model: Any) -> nn.Module:
    """The module that makes the time embedding e."""
    return model.time_embedding if is_cogvideox(model) else model.condition_embedder.time_embedder


def is_cogvideox(model: Any) -> bool:
    return isinstance(model, CogVideoXTransformer3DModel)


def watched(model: Any, output: Tensor) -> Tensor:
    """E as the published code of each family compares it.

    On Wan float32, which its time embedder is also in a bfloat16 model; on CogVideoX in
    the model's dtype.
    """
    return output.detach() if is_cogvideox(model) else output.detach().float()


def projected(model: Any, e: Tensor) -> Tensor:
    """Wan's e0, the projected time embedding, in float32 as the published code has it.

    e: the time embedder's output, float32.
    """
    projection = model.condition_embedder.time_proj
    return nn.functional.linear(nn.functional.silu(e), projection.weight.float(), projection.bias.float())


class Decision:
    """Shared by the hooks of one model: the polynomial, the embedding, the memories."""

    def __init__(self, teacache: TeaCache, attachment: Attachment, model: Any) -> None:
        self.teacache, self.attachment = teacache, attachment
        fitted = attachment.polynomials.get(teacache.mode)
        own = fitted if teacache.coefficients is None else teacache.coefficients
        if own is None:
            raise UserError(
                f"teacache ({teacache.mode}) on the {attachment.role} model",
                "a rescale polynomial fitted for this model",
                "srbench calibrate teacache --family NAME, or set coefficients",
            )
        self.polynomial = np.poly1d(own)
        self.memories = StateManager(Memory)
        self.model = model
        self.embedding: Tensor | None = None

    def watch(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """Forward hook of the time embedder."""
        e = watched(self.model, output)
        self.embedding = projected(self.model, e) if self.teacache.mode == "ret_steps" else e

    def skips(self, memory: Memory) -> bool:
        """Whether this call may reuse the residual; updates the memory as published."""
        e, before = self.embedding, memory.embedding
        assert e is not None
        memory.embedding = e
        memory.seen += 1
        index = self.memories.context.step_index
        last = self.teacache.mode == "default" and index == self.attachment.steps - 1
        if memory.seen <= self.teacache.first_steps or last or before is None:
            memory.accumulated = 0.0
            return False
        distance = float((e - before).abs().mean() / before.abs().mean())
        memory.accumulated += float(self.polynomial(distance))
        if self.teacache.threshold > 0 and memory.accumulated < self.teacache.threshold:
            return True
        memory.accumulated = 0.0
        return False


class BlockHook(ModelHook):
    """One block's hook; `place` is its place in the stack."""

    _is_stateful = True

    def __init__(self, decision: Decision, first: bool, last: bool) -> None:
        super().__init__()
        self.decision, self.first, self.last = decision, first, last
        # diffusers hands the cache context to StateManagers that are attributes of a hook
        self.memories = decision.memories

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # streams a block gives back: (hidden,) or (hidden, encoder hidden)
        metadata = TransformerBlockRegistry.get(type(module))
        two = metadata.return_encoder_hidden_states_index is not None
        names = ("hidden_states", "encoder_hidden_states")[: 1 + two]
        given = tuple(metadata._get_parameter_from_args_kwargs(n, args, kwargs) for n in names)
        memory: Memory = self.memories.get_state()
        if self.first:
            memory.skip = self.decision.skips(memory)
            self.decision.attachment.tally_call(reused=memory.skip)
            if memory.skip:
                added = tuple(x + r for x, r in zip(given, memory.residuals, strict=True))
                return added if two else added[0]
            memory.entered = given
        elif memory.skip:
            return given if two else given[0]
        output = self.fn_ref.original_forward(*args, **kwargs)
        if self.last:
            left = output if two else (output,)
            memory.residuals = tuple(x - e for x, e in zip(left, memory.entered, strict=True))
            memory.entered = ()
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        self.memories.reset()
        return module


@contextlib.contextmanager
def attached(teacache: TeaCache, model: Any, attachment: Attachment) -> Iterator[None]:
    """Hook every block of `model` and watch its time embedder."""
    decision = Decision(teacache, attachment, model)
    blocks = list(model.transformer_blocks if is_cogvideox(model) else model.blocks)
    hooks = [
        (block, "teacache", BlockHook(decision, i == 0, i == len(blocks) - 1))
        for i, block in enumerate(blocks)
    ]
    watcher = time_embedder(model).register_forward_hook(decision.watch)
    try:
        with hooked(model, hooks), torch.no_grad():
            yield
    finally:
        watcher.remove()
